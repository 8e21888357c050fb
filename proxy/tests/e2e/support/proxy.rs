//! The program under test, started for one test and ended with it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::http::Client;

/// What moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    IoUring,
    Epoll,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The program to test.
pub fn binary() -> PathBuf {
    std::env::var_os("RINGWAY_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ringway")), PathBuf::from)
}

/// A running proxy. Its configuration lies in a folder of its own.
pub struct Proxy {
    child: Child,
    folder: TempDir,
    listeners: HashMap<String, SocketAddr>,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// A configuration with a listener for each version of HTTP, `one` and `two`, that lead to
/// `address`. `cluster` are further fields of its cluster.
pub fn both_versions(address: SocketAddr, cluster: &str) -> String {
    format!(
        "listeners:\n\
         - {{name: one, address: '127.0.0.1:0'}}\n\
         - {{name: two, address: '127.0.0.1:0', protocol: http2}}\n\
         routes:\n- {{name: all, rules: [{{backends: [{{cluster: far}}]}}]}}\n\
         clusters:\n- {{name: far, endpoints: [{{address: '{address}'}}], {cluster}}}\n"
    )
}

impl Proxy {
    /// Starts one worker with `config`. Listeners and admin use port 0; `admin` is added when
    /// the text has none.
    pub fn start(backend: Backend, config: &str) -> Self {
        Self::start_with(backend, config, &["--workers", "1"])
    }

    /// [`Self::start`] with further arguments instead of `--workers 1`.
    pub fn start_with(backend: Backend, config: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["run", "--log-level", "debug", "--backend", backend.name()]);
        command.args(arguments);
        Self::start_by(command, config)
    }

    /// [`Self::start`] without lines about single exchanges, which the test keeps: for much load.
    pub fn start_quiet(backend: Backend, config: &str) -> Self {
        let mut command = Command::new(binary());
        command.args(["run", "--backend", backend.name(), "--workers", "1"]);
        Self::start_by(command, config)
    }

    /// Starts by a command that only lacks the `--config FILE` at its end.
    pub fn start_by(mut command: Command, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ringway.yaml");
        std::fs::write(&file, with_admin(config)).unwrap();
        command.arg("--config").arg(&file).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (up, started) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("ringway is up") {
                    let _ = up.send(line.clone());
                }
                kept.lock().unwrap().push(line);
            }
        });
        let Ok(line) = started.recv_timeout(Duration::from_secs(20)) else {
            let _ = child.kill();
            panic!("the proxy did not start: {:#?}", log.lock().unwrap());
        };
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let listeners = line["listeners"].as_str().unwrap().split_whitespace();
        let listeners = listeners
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, address)| (name.to_owned(), address.parse().unwrap()))
            .collect();
        let admin = line["admin"].as_str().unwrap().parse().unwrap();
        Self { child, folder, listeners, admin, log }
    }

    /// The address of the listener `name`.
    pub fn address(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| panic!("no listener {name}"))
    }

    /// A connection to the listener `name`.
    pub fn client(&self, name: &str) -> Client {
        Client::connect(self.address(name))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("ringway.yaml")
    }

    /// Replaces the configuration the way a careful writer does, by renaming.
    pub fn write_config(&self, config: &str) {
        let next = self.folder.path().join("next.yaml");
        std::fs::write(&next, with_admin(config)).unwrap();
        std::fs::rename(next, self.config_path()).unwrap();
    }

    /// Replaces the configuration and waits until it is applied.
    pub fn reload(&self, config: &str) {
        let applied = self.metric("ringway_config_applied_total");
        self.write_config(config);
        super::eventually("the file is applied", || {
            self.metric("ringway_config_applied_total") > applied
        });
    }

    /// The body of an admin page, with its status.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let response = Client::connect(self.admin).get(path);
        (response.status, response.text())
    }

    /// Waits until counter `name` has come to `value`, and sees that it is no more than that: what
    /// ends a connection is counted once it has ended, which its client may see first.
    pub fn counts(&self, name: &str, value: f64) {
        crate::support::eventually(name, || self.metric(name) >= value);
        assert_eq!(self.metric(name), value, "{name}");
    }

    /// The sum of all samples of a metric whose name, and label if given in braces, match.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let (name, label) = name.split_once('{').unwrap_or((name, ""));
        let label = label.trim_end_matches('}');
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| {
                let (base, labels) = series.split_once('{').unwrap_or((series, ""));
                base == name && labels.contains(label)
            })
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
    }

    /// Everything the proxy has logged.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the admin and control threads have what they need: the line that says the proxy
    /// is up may come before.
    pub fn settle(&self) {
        super::eventually("the admin interface answers", || {
            std::net::TcpStream::connect(self.admin).is_ok()
        });
        assert_eq!(self.admin("/ready").0, 200);
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Sends a signal to the proxy.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Processor time of the process so far, threads that have ended included, in steps of 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in parentheses, may hold spaces; `utime` is the twelfth field after it.
        let (_, fields) = text.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
        let second = rustix::param::clock_ticks_per_second();
        Duration::from_millis(ticks.sum::<u64>() * 1000 / second)
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the proxy has not ended within {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            let from = log.len().saturating_sub(40);
            eprintln!("last lines of the proxy's log:\n{}", log[from..].join("\n"));
        }
    }
}

fn with_admin(config: &str) -> String {
    if config.contains("admin:") {
        config.to_owned()
    } else {
        format!("admin: 127.0.0.1:0\n{config}")
    }
}
