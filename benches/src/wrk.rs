//! Runs Debian's `wrk` for small requests and reads its report.
//!
//! A closed loop: it says what a proxy spends per request, not what a waiting user sees.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use crate::error::Error;

/// What wrk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    /// Socket errors, timeouts, and answers outside 2xx and 3xx.
    pub(crate) errors: u64,
}

/// One run of wrk.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
    /// A script that chooses the requests; without one, `GET /`.
    pub(crate) script: Option<PathBuf>,
}

/// Runs the load on the core of the calling thread and waits for its end.
pub(crate) fn run(load: &Load) -> Result<Report, Error> {
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--timeout", "10s"]);
    command.args(["--connections", &load.connections.to_string()]);
    command.args(["--duration", &format!("{}s", load.seconds)]);
    if let Some(script) = &load.script {
        command.arg("--script").arg(script);
    }
    let output = command.arg(format!("http://{}/", load.target)).output().map_err(|error| {
        match error.kind() {
            std::io::ErrorKind::NotFound => Error::Missing {
                program: "wrk".to_owned(),
                remedy: ".ci/install-tools installs it",
            },
            _ => Error::io("run wrk")(error),
        }
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| Error::Malformed {
        what: "the report of wrk".to_owned(),
        detail: format!("{text}{}", String::from_utf8_lossy(&output.stderr)),
    })
}

fn parse(text: &str) -> Option<Report> {
    let mut report = Report::default();
    let mut found = false;
    for line in text.lines().map(str::trim) {
        if let Some((requests, _)) = line.split_once(" requests in ") {
            report.requests = requests.parse().ok()?;
            found = true;
        } else if let Some(kinds) = line.strip_prefix("Socket errors: ") {
            for kind in kinds.split(", ") {
                report.errors += kind.rsplit_once(' ')?.1.parse::<u64>().ok()?;
            }
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses: ") {
            report.errors += count.parse::<u64>().ok()?;
        }
    }
    found.then_some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_every_kind_of_error_are_counted() {
        let text = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n\
            \x20 83371 requests in 2.00s, 9.46MB read\n\
            \x20 Socket errors: connect 1, read 2, write 3, timeout 4\n\
            \x20 Non-2xx or 3xx responses: 5\nRequests/sec:  41660.19\n";
        assert_eq!(parse(text), Some(Report { requests: 83_371, errors: 15 }));
    }

    #[test]
    fn a_report_without_a_count_is_no_report() {
        assert_eq!(parse("unable to connect to 127.0.0.1:1 Connection refused\n"), None);
    }
}
