//! `ringway-push`: the config pusher. It will validate, stage, roll out and roll back what the
//! sidecars read; this version refuses every command, so that nobody builds on an empty promise.

use std::process::ExitCode;

/// Exit code for a command line that asks for what does not exist (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    eprintln!("ringway-push: not part of this version; `ringway run` reads a static file");
    ExitCode::from(EXIT_USAGE)
}
