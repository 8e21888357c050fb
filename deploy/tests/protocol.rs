//! `PROTOCOL.md`: its session is run against a pusher, and answers as the page shows.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const PAGE: &str = include_str!("../PROTOCOL.md");
/// Printed between two blocks of the session.
const END: &str = "--- end of a block";
/// How long the session may take.
const PATIENCE_S: &str = "120";

/// The fenced blocks of a kind, each with what follows it at once if that is fenced as `text`.
fn blocks() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut lines = PAGE.lines();
    let mut last_was_shell = false;
    while let Some(line) = lines.next() {
        let body = |lines: &mut std::str::Lines<'_>| -> String {
            lines.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()
        };
        match line {
            "```sh" => found.push((body(&mut lines), String::new())),
            "```text" if last_was_shell => {
                let shown = body(&mut lines);
                found.last_mut().expect("a block of the shell").1 = shown;
            }
            "```text" => _ = body(&mut lines),
            _ => {}
        }
        last_was_shell = line == "```sh";
    }
    found
}

/// Whether a line is as shown; `…` stands for anything.
fn is_as_shown(line: &str, shown: &str) -> bool {
    let mut rest = line;
    for (nth, part) in shown.split('…').enumerate() {
        match rest.find(part) {
            Some(at) if nth > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || shown.ends_with('…')
}

/// Ports that nobody uses, in place of those of the page.
fn with_free_ports(script: &str) -> String {
    let listeners = [7443, 7480]
        .map(|port: u16| (port, TcpListener::bind("127.0.0.1:0").expect("a free port")));
    listeners.iter().fold(script.to_owned(), |script, (port, listener)| {
        let free = listener.local_addr().expect("bound").port();
        script.replace(&format!(":{port}"), &format!(":{free}"))
    })
}

#[test]
fn the_session_by_hand_answers_as_the_page_shows() {
    let blocks = blocks();
    assert!(blocks.len() >= 8, "the page has a session");
    let mut script = String::from("set -eu -o pipefail\ntrap 'kill $(jobs -p) || true' EXIT\n");
    for (block, _) in &blocks {
        script += &format!("{block}echo '{END}'\n");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Path::new(env!("CARGO_BIN_EXE_ringway-push")).parent().expect("a folder");
    let path = std::env::var("PATH").expect("a path");
    let output = Command::new("timeout")
        .args([PATIENCE_S, "bash", "-c", &with_free_ports(&script)])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .stdin(Stdio::null())
        // Its own group, which `timeout` ends as a whole.
        .process_group(0)
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    let answers: Vec<&str> = said.split(&format!("{END}\n")).collect();
    for ((block, shown), answer) in blocks.iter().zip(&answers) {
        let (answer, shown): (Vec<&str>, Vec<&str>) =
            (answer.lines().collect(), shown.lines().collect());
        let same = answer.len() == shown.len()
            && answer.iter().zip(&shown).all(|(line, shown)| is_as_shown(line, shown));
        assert!(same, "{block}\nanswers\n{answer:#?}\nshown\n{shown:#?}\n{complained}");
    }
    assert!(output.status.success(), "{:?}\n{said}\n{complained}", output.status);
    assert_eq!(answers.len(), blocks.len() + 1, "every block ended");
}

#[test]
fn every_number_of_a_limit_is_the_codes() {
    use ringway_protocol::limits;
    for (text, limit) in [
        ("| payload of a frame | 32 MiB |", limits::FRAME_BYTES_MAX == 32 << 20),
        ("| body of a request | 1 MiB", limits::BODY_BYTES_MAX == 1 << 20),
        ("4096 bytes are sent, 512 are kept", limits::REASON_BYTES_MAX == 4096),
        ("| 253, 32;", (limits::NAME_BYTES_MAX, limits::NAMES_MAX) == (253, 32)),
        ("| states in a report | 6 |", limits::STATES_MAX == 6),
        ("| 10 000, 4096 |", (limits::CLUSTERS_MAX, limits::MEMBERS_MAX) == (10_000, 4096)),
        ("| 20 000, 10 000 of an identity;", {
            use ringway_push::limits::{NODES_MAX, SIDECARS_MAX};
            (SIDECARS_MAX, NODES_MAX) == (20_000, 10_000)
        }),
    ] {
        assert!(PAGE.contains(text) && limit, "{text}");
    }
}
