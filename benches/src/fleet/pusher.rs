//! A pusher of its own for a measurement: the folder of a mesh, the process, a token.
//!
//! # Invariants
//! - It is ended with whoever started it, by `Child`; its folders go with `Scratch`.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ringway_tls::Bundle;

use super::sidecar::TARGET;
use crate::child::Child;
use crate::error::Error;
use crate::guard::Guard;
use crate::procfs::Process;
use crate::scratch::Scratch;

/// Endpoints of each service but the one that changes.
const ENDPOINTS: usize = 10;

/// A pusher that was started here.
pub(super) struct Pusher {
    program: PathBuf,
    guard: Arc<Guard>,
    scratch: Scratch,
    mesh: PathBuf,
    pub(super) address: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
    starts: usize,
}

/// The identity of the workload of a class.
pub(super) fn identity(class: usize) -> String {
    format!("spiffe://cluster.local/ns/default/sa/class-{class}")
}

/// A mesh in which `classes` workloads call all of `services` services.
fn mesh(classes: usize, services: usize) -> String {
    let names: Vec<String> = (1..services).map(|nth| format!("service-{nth}")).collect();
    let mut text = String::from("services:\n");
    for name in names.iter().map(String::as_str).chain([TARGET]) {
        let port = "{name: http, port: 80, protocol: http1}";
        let _ = writeln!(text, "  - {{name: {name}, identities: [], ports: [{port}]}}");
    }
    text += "endpoints:\n";
    for (nth, name) in names.iter().enumerate() {
        let (high, low) = (nth / 250, nth % 250);
        let address = |last| format!("{{address: \"10.{high}.{low}.{last}:8080\"}}");
        let addresses: Vec<String> = (1..=ENDPOINTS).map(address).collect();
        let addresses = addresses.join(", ");
        let _ = writeln!(text, "  - {{service: {name}, addresses: [{addresses}]}}");
    }
    text += "workloads:\n";
    let imports: Vec<&str> = names.iter().map(String::as_str).chain([TARGET]).collect();
    let imports = imports.join(", ");
    for class in 0..classes {
        let outbound = "\"127.0.0.1:4140\"";
        let workload = format!("name: class-{class}, outbound: {outbound}, imports: [{imports}]");
        let _ = writeln!(text, "  - {{{workload}}}");
    }
    text
}

/// The address of the service that changes, before the first change and after the `nth`.
pub(super) fn target(nth: usize) -> SocketAddr {
    SocketAddr::from(([10, 255, (nth / 250) as u8, (nth % 250) as u8 + 1], 8080))
}

impl Pusher {
    /// Writes a mesh and prepares a pusher for it; nothing runs yet.
    pub(super) fn new(program: PathBuf, classes: usize, services: usize) -> Result<Self, Error> {
        let guard = Arc::new(Guard::start()?);
        let scratch = Scratch::new(&guard)?;
        let folder = scratch.make_folder("mesh.d")?;
        let text = mesh(classes, services);
        fs::write(folder.join("mesh.yaml"), text).map_err(Error::io("write a mesh"))?;
        let (address, admin) = (scratch.free_address()?, scratch.free_address()?);
        let pusher =
            Self { program, guard, scratch, mesh: folder, address, admin, child: None, starts: 0 };
        pusher.change(0)?;
        Ok(pusher)
    }

    /// Gives the service its endpoint after the `nth` change, as an operator's editor does.
    pub(super) fn change(&self, nth: usize) -> Result<(), Error> {
        let address = target(nth);
        let text = format!(
            "endpoints: [{{service: {TARGET}, addresses: [{{address: \"{address}\"}}]}}]\n"
        );
        let beside = self.scratch.folder().join("target.new");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, self.mesh.join("target.yaml")))
            .map_err(Error::io("change an endpoint"))
    }

    fn state(&self) -> PathBuf {
        self.scratch.folder().join("state")
    }

    /// Starts it, at first or again. It does not answer yet.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        self.starts += 1;
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--dir").arg(&self.mesh).arg("--state").arg(self.state());
        command.args(["--listen", &self.address.to_string()]);
        command.args(["--admin", &self.admin.to_string(), "--profile", "dev"]);
        let log = self.scratch.folder().join(format!("pusher-{}.log", self.starts));
        self.child = Some(Child::start("ringway-push", command, None, Some(log), &self.guard)?);
        Ok(())
    }

    /// Waits until it listens.
    pub(super) fn wait(&mut self) -> Result<(), Error> {
        let address = self.address;
        self.child.as_mut().map_or(Ok(()), |child| child.wait_for(address))
    }

    /// The process that runs.
    pub(super) fn process(&self) -> Option<Process> {
        self.child.as_ref().map(Child::process)
    }

    /// Ends it as a crash would (SIGKILL).
    pub(super) fn kill(&mut self) {
        if let Some(process) = self.process() {
            process.signal(rustix::process::Signal::KILL);
        }
        self.child = None;
    }

    /// A token for all sidecars of the fleet.
    pub(super) fn token(&self, uses: usize) -> Result<String, Error> {
        let output = Command::new(&self.program)
            .args(["ca", "token", "create", "spiffe://cluster.local/ns/default/sa/*"])
            .args(["--uses", &uses.to_string(), "--state"])
            .arg(self.state())
            .output()
            .map_err(Error::io("make a token"))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && !text.is_empty() {
            return Ok(text);
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Fleet(format!("no token: {words}")))
    }

    /// SHA-256 of the root of the mesh.
    pub(super) fn root_sha256(&self) -> Result<[u8; 32], Error> {
        root_sha256(&self.state().join("operator/bundle.pem"))
    }
}

/// SHA-256 of the first root in a file.
fn root_sha256(path: &Path) -> Result<[u8; 32], Error> {
    let text = fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
    let bundle = Bundle::parse(&text, &[]).map_err(|fault| Error::Malformed {
        what: path.display().to_string(),
        detail: fault.to_string(),
    })?;
    let root = bundle.roots().first().map(|root| root.sha256);
    root.ok_or_else(|| Error::Fleet("the bundle has no root".to_owned()))
}
