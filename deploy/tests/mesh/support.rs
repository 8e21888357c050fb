//! A mesh of two workloads on this machine: `web` calls `shop`, each with a sidecar; a pusher.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How bytes are moved by the sidecars of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    IoUring,
    Epoll,
}

/// Longest that anything is waited for: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// A port that nobody else takes, below those that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 11_000 + (std::process::id() * 61 % 9000) as u16;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn ringway() -> PathBuf {
    match std::env::var_os("RINGWAY_BIN") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_BIN_EXE_ringway-push")).with_file_name("ringway"),
    }
}

/// An application: answers with its name.
pub struct Application {
    pub address: SocketAddr,
}

impl Application {
    pub fn new(name: &'static str) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                std::thread::spawn(move || serve(stream, name));
            }
        });
        Application { address }
    }
}

fn serve(mut stream: TcpStream, name: &str) {
    let _ = stream.set_nodelay(true);
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            seen.drain(..at + 4);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(count @ 1..) => seen.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
}

/// Passes bytes on to an address, and takes new connections only while it is open.
pub struct Forwarder {
    pub port: u16,
    open: Arc<AtomicBool>,
}

impl Forwarder {
    pub fn new(to: u16) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicBool::new(true));
        let is_open = Arc::clone(&open);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if is_open.load(Ordering::Relaxed) {
                    let Ok(other) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                    for (mut from, mut into) in
                        [(stream.try_clone(), other.try_clone()), (Ok(other), Ok(stream))]
                            .map(|(from, into)| (from.unwrap(), into.unwrap()))
                    {
                        std::thread::spawn(move || {
                            let _ = std::io::copy(&mut from, &mut into);
                            let _ = into.shutdown(std::net::Shutdown::Both);
                        });
                    }
                }
            }
        });
        Forwarder { port, open }
    }

    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }
}

/// The status and body of `GET /path` with `Host: host` at `address`; an error in words.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Result<(u16, String), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| format!("no answer: {answer:?}"))
}

/// A process that ends with the test, and its log.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(mut command: Command, log: PathBuf) -> Process {
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// As by `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As by an orderly SIGTERM.
    pub fn end(&mut self) {
        self.signal("TERM");
        wait_for("the process has ended", || self.child.try_wait().unwrap());
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            eprintln!("--- {}:\n{}", self.log.display(), &log[from..]);
        }
    }
}

/// A sidecar.
pub struct Sidecar {
    pub process: Process,
    pub admin: u16,
    config: PathBuf,
    pub state: PathBuf,
    backend: Backend,
    environment: Vec<(&'static str, String)>,
}

impl Sidecar {
    fn command(&self) -> Command {
        let mut command = sidecar_command(&self.config, self.backend);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it again, after it has ended.
    pub fn restart(&mut self) {
        self.process = Process::start(self.command(), self.process.log.clone());
    }

    /// What it says of the pusher.
    pub fn control(&self) -> Option<Value> {
        let (_, body) = get(([127, 0, 0, 1], self.admin).into(), "admin", "/control").ok()?;
        serde_json::from_str(&body).ok()
    }

    /// The generation and the state of what it runs.
    pub fn running(&self) -> Option<(u64, bool)> {
        let control = self.control()?;
        let generation = control["running"]["generation"].as_u64()?;
        Some((generation, control["on_probation"] == true))
    }
}

fn sidecar_command(config: &Path, backend: Backend) -> Command {
    let mut command = Command::new(ringway());
    let backend = match backend {
        Backend::IoUring => "io-uring",
        Backend::Epoll => "epoll",
    };
    command.args(["run", "--workers", "1", "--backend", backend, "--config"]).arg(config);
    command
}

/// A mesh of its own.
pub struct World {
    pub pusher: Option<Process>,
    pub options: Vec<String>,
    backend: Backend,
    listen: u16,
    pub admin: u16,
    bundle_hash: String,
    pub shop: Application,
    /// Where the sidecar of `shop` takes mutual TLS, and that of `web` plaintext.
    pub inbound: u16,
    pub outbound: u16,
    /// Last: what is in it is shown when a test fails.
    pub folder: tempfile::TempDir,
}

impl World {
    /// A pusher with `options` on the usual mesh. No sidecar runs.
    pub fn new(backend: Backend, options: &[&str]) -> World {
        let mut world = World {
            pusher: None,
            options: options.iter().map(ToString::to_string).collect(),
            backend,
            listen: free_port(),
            admin: free_port(),
            bundle_hash: String::new(),
            shop: Application::new("shop"),
            inbound: free_port(),
            outbound: free_port(),
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(world.dir()).unwrap();
        world.write("shop.yaml", &world.mesh(""));
        world.start_pusher();
        world
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("mesh.d")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The usual mesh, with `routes` of the service `shop`.
    pub fn mesh(&self, routes: &str) -> String {
        let (inbound, outbound, shop) = (self.inbound, self.outbound, self.shop.address);
        format!(
            "services:\n\
             - {{name: shop, pool: {{idle_max: 0}}, ports: [{{name: http, port: 80, protocol: http1}}]}}\n\
             endpoints:\n- {{service: shop, addresses: [{{address: \"127.0.0.1:{inbound}\"}}]}}\n\
             workloads:\n\
             - name: shop\n  serves: [{{service: shop, port: http, \
             listen: \"127.0.0.1:{inbound}\", application: [\"{shop}\"], mtls: strict}}]\n\
             - {{name: web, outbound: \"127.0.0.1:{outbound}\", imports: [shop]}}\n{routes}"
        )
    }

    /// Replaces a file of the mesh in one step.
    pub fn write(&self, name: &str, text: &str) {
        let beside = self.path("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.dir().join(name)).unwrap();
    }

    pub fn start_pusher(&mut self) {
        let log = self.path("push.log");
        let _ = fs::remove_file(&log);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-push"));
        command
            .arg("run")
            .arg("--dir")
            .arg(self.dir())
            .arg("--state")
            .arg(self.path("push"))
            .args(["--listen", &format!("127.0.0.1:{}", self.listen)])
            .args(["--admin", &format!("127.0.0.1:{}", self.admin)])
            .args(&self.options);
        let pusher = Process::start(command, log);
        let mut pusher = pusher;
        self.bundle_hash = wait_for("the pusher is up", || {
            assert!(pusher.is_running(), "it has ended:\n{}", pusher.log());
            let log = pusher.log();
            let at = log.find("sha256:")?;
            log.contains("is up").then(|| log[at..at + 71].to_owned())
        });
        self.pusher = Some(pusher);
    }

    /// SHA-256 of the root, as a sidecar's file names it.
    pub fn bundle_hash(&self) -> String {
        self.bundle_hash.clone()
    }

    pub fn pusher(&mut self) -> &mut Process {
        self.pusher.as_mut().expect("a pusher runs")
    }

    /// What `ringway-push` prints, and how it ends.
    pub fn push(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-push"));
        command.args(words).arg("--state").arg(self.path("push"));
        command.output().unwrap()
    }

    /// What it prints where it must end well.
    pub fn push_well(&self, words: &[&str]) -> String {
        let output = self.push(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// What it complains of where it must not end well.
    pub fn push_badly(&self, words: &[&str]) -> String {
        let output = self.push(words);
        assert!(!output.status.success(), "{words:?} went well");
        String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout)
    }

    /// `ringway-push status`, as JSON.
    pub fn status(&self) -> Value {
        let output = self.push(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// What became of release `number`: `running`, `confirmed`, `halted`, `superseded`.
    pub fn outcome(&self, number: u64) -> Option<String> {
        let output = self.push(&["history", "--json"]);
        let history: Value = serde_json::from_slice(&output.stdout).ok()?;
        let entry =
            history.as_array()?.iter().find(|entry| entry["release"]["number"] == number)?;
        match &entry["outcome"] {
            Value::String(word) => Some(word.clone()),
            Value::Object(fields) => fields.keys().next().cloned(),
            _ => None,
        }
    }

    pub fn token(&self, workload: &str, more: &[&str]) -> String {
        let id = format!("spiffe://cluster.local/ns/default/sa/{workload}");
        self.push_well(&[&["ca", "token", "create", id.as_str()], more].concat())
    }

    /// A sidecar of `workload` called `node`, with a token of its own.
    pub fn sidecar(&self, workload: &str, node: &str, labels: &str) -> Sidecar {
        let token = self.token(workload, &["--uses", "5"]);
        self.sidecar_with(node, labels, &token)
    }

    /// Port of the pusher.
    pub fn listen(&self) -> u16 {
        self.listen
    }

    pub fn sidecar_with(&self, node: &str, labels: &str, token: &str) -> Sidecar {
        self.sidecar_through(self.listen, node, labels, token)
    }

    /// A sidecar that reaches the pusher at port `listen`.
    pub fn sidecar_through(&self, listen: u16, node: &str, labels: &str, token: &str) -> Sidecar {
        let (admin, hash) = (free_port(), &self.bundle_hash);
        let config = self.path(&format!("{node}.yaml"));
        fs::write(self.path(&format!("{node}.token")), token).unwrap();
        let text = format!(
            "admin: 127.0.0.1:{admin}\ndrain: {{delay: 0s, timeout: 1s}}\n\
             control: {{address: \"127.0.0.1:{listen}\", bundle_hash: \"{hash}\", \
             token_file: {node}.token, state_dir: state-{node}, node: {node}, \
             labels: [{labels}]}}\n"
        );
        fs::write(&config, text).unwrap();
        let (backend, log) = (self.backend, self.path(&format!("{node}.log")));
        let process = Process::start(sidecar_command(&config, backend), log);
        let state = self.path(&format!("state-{node}"));
        Sidecar { process, admin, config, state, backend, environment: Vec::new() }
    }

    /// A sidecar whose clock differs by so many seconds (libfaketime, Debian's package `faketime`).
    pub fn sidecar_at(&self, workload: &str, node: &str, seconds: i64) -> Sidecar {
        let token = self.token(workload, &["--uses", "5"]);
        let mut sidecar = self.sidecar_with(node, "", &token);
        sidecar.process.kill();
        let folders = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
        let mut libraries = folders.map(|path| path.join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists());
        let library = library.expect("libfaketime is missing: run `make tools`");
        sidecar.environment = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME", format!("{seconds:+}")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        sidecar.restart();
        sidecar
    }

    /// Sidecars of both workloads, when requests pass from one to the other.
    pub fn pair(&self) -> (Sidecar, Sidecar) {
        let pair = (self.sidecar("shop", "node-shop", ""), self.sidecar("web", "node-web", ""));
        self.until_served();
        pair
    }

    /// What `web` gets of `shop`.
    pub fn ask(&self, path: &str) -> Result<(u16, String), String> {
        get(([127, 0, 0, 1], self.outbound).into(), "shop", path)
    }

    pub fn until_served(&self) {
        eventually("requests pass from web to shop", || {
            self.ask("/").is_ok_and(|(status, body)| (status, &*body) == (200, "shop"))
        });
    }

    /// Requests without end from `web` to `shop`.
    pub fn load(&self) -> Load {
        let address = SocketAddr::from(([127, 0, 0, 1], self.outbound));
        let shared = Arc::new(Counts::default());
        let threads = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let mut failures = Vec::new();
                    while !shared.stop.load(Ordering::Relaxed) {
                        match get(address, "shop", "/load") {
                            Ok((200, _)) => _ = shared.good.fetch_add(1, Ordering::Relaxed),
                            other => failures.push(format!("{other:?}")),
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    failures
                })
            })
            .collect();
        Load { shared, threads }
    }

    /// A mesh whose policies differ from the usual one by a harmless route.
    pub fn harmless(&self, number: u32) -> String {
        self.mesh(&format!(
            "routes:\n- name: r{number}\n  service: shop\n  rules:\n  - {{backends: \
             [{{service: shop}}]}}\n  - {{matches: [{{path: {{exact: /r{number}}}}}], respond: \
             {{status: 200, body: r{number}}}}}\n"
        ))
    }

    /// One under which every request of `web` to `shop` fails in its own sidecar.
    pub fn harmful(&self) -> String {
        let dead = free_port();
        self.mesh(&format!(
            "- {{name: extra, outbound: \"127.0.0.1:{}\", imports: [dead]}}\n\
             routes:\n- {{name: broken, service: shop, rules: [{{backends: [{{service: dead}}]}}]}}\n",
            free_port()
        ))
        .replace("services:\n", "services:\n- {name: dead, identities: [], ports: [{name: http, port: 80, protocol: http1}]}\n")
        .replace(
            "endpoints:\n",
            &format!("endpoints:\n- {{service: dead, addresses: [{{address: \"127.0.0.1:{dead}\"}}]}}\n"),
        )
    }
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    good: AtomicU64,
}

/// Requests under way.
pub struct Load {
    shared: Arc<Counts>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Requests that went well so far.
    pub fn good(&self) -> u64 {
        self.shared.good.load(Ordering::Relaxed)
    }

    /// Waits for so many more that went well.
    pub fn more(&self, count: u64) {
        let target = self.good() + count;
        eventually("requests go well", || self.good() >= target);
    }

    /// Stops: what failed.
    pub fn stop(self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}
