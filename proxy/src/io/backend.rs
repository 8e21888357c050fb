//! The I/O backend: io_uring where the kernel lets us, epoll where not.
//!
//! Container runtimes block `io_uring_setup` in their default seccomp profile, so epoll is not a
//! museum piece but what many pods will run on. The kernel is asked once, at start; the answer is
//! named in the log, in `/ready` and in a metric.
//!
//! # Invariants
//! - With `DEFER_TASKRUN` the ring makes no progress while a task stays runnable, so no task of
//!   the proxy ever wakes itself in a loop.
//! - A runtime is never dropped with operations in flight: the process ends by `exit`.

use std::fmt;
use std::future::Future;
use std::io;

use io_uring::IoUring;

use crate::limits::{RING_COMPLETIONS, RING_ENTRIES};

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Request {
    /// io_uring if the kernel has it, epoll otherwise.
    #[default]
    Auto,
    /// io_uring or nothing.
    #[value(name = "io_uring", alias = "io-uring")]
    IoUring,
    /// epoll.
    Epoll,
}

/// What will be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring with the best set of flags that the kernel took.
    IoUring(RingFlags),
    /// epoll through monoio's legacy driver.
    Epoll,
}

/// Setup flags of the ring, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFlags {
    /// `SINGLE_ISSUER | DEFER_TASKRUN | COOP_TASKRUN | SUBMIT_ALL` (kernel 6.1).
    DeferTaskrun,
    /// `COOP_TASKRUN | SUBMIT_ALL` (kernel 5.19).
    CoopTaskrun,
    /// None.
    Plain,
}

impl Backend {
    /// The word for logs, `/ready` and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring(_) => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring(RingFlags::DeferTaskrun) => out.write_str("io_uring (defer_taskrun)"),
            Self::IoUring(RingFlags::CoopTaskrun) => out.write_str("io_uring (coop_taskrun)"),
            Self::IoUring(RingFlags::Plain) => out.write_str("io_uring (no flags)"),
            Self::Epoll => out.write_str("epoll"),
        }
    }
}

/// Asks the kernel and decides.
///
/// # Errors
/// The kernel's refusal, when io_uring was asked for by name.
pub fn choose(request: Request) -> io::Result<(Backend, Option<io::Error>)> {
    if request == Request::Epoll {
        return Ok((Backend::Epoll, None));
    }
    let mut refusal = None;
    for flags in [RingFlags::DeferTaskrun, RingFlags::CoopTaskrun, RingFlags::Plain] {
        match builder(flags).build(RING_ENTRIES) {
            Ok(_) => return Ok((Backend::IoUring(flags), None)),
            Err(error) => refusal = Some(error),
        }
    }
    match (request, refusal) {
        (Request::IoUring, Some(error)) => Err(error),
        (_, refusal) => Ok((Backend::Epoll, refusal)),
    }
}

fn builder(flags: RingFlags) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(RING_COMPLETIONS);
    match flags {
        RingFlags::DeferTaskrun => {
            builder.setup_submit_all().setup_coop_taskrun();
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        RingFlags::CoopTaskrun => {
            builder.setup_submit_all().setup_coop_taskrun();
        }
        RingFlags::Plain => {}
    }
    builder
}

/// Runs `main` on this thread, on a runtime of `backend`. It is not meant to return.
///
/// # Errors
/// When the runtime cannot be built.
pub fn block_on<F: Future>(backend: Backend, main: F) -> io::Result<F::Output> {
    match backend {
        Backend::IoUring(flags) => {
            let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                .uring_builder(builder(flags))
                .with_entries(RING_ENTRIES)
                .enable_timer()
                .build()?;
            Ok(runtime.block_on(main))
        }
        Backend::Epoll => {
            let mut runtime =
                monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build()?;
            Ok(runtime.block_on(main))
        }
    }
}
