//! `ringway-push`: parses the command line and hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringway_push::cli::main()
}
