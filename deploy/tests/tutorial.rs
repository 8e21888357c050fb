//! The tutorial, word for word: every block of commands is run, in one shell and in order, and
//! every line of the answer below it must come, in order; `…` stands for whatever there is.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod page;

use std::path::{Path, PathBuf};
use std::process::Command;

use page::{blocks, is_as_shown};

const PAGE: &str = include_str!("../TUTORIAL.md");

/// Folders with the programs of the tutorial.
fn programs() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(ringway) = std::env::var_os("RINGWAY_BIN") {
        folders.extend(Path::new(&ringway).parent().map(Path::to_owned));
    }
    let own = Path::new(env!("CARGO_BIN_EXE_ringway-push"));
    folders.extend(own.parent().map(Path::to_owned));
    folders
}

#[test]
fn every_command_of_the_tutorial_answers_as_the_page_says() {
    let steps = blocks(PAGE);
    assert!(steps.len() > 8, "the page has commands");
    let answers = steps.iter().filter(|step| !step.shown.is_empty()).count();
    assert_eq!(answers, PAGE.matches("```text").count(), "every answer has its commands");
    let folders = programs();
    for program in ["ringway", "ringway-push", "ringway-bench"] {
        let found = folders.iter().any(|folder| folder.join(program).is_file());
        assert!(found, "{program} is not in {folders:?}: `make build` makes it");
    }
    let mut script =
        String::from("set -eu\nset -m\ntrap 'kill -9 $(jobs -p) 2> kill.log || true' EXIT\n");
    for (nth, step) in steps.iter().enumerate() {
        script += &format!("{}echo '@@ {nth}'\n", step.commands);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tutorial.sh"), script).unwrap();
    let mut path: Vec<PathBuf> = folders;
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let output = Command::new("timeout")
        .args(["-k", "5", "120", "bash", "tutorial.sh"])
        .current_dir(folder.path())
        .env("PATH", std::env::join_paths(path).unwrap())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut rest = printed.as_str();
    for (nth, step) in steps.iter().enumerate() {
        let place = format!("TUTORIAL.md:{}", step.line);
        let end = format!("@@ {nth}\n");
        let found = rest.split_once(&end);
        let (own, after) = found
            .unwrap_or_else(|| panic!("{place} did not come to its end:\n{rest}\n{complained}"));
        rest = after;
        let mut lines = own.lines();
        for expected in &step.shown {
            let found = lines.any(|line| is_as_shown(line.trim_end(), expected));
            assert!(found, "{place}: `{expected}` was not printed:\n{own}\n{complained}");
        }
    }
}

#[test]
fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
    assert!(is_as_shown("a b c", "a … c"));
    assert!(is_as_shown("a b c", "a …"));
    assert!(!is_as_shown("a b d", "a … c"));
    assert!(!is_as_shown("ab", "a"));
    assert!(is_as_shown("a", "a"));
}
