//! What the load is tested with: itself as a process, the origin, and programs of others.

// Each test file uses a part of this.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ringway-bench");

/// A process that ends with the test.
pub(crate) struct Peer {
    child: Child,
    pub(crate) address: SocketAddr,
    files: Option<tempfile::TempDir>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// `ringway-bench origin` with further options.
    pub(crate) fn origin(options: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["origin", "--listen", "127.0.0.1:0"])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = line.rsplit(' ').next().unwrap().parse().unwrap();
        Self { child, address, files: None }
    }

    /// nginx with these lines in its `http` block, where `LISTEN` is an address and `FILES` a folder
    /// that has what `fill` put there.
    pub(crate) fn nginx(server: &str, fill: impl FnOnce(&std::path::Path)) -> Self {
        let files = tempfile::tempdir().unwrap();
        fill(files.path());
        let address = free_address();
        let folder = files.path().to_str().unwrap();
        let server = server.replace("LISTEN", &address.to_string()).replace("FILES", folder);
        let text = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {folder}/body;\n\
             proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n\
             uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n{server} }}\n"
        );
        let file = files.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let program = if which("nginx") { "nginx" } else { "/usr/sbin/nginx" };
        let mut command = Command::new(program);
        command.arg("-p").arg(files.path()).arg("-c").arg(&file);
        Self::started(&mut command, address, Some(files))
    }

    /// Any program that listens on `address` soon.
    pub(crate) fn started(
        command: &mut Command,
        address: SocketAddr,
        files: Option<tempfile::TempDir>,
    ) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let peer = Self { child, address, files };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nobody listens on {address}");
            std::thread::sleep(Duration::from_millis(10));
        }
        peer
    }

    /// The folder of its files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.files.as_ref().unwrap().path()
    }

    /// Lets it stand still for the first 200 ms of every second, so many times.
    pub(crate) fn stall(&self, seconds: u32) -> std::thread::JoinHandle<()> {
        let pid = Pid::from_child(&self.child);
        std::thread::spawn(move || {
            let start = Instant::now();
            for second in 0..seconds {
                let stop = start + Duration::from_secs(u64::from(second));
                std::thread::sleep(stop.saturating_duration_since(Instant::now()));
                rustix::process::kill_process(pid, Signal::STOP).unwrap();
                std::thread::sleep(Duration::from_millis(200));
                rustix::process::kill_process(pid, Signal::CONT).unwrap();
            }
        })
    }
}

fn which(program: &str) -> bool {
    Command::new(program).arg("-v").stderr(Stdio::null()).status().is_ok()
}

/// An address where nobody listens, for a program that cannot take port 0.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Runs the load.
pub(crate) fn load(target: SocketAddr, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(["load", "--json", "--target", &target.to_string()])
        .args(["--lateness-max", "10s"])
        .args(arguments)
        .output()
        .unwrap()
}

/// What the load printed.
pub(crate) fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// What the load printed, when it went well.
pub(crate) fn measured(target: SocketAddr, arguments: &[&str]) -> serde_json::Value {
    let output = load(target, arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {words}{printed}");
    report(&output)
}

/// The middle of several figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
