//! `PROTOCOL.md`: its session is run against a pusher, and answers as the page shows.

mod page;

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use page::{blocks, is_as_shown};

const PAGE: &str = include_str!("../PROTOCOL.md");
/// Printed between two blocks of the session.
const END: &str = "--- end of a block";
/// How long the session may take.
const PATIENCE_S: &str = "120";

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
    let blocks = blocks(PAGE);
    assert!(blocks.len() >= 8, "the page has a session");
    let mut script = String::from("set -eu -o pipefail\ntrap 'kill $(jobs -p) || true' EXIT\n");
    for block in &blocks {
        script += &format!("{}echo '{END}'\n", block.commands);
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
    for (block, answer) in blocks.iter().zip(&answers) {
        let (answer, shown): (Vec<&str>, _) = (answer.lines().collect(), &block.shown);
        let same = answer.len() == shown.len()
            && answer.iter().zip(shown).all(|(line, shown)| is_as_shown(line, shown));
        let (at, block) = (block.line, &block.commands);
        assert!(
            same,
            "PROTOCOL.md:{at}\n{block}\nanswers\n{answer:#?}\nshown\n{shown:#?}\n{complained}"
        );
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
