//! A started program: pinned to a core, watched by the guard, ended when its owner lets go.
//!
//! # Invariants
//! - The child inherits the affinity that is set for it before it exists: no instruction of it runs
//!   on another core.
//! - `Drop` ends the program and its descendants and collects its exit status.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{self, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::thread::CpuSet;

use crate::{
    error::Error,
    guard::{self, Guard},
    limits::{LAST_WORDS_BYTES, READY_MAX},
    procfs::Process,
};

/// A running program.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    child: process::Child,
    process: Process,
    guard: Arc<Guard>,
    log: Option<PathBuf>,
}

impl Child {
    /// Starts `command` on `core` (any core if `None`). With `log`, both outputs go to that file.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        core: Option<usize>,
        log: Option<PathBuf>,
        guard: &Arc<Guard>,
    ) -> Result<Self, Error> {
        command.stdin(Stdio::null());
        if let Some(path) = &log {
            let file = File::create(path).map_err(Error::io(format!("make a log for {name}")))?;
            let copy = file.try_clone().map_err(Error::io("share a log"))?;
            command.stdout(file).stderr(copy);
        }
        let before = affinity()?;
        if let Some(core) = core {
            pin_to(core)?;
        }
        let spawned = command.spawn();
        set_affinity(&before)?;
        let child = spawned.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                Error::Missing { program: name.to_owned(), remedy: ".ci/install-tools installs it" }
            }
            _ => Error::io(format!("start {name}"))(source),
        })?;
        let process =
            Process::of(child.id()).map_err(Error::io(format!("find the process of {name}")))?;
        guard.watch(process);
        Ok(Self { name: name.to_owned(), child, process, guard: Arc::clone(guard), log })
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// How the program ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::io(format!("look after {}", self.name)))
    }

    /// Fails with the program's last words if it is not running any more.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => {
                let (program, output) = (self.name.clone(), self.last_words());
                Err(Error::Ended { program, status, output })
            }
        }
    }

    /// Waits until something listens on `address`.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> Result<(), Error> {
        let deadline = Instant::now() + READY_MAX;
        while TcpStream::connect(address).is_err() {
            self.check()?;
            if Instant::now() >= deadline {
                return Err(self.not_ready(address));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The error of a program that runs but does not answer.
    pub(crate) fn not_ready(&self, address: SocketAddr) -> Error {
        Error::NotReady { program: self.name.clone(), address, output: self.last_words() }
    }

    fn last_words(&self) -> String {
        let read = || -> io::Result<String> {
            let Some(path) = &self.log else { return Ok(String::new()) };
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        read().unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        guard::end_all(&[self.process]);
        // Collects the zombie; after `end_all` there is nothing to wait for.
        let _ = self.child.wait();
        self.guard.forget(self.process);
    }
}

/// The cores that this process may use, in ascending order.
pub(crate) fn allowed_cores() -> Result<Vec<usize>, Error> {
    let set = affinity()?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Moves the calling thread, and all that it starts from now on, to `core`.
pub(crate) fn pin_to(core: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(core);
    set_affinity(&set)
}

fn affinity() -> Result<CpuSet, Error> {
    rustix::thread::sched_getaffinity(None)
        .map_err(|errno| Error::io("read the core affinity")(errno.into()))
}

fn set_affinity(set: &CpuSet) -> Result<(), Error> {
    rustix::thread::sched_setaffinity(None, set)
        .map_err(|errno| Error::io("set the core affinity")(errno.into()))
}

/// Raises the soft limit of open descriptors to the hard one and says what that is.
pub(crate) fn raise_descriptor_limit() -> Result<u64, Error> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|errno| Error::io("raise the descriptor limit")(errno.into()))?;
    Ok(maximum.unwrap_or(u64::MAX))
}
