//! The tutorial, word for word: every block of commands is run, in one shell and in order, and
//! every line of the answer below it must come, in order; `…` stands for whatever there is.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Commands and the lines that they must print.
struct Step {
    line: usize,
    commands: String,
    expected: Vec<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line != "```sh" && line != "```text" {
            continue;
        }
        let block: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if line == "```sh" {
            let commands = block.join("\n");
            steps.push(Step { line: number + 1, commands, expected: Vec::new() });
        } else {
            let expected = block.into_iter().map(str::to_owned).collect();
            steps.last_mut().expect("commands come first").expected = expected;
        }
    }
    steps
}

/// Whether `line` is as `pattern` says.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last == Some("")
}

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
    let steps = steps(include_str!("../TUTORIAL.md"));
    assert!(steps.len() > 8, "the page has commands");
    let folders = programs();
    for program in ["ringway", "ringway-push", "ringway-bench"] {
        let found = folders.iter().any(|folder| folder.join(program).is_file());
        assert!(found, "{program} is not in {folders:?}: `make build` makes it");
    }
    let mut script =
        String::from("set -eu\nset -m\ntrap 'kill -9 $(jobs -p) 2> kill.log || true' EXIT\n");
    for (nth, step) in steps.iter().enumerate() {
        script += &format!("{}\necho '@@ {nth}'\n", step.commands);
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
        for expected in &step.expected {
            let found = lines.any(|line| matches(expected, line.trim_end()));
            assert!(found, "{place}: `{expected}` was not printed:\n{own}\n{complained}");
        }
    }
}

#[test]
fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
    assert!(matches("a … c", "a b c"));
    assert!(matches("a …", "a b c"));
    assert!(!matches("a … c", "a b d"));
    assert!(!matches("a", "ab"));
    assert!(matches("a", "a"));
}
