//! `ringway-push replay` with a pusher, a sidecar and traffic: what it says would change is what
//! would.
//!
//! `RINGWAY_BIN` names the sidecar's program; else it is the one beside the pusher's.

mod command;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command::{push, stderr, stdout, text};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/web";
const ROUTE: &str = "rules: [{backends: [{service: shop}]}]";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pusher with one workload, and a sidecar of it that forwards to an origin.
struct Running {
    folder: tempfile::TempDir,
    outbound: SocketAddr,
    _pusher: Killed,
    _sidecar: Killed,
}

fn sidecar_program() -> PathBuf {
    let pusher = Path::new(env!("CARGO_BIN_EXE_ringway-push"));
    std::env::var_os("RINGWAY_BIN").map_or_else(|| pusher.with_file_name("ringway"), PathBuf::from)
}

/// Waits for `found` to find something.
fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "no {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn free_address() -> SocketAddr {
    let bound = TcpListener::bind("127.0.0.1:0").expect("a free port");
    bound.local_addr().expect("it has an address")
}

/// Answers every request with 200.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(&buffer[..count]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

fn spawn(program: &Path, arguments: &[&str], log: &Path) -> Killed {
    let log = fs::File::create(log).expect("created");
    let other = log.try_clone().expect("cloned");
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::from(log)).stderr(Stdio::from(other));
    let spawned = command.spawn();
    Killed(spawned.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

impl Running {
    fn start(samples: &str) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let outbound = free_address();
        let mesh = format!(
            "services:\n  - {{name: shop, identities: [], ports: [{{name: http, port: 80, \
             protocol: http1}}]}}\nendpoints:\n  - {{service: shop, addresses: [{{address: \
             '{}'}}]}}\nroutes:\n  - {{name: all, service: shop, {ROUTE}}}\nworkloads:\n  - \
             {{name: web, outbound: '{outbound}', imports: [shop]}}\n",
            origin()
        );
        fs::create_dir(at("mesh.d")).expect("created");
        fs::write(at("mesh.d/mesh.yaml"), mesh).expect("written");
        let (dir, state) = (at("mesh.d"), at("state"));
        let pusher = spawn(
            Path::new(env!("CARGO_BIN_EXE_ringway-push")),
            &[
                "run",
                "--dir",
                text(&dir),
                "--state",
                text(&state),
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--profile",
                "now",
            ],
            &at("pusher.log"),
        );
        let hash = wait("hash of the root", || {
            let log = fs::read_to_string(at("pusher.log")).ok()?;
            let rest = &log[log.find("sha256:")?..];
            rest.get(..7 + 64).map(str::to_owned)
        });
        let address = wait("address", || fs::read_to_string(at("state/operator/address")).ok());
        let made = push(&["ca", "--state", text(&state), "token", "create", IDENTITY]);
        assert!(made.status.success(), "{}", stderr(&made));
        fs::write(at("token"), stdout(&made)).expect("written");
        let file = format!(
            "admin: 127.0.0.1:0\ncontrol: {{address: '{}', bundle_hash: '{hash}', token_file: \
             token, state_dir: sidecar, node: node-1{samples}}}\n",
            address.trim()
        );
        fs::write(at("sidecar.yaml"), file).expect("written");
        let config = at("sidecar.yaml");
        let arguments = ["run", "--config", text(&config), "--workers", "2"];
        let sidecar = spawn(&sidecar_program(), &arguments, &at("sidecar.log"));
        let running = Running { folder, outbound, _pusher: pusher, _sidecar: sidecar };
        running.wait_until_applied();
        wait("report of the policy", || {
            let status = push(&["status", "--json", "--state", text(&state)]);
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
            (!status["sidecars"][0]["sidecar"]["applied"].is_null()).then_some(())
        });
        running
    }

    fn wait_until_applied(&self) {
        let began = Instant::now();
        while TcpStream::connect(self.outbound).is_err() || !self.request("/", "").contains("200") {
            let log = || fs::read_to_string(self.folder.path().join("sidecar.log"));
            assert!(began.elapsed() < PATIENCE, "nothing is forwarded: {:?}", log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a request through the sidecar; the first line of the answer.
    fn request(&self, path: &str, header: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.outbound) else { return String::new() };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{header}Connection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.read_to_string(&mut answer);
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// Replays with the mesh whose route says `rules`.
    fn replay(&self, rules: &str, more: &[&str]) -> Output {
        let changed = tempfile::tempdir().expect("a folder");
        let mesh = fs::read_to_string(self.folder.path().join("mesh.d/mesh.yaml"));
        let mesh = mesh.expect("it was written").replace(ROUTE, rules);
        fs::write(changed.path().join("mesh.yaml"), mesh).expect("written");
        let state = self.folder.path().join("state");
        let mut arguments = vec!["replay", "--state", text(&state), "--dir", text(changed.path())];
        arguments.extend(more);
        push(&arguments)
    }
}

#[test]
fn replay_says_exactly_which_requests_a_changed_route_answers_otherwise() {
    let running = Running::start(", samples: true");
    for nth in 0..3 {
        assert!(running.request(&format!("/old/{nth}?secret=1"), "").contains("200"));
    }
    for _ in 0..4 {
        assert!(running.request("/new", "X-V2: secret\r\n").contains("200"));
    }
    let same = running.replay(ROUTE, &[]);
    assert_eq!(same.status.code(), Some(0), "{}{}", stdout(&same), stderr(&same));
    assert!(stdout(&same).contains("no answer is sure to change"), "{}", stdout(&same));

    let rules = "rules: [{matches: [{path: {prefix: /old}}], respond: {status: 410}}, \
                 {matches: [{headers: [{name: x-v2, exact: '1'}]}], respond: {status: 204}}, \
                 {backends: [{service: shop}]}]";
    let changed = running.replay(rules, &[]);
    let said = stdout(&changed);
    assert_eq!(changed.status.code(), Some(1), "{said}{}", stderr(&changed));
    assert!(said.contains("web (1 sidecar, "), "{said}");
    assert!(said.contains("): 3 would be answered otherwise"), "{said}");
    assert!(said.contains("  3 requests: forward to cluster "), "{said}");
    assert!(said.contains(" -> respond 410 with 0 bytes"), "{said}");
    assert!(said.contains("such as GET shop/old/0, GET shop/old/1, GET shop/old/2"), "{said}");
    assert!(said.contains("  4 requests: depends on the value of x-v2"), "{said}");
    assert!(!said.contains("secret"), "{said}");

    let document = running.replay(rules, &["--json"]);
    let document: serde_json::Value =
        serde_json::from_slice(&document.stdout).expect("it is one document");
    assert_eq!(document["workloads"][0]["changed"], 3);
    assert_eq!(document["workloads"][0]["open"][0]["count"], 4);
}

#[test]
fn samples_are_off_by_default_and_replay_says_how_to_turn_them_on() {
    let running = Running::start("");
    let asked = running.replay(ROUTE, &[]);
    assert_eq!(asked.status.code(), Some(1));
    let said = stderr(&asked);
    assert!(said.contains("1 sidecar keeps no samples: web on node-1"), "{said}");
    assert!(said.contains("`control: {samples: true}`"), "{said}");
    assert!(said.contains("there are no samples to replay"), "{said}");
}
