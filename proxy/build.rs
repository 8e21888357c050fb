//! Puts the commit into the binary, for `--version` and the logs.

use std::process::Command;

fn main() {
    let describe = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = describe
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |commit| commit.trim().to_owned());
    println!("cargo:rustc-env=RINGWAY_COMMIT={commit}");
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=../.git/refs/heads");
}
