//! Errors of the bench programs, and the exit code that each of them means.
//!
//! The variants tell apart who has to act: the person who typed the command (`Usage`), the machine
//! (`Missing`, `PortTaken`, `Io`), or the proxy under test (`Ended`, `NotReady`, `BadRound`,
//! `Instructions`).

use std::{io, net::SocketAddr, path::PathBuf, process::ExitStatus, time::Duration};

/// Exit code for a command line that cannot be obeyed (sysexits `EX_USAGE`).
pub(crate) const EXIT_USAGE: u8 = 64;
const EXIT_RUNTIME: u8 = 1;

/// Why a bench program stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The options contradict each other or name something unknown.
    #[error("{0}")]
    Usage(String),
    /// A program that the measurement needs is not installed or not built.
    #[error("{program} not found; {remedy}")]
    Missing {
        /// Name of the program.
        program: String,
        /// What installs or builds it.
        remedy: &'static str,
    },
    /// Somebody else listens where we have to.
    #[error("{address} is in use; find the owner with: ss -ltnp 'sport = :{}'", address.port())]
    PortTaken {
        /// The address that could not be bound.
        address: SocketAddr,
    },
    /// A call into the system failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried, as the rest of the sentence "cannot ...".
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A started program ended although it was still needed.
    #[error("{program} ended early ({status}); its last words:\n{output}")]
    Ended {
        /// Name of the program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The tail of its output.
        output: String,
    },
    /// A started program did not answer in time.
    #[error("{program} did not answer on {address} in time; its last words:\n{output}")]
    NotReady {
        /// Name of the program.
        program: String,
        /// Where the answer was expected.
        address: SocketAddr,
        /// The tail of its output.
        output: String,
    },
    /// A measurement saw failed requests or no requests at all, so its figure means nothing.
    #[error("{scenario} through {peer}: {requests} done, {errors} failed")]
    BadRound {
        /// Id of the scenario.
        scenario: String,
        /// Id of the proxy under load.
        peer: String,
        /// Requests or bodies that were answered well.
        requests: u64,
        /// Requests or bodies that failed.
        errors: u64,
    },
    /// The generator did not hold its times, so its figures are about itself.
    #[error(
        "the generator was late: {lateness:?} at its 99th percentile, {allowed:?} allowed; \
         give it a core of its own, or ask for less"
    )]
    Late {
        /// How late, at the 99th percentile.
        lateness: Duration,
        /// What was allowed.
        allowed: Duration,
    },
    /// A file or an answer is not what its producer promises.
    #[error("cannot read {what}: {detail}")]
    Malformed {
        /// The file or the answer.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The results file exists but is not ours to merge into.
    #[error("{path} is not a results file ({detail}); move it away", path = path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// A plot could not be drawn: a defect of the report, not of its input.
    #[error("cannot draw the plot {name}: {detail}")]
    Plot {
        /// Name of the plot.
        name: String,
        /// What the plotting library said.
        detail: String,
    },
    /// Workloads take more instructions than the ratchet allows, or it has others.
    #[error("{}; if this is meant: make bench-instructions UPDATE=1", .0.join("; "))]
    Instructions(Vec<String>),
    /// A fleet did not get where it should.
    #[error("the fleet: {0}")]
    Fleet(String),
    /// Some scenarios could not be measured; the others were, and are recorded.
    #[error("not measured: {}", .0.join("; "))]
    Incomplete(Vec<String>),
}

impl Error {
    /// Wraps an I/O error with what was tried, for use in `map_err`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// The exit code of the process that ends with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Missing { .. }
            | Self::PortTaken { .. }
            | Self::Io { .. }
            | Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::BadRound { .. }
            | Self::Late { .. }
            | Self::Malformed { .. }
            | Self::Results { .. }
            | Self::Plot { .. }
            | Self::Instructions(_)
            | Self::Fleet(_)
            | Self::Incomplete(_) => EXIT_RUNTIME,
        }
    }
}
