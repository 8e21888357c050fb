//! Lines for the person at the terminal. Results go to standard output, everything else to standard
//! error, so that a figure can be piped.

use std::io::{self, IsTerminal, Write};

/// Prints one line of result. A reader that went away is not an error of the measurement.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints one line of progress or complaint.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Replaces the progress line on a terminal; silent elsewhere. An empty line erases it.
pub(crate) fn progress(line: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{line}").and_then(|()| err.flush());
    }
}
