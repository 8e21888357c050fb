//! What both sides need: processes that end with the test, an origin that records, a client that
//! sends exact bytes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    Ringway,
    Envoy,
}

/// A proxy that runs.
pub(super) struct Running {
    child: Child,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("last lines of {}, the last first:\n{}", self.log.display(), last.join("\n"));
        }
    }
}

fn target() -> PathBuf {
    let push = Path::new(env!("CARGO_BIN_EXE_ringway-push"));
    push.parent().and_then(Path::parent).expect("it lies in the target folder").to_owned()
}

/// Envoy where `.ci/install-tools` puts it, or else on the path.
fn envoy() -> PathBuf {
    let installed = target().join("tools/bin/envoy");
    if installed.exists() { installed } else { "envoy".into() }
}

fn ringway() -> PathBuf {
    let sibling = Path::new(env!("CARGO_BIN_EXE_ringway-push")).with_file_name("ringway");
    std::env::var_os("RINGWAY_BIN").map_or(sibling, PathBuf::from)
}

impl Proxy {
    /// Starts it on the file of a workload in `folder`, and waits until it listens at `address`.
    pub(super) fn start(self, folder: &Path, workload: &str, address: SocketAddr) -> Running {
        let ending = match self {
            Proxy::Ringway => "json",
            Proxy::Envoy => "envoy.json",
        };
        self.start_on(&folder.join(format!("{workload}.{ending}")), address)
    }

    /// The same on any file.
    pub(super) fn start_on(self, file: &Path, address: SocketAddr) -> Running {
        let (program, arguments, hint) = match self {
            Proxy::Ringway => {
                let arguments = &["run", "--workers", "1", "--config"][..];
                (ringway(), arguments, "build it, or set RINGWAY_BIN")
            }
            Proxy::Envoy => {
                let quiet = &["--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c"];
                (envoy(), &quiet[..], "run `make tools`")
            }
        };
        let log = file.with_extension("log");
        let lines = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(&program);
        command.args(arguments).arg(file);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(lines).spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("{self:?} does not start ({}): {error}; {hint}", program.display())
        });
        let mut running = Running { child, log };
        eventually(&format!("{self:?} listens at {address}"), || {
            let ended = running.child.try_wait().expect("it can be asked");
            assert_eq!(ended, None, "{self:?} has ended");
            TcpStream::connect(address).is_ok()
        });
        running
    }
}

/// Waits until `condition` holds, and fails with `what` after 30 seconds.
pub(super) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "not within 30 seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nobody has on any of `addresses`, below those of outgoing connections.
pub(super) fn free_port(addresses: &[IpAddr]) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() * 97 % 10_000) as u16;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if addresses.iter().all(|ip| TcpListener::bind((*ip, port)).is_ok()) {
            return port;
        }
    }
}

/// A message as it came: its first line, its fields by lower-case name, its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) line: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The status of a response.
    pub(super) fn status(&self) -> u16 {
        let status = self.line.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("a status line: {:?}", self.line))
    }

    /// Reads one from `reader`; `None` if nothing comes. A response to HEAD has no body.
    pub(super) fn read(reader: &mut impl BufRead, to_head: bool) -> Option<Message> {
        let mut message = Message { line: line(reader)?, ..Message::default() };
        while let Some((name, value)) = line(reader)?.split_once(':') {
            message.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let is_response = message.line.starts_with("HTTP/");
        let is_bodiless = is_response && (to_head || matches!(message.status(), 204 | 304));
        if is_bodiless {
            return Some(message);
        }
        if message.field("transfer-encoding").is_some() {
            chunked(reader, &mut message.body)?;
        } else if let Some(length) = message.field("content-length") {
            message.body = vec![0; length.parse().ok()?];
            reader.read_exact(&mut message.body).ok()?;
        } else if is_response {
            reader.read_to_end(&mut message.body).ok()?;
        }
        Some(message)
    }
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes).ok().filter(|count| *count > 0)?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}

fn chunked(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let size = usize::from_str_radix(line(reader)?.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            while !line(reader)?.is_empty() {}
            return Some(());
        }
        let at = body.len();
        body.resize(at + size, 0);
        reader.read_exact(&mut body[at..]).ok()?;
        line(reader)?;
    }
}

/// Origins that record what they see, by the value of `x-test`.
#[derive(Clone, Default)]
pub(super) struct Origins {
    seen: Arc<Mutex<BTreeMap<String, (String, Message)>>>,
}

impl Origins {
    /// One more, called `name`. It answers with what it is and what it was asked.
    pub(super) fn start(&self, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (seen, name) = (Arc::clone(&self.seen), name.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, name) = (Arc::clone(&seen), name.clone());
                std::thread::spawn(move || serve(stream, &name, &seen));
            }
        });
        address
    }

    /// What was seen of the request `test`, and by whom.
    pub(super) fn seen(&self, test: &str) -> Option<(String, Message)> {
        self.seen.lock().expect("no thread fails with it").get(test).cloned()
    }
}

fn serve(stream: TcpStream, name: &str, seen: &Mutex<BTreeMap<String, (String, Message)>>) {
    stream.set_nodelay(true).expect("it is a socket");
    let mut out = stream.try_clone().expect("it is a socket");
    let mut reader = BufReader::new(stream);
    while let Some(message) = Message::read(&mut reader, false) {
        if message.line.contains("/slow") {
            std::thread::sleep(Duration::from_secs(2));
        }
        let status = message.field("x-status").unwrap_or("200").to_owned();
        let body = match status.as_str() {
            "204" => String::new(),
            _ => format!("{name}: {}\n", message.line),
        };
        let length = match status.as_str() {
            "204" => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let to_head = message.line.starts_with("HEAD ");
        if let Some(test) = message.field("x-test") {
            let entry = (name.to_owned(), message.clone());
            seen.lock().expect("no thread fails with it").insert(test.to_owned(), entry);
        }
        let head = format!(
            "HTTP/1.1 {status} Done\r\n{length}X-Origin: {name}\r\nX-Drop: 1\r\nX-Multi: a\r\n\
             X-Multi: b\r\nServer: origin\r\nX-Keep: kept\r\n\r\n"
        );
        let body = if to_head { "" } else { body.as_str() };
        if out.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// Sends `bytes` to `address` on a connection of its own and reads the response.
pub(super) fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<Message> {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
    let mut out = stream.try_clone().expect("it is a socket");
    // Who refuses a head may close before all of it is sent.
    let _ = out.write_all(bytes);
    Message::read(&mut BufReader::new(stream), bytes.starts_with(b"HEAD "))
}
