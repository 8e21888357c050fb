//! `ringway-push` as people call it.

use std::path::Path;
use std::process::{Command, Output};

/// Runs it to its end.
pub(crate) fn push(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-push"));
    command.args(arguments).output().expect("it runs")
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path is text")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
