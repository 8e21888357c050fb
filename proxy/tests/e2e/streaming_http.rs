//! Large bodies and readers that stop: what is not read at one end is not taken at the other.
//!
//! A hundred readers stop for ten seconds before a hundred bodies of 1 GiB. Then one body is read
//! whole and compared, and the other connections are dropped where they stand.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::support::http::Client;
use crate::support::{Backend, Origin, Proxy, eventually};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
/// Exchanges that are stopped at the same time.
const STOPPED: usize = 100;
/// For how long.
const STOP: Duration = Duration::from_secs(10);
/// What every body has.
const BODY: u64 = 1024 * MIB;
/// What the proxy itself may hold of one body.
const HELD: u64 = 256 * KIB;
/// Resident memory of the proxy with all of them stopped.
const RESIDENT: u64 = 64 * MIB;
/// Chunks of a chunked body: small ones and one that is spliced.
const CHUNKS: [u64; 4] = [1, 1000, 16 * KIB, CHUNK_MAX];
const CHUNK_MAX: u64 = 1000 * KIB;

/// How the body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
}

impl Framing {
    fn field(self) -> String {
        match self {
            Self::Length => format!("Content-Length: {BODY}\r\n"),
            Self::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        }
    }
}

/// After so many bytes a body repeats itself: the least common multiple of 256 and 251 * 256.
const PERIOD: usize = 251 * 256;

/// `size` bytes of body `seed` from byte `at`, at most [`CHUNK_MAX`].
fn bytes(seed: u64, at: u64, size: u64) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte = |at: u64| ((at * 31 + at / 251) % 256) as u8;
        (0..PERIOD as u64 + CHUNK_MAX).map(byte).collect()
    });
    let from = ((at + seed * 7) % PERIOD as u64) as usize;
    &PATTERN[from..from + size as usize]
}

/// Everything of body `seed`, framed, in pieces.
fn pieces(framing: Framing, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut at = 0;
    let mut turn = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        if at == BODY {
            let last = framing == Framing::Chunked && !std::mem::replace(&mut ended, true);
            return last.then(|| b"0\r\n\r\n".to_vec());
        }
        let size = CHUNKS[turn % CHUNKS.len()].min(BODY - at);
        turn += 1;
        let mut piece = Vec::with_capacity(size as usize + 20);
        if framing == Framing::Chunked {
            write!(piece, "{size:x}\r\n").unwrap();
        }
        piece.extend(bytes(seed, at, size));
        if framing == Framing::Chunked {
            piece.extend(b"\r\n");
        }
        at += size;
        Some(piece)
    })
}

/// Writes body `seed`, and counts what the socket has taken. Whether all of it went out.
fn send(stream: &mut TcpStream, framing: Framing, seed: u64, taken: &AtomicU64) -> bool {
    for piece in pieces(framing, seed) {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => {
                    rest = &rest[count..];
                    taken.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }
    true
}

/// Reads body `seed` to its end and fails at the first wrong byte.
fn receive(reader: &mut Client, framing: Framing, seed: u64) {
    let mut at = 0;
    while at < BODY {
        let size = match framing {
            Framing::Length => 64 * KIB,
            Framing::Chunked => u64::from_str_radix(&reader.line(), 16).unwrap(),
        };
        let data = reader.take(size.min(BODY - at) as usize);
        let want = bytes(seed, at, data.len() as u64);
        let wrong = data.iter().zip(want).position(|(got, want)| got != want);
        assert_eq!(wrong, None, "of body {seed} from byte {at}");
        at += data.len() as u64;
        if framing == Framing::Chunked {
            assert_eq!(reader.line(), "");
        }
    }
    if framing == Framing::Chunked {
        assert_eq!((reader.line().as_str(), reader.line().as_str()), ("0", ""));
    }
}

/// Opens once.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }
}

/// What both ends of a test share.
struct State {
    /// Bytes that the senders' sockets have taken, by exchange.
    taken: Vec<AtomicU64>,
    /// Senders that have begun.
    begun: AtomicU64,
    go: Gate,
}

impl State {
    fn new() -> Arc<Self> {
        let taken = (0..STOPPED).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { taken, begun: AtomicU64::new(0), go: Gate::default() })
    }
}

fn seed_of(line: &str) -> usize {
    line.split(' ').nth(1).unwrap()[1..].parse().unwrap()
}

/// Buffers are fixed at both ends, so that a body need not be huge to fill them.
fn fix_buffers(stream: &TcpStream) {
    sockopt::set_socket_send_buffer_size(stream, 128 * KIB as usize).unwrap();
    sockopt::set_socket_recv_buffer_size(stream, 128 * KIB as usize).unwrap();
}

/// Bytes in the queues of all sockets that have one of these ports at either end (proc(5)): sent
/// and not acknowledged, or received and not read.
fn queued(ports: [u16; 2]) -> u64 {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let hex = |word: &str| u64::from_str_radix(word, 16).unwrap();
    let mut bytes = 0;
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |address: &str| hex(address.split(':').nth(1).unwrap()) as u16;
        let listens = words[3] == "0A";
        if !listens && words[1..3].iter().any(|address| ports.contains(&port(address))) {
            bytes += words[4].split(':').map(hex).sum::<u64>();
        }
    }
    bytes
}

/// Looks at everything that must be bounded while the readers stand still for [`STOP`], with an
/// unrelated exchange beside it. Between kernels bytes may trickle on: socket buffers grow when
/// others give theirs back. What counts is what the proxy holds.
fn check_while_stopped(proxy: &Proxy, origin: &Origin, state: &State) {
    let begun = || state.begun.load(Ordering::Relaxed);
    eventually("all have begun", || begun() == STOPPED as u64);
    let stopped = Instant::now();
    while stopped.elapsed() < STOP {
        // The subject is that the time changes nothing.
        std::thread::sleep(Duration::from_millis(500));
        let resident = proxy.resident_bytes();
        assert!(resident <= RESIDENT, "{resident} bytes are resident");
    }
    for (exchange, taken) in state.taken.iter().enumerate() {
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken > 0, "nothing of body {exchange} was taken");
        assert!(taken < BODY, "all of body {exchange} was taken");
    }
    let ports = [proxy.address("web").port(), origin.address.port()];
    eventually("what left the senders is in sockets, but for a little", || {
        // In this order: what is sent meanwhile is not counted as held.
        let taken: u64 = state.taken.iter().map(|taken| taken.load(Ordering::Relaxed)).sum();
        taken.saturating_sub(queued(ports)) <= HELD * STOPPED as u64
    });
    let cpu = proxy.cpu_time();
    let mut other = proxy.client("web");
    for _ in 0..10 {
        assert_eq!(other.get("/other").text(), "fine");
    }
    // A second in which nobody may spin.
    std::thread::sleep(Duration::from_secs(1));
    let spent = proxy.cpu_time() - cpu;
    assert!(
        spent < Duration::from_millis(250),
        "{spent:?} of processor time while all stand still"
    );
    assert_eq!(proxy.metric("ringway_failures_total"), 0.0, "and nothing has failed");
}

const FINE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";

/// Clients ask for a large response and do not read it.
fn readers_stop(backend: Backend, framing: Framing) {
    let state = State::new();
    let shared = Arc::clone(&state);
    let origin = Origin::connections(move |stream, _| {
        fix_buffers(&stream);
        let mut reader = Client::over(stream);
        reader.stream.set_read_timeout(None).unwrap();
        loop {
            let Some(line) = next_request(&mut reader) else { return };
            if line.contains("/other") {
                reader.stream.write_all(FINE).unwrap();
                continue;
            }
            let seed = seed_of(&line);
            let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", framing.field());
            reader.stream.write_all(head.as_bytes()).unwrap();
            shared.begun.fetch_add(1, Ordering::Relaxed);
            if !send(&mut reader.stream, framing, seed as u64, &shared.taken[seed]) {
                return;
            }
        }
    });
    let proxy = Proxy::start(backend, &origin.config());
    let mut clients: Vec<Client> = (0..STOPPED)
        .map(|seed| {
            let mut client = proxy.client("web");
            fix_buffers(&client.stream);
            client.send(format!("GET /{seed} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client
        })
        .collect();
    check_while_stopped(&proxy, &origin, &state);
    assert_eq!(clients[READ].head().0, 200);
    // What was refused while it stood still may come again only seconds later.
    clients[READ].stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    receive(&mut clients[READ], framing, READ as u64);
    drop(clients);
    all_is_given_back(&proxy);
}

/// The exchange that is read to its end.
const READ: usize = STOPPED / 2;

/// Waits until the connections that were dropped in mid-body are gone.
fn all_is_given_back(proxy: &Proxy) {
    eventually("no connection is left", || proxy.metric("ringway_downstream_connections") == 0.0);
}

/// Origins take requests with a large body and do not read it.
fn origins_stop(backend: Backend, framing: Framing) {
    let state = State::new();
    let shared = Arc::clone(&state);
    let origin = Origin::connections(move |stream, _| {
        fix_buffers(&stream);
        let mut reader = Client::over(stream);
        reader.stream.set_read_timeout(None).unwrap();
        loop {
            let Some(line) = next_request(&mut reader) else { return };
            if !line.contains("/other") {
                shared.go.wait();
                if seed_of(&line) != READ {
                    return;
                }
                receive(&mut reader, framing, READ as u64);
            }
            reader.stream.write_all(FINE).unwrap();
        }
    });
    let proxy = Proxy::start(backend, &origin.config());
    let address = proxy.address("web");
    let clients: Vec<JoinHandle<()>> = (0..STOPPED)
        .map(|seed| {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                fix_buffers(&client.stream);
                // The write timeout is short of the time that the origin stands still.
                client.stream.set_write_timeout(None).unwrap();
                client.send(format!("POST /{seed} HTTP/1.1\r\nHost: a\r\n{}\r\n", framing.field()));
                state.begun.fetch_add(1, Ordering::Relaxed);
                let whole = send(&mut client.stream, framing, seed as u64, &state.taken[seed]);
                if seed == READ {
                    assert!(whole, "nothing of the body was refused");
                    assert_eq!(client.response().text(), "fine");
                }
            })
        })
        .collect();
    check_while_stopped(&proxy, &origin, &state);
    state.go.open();
    for client in clients {
        client.join().unwrap();
    }
    all_is_given_back(&proxy);
}

/// The first line of the next request, its fields skipped; `None` at the end.
fn next_request(reader: &mut Client) -> Option<String> {
    let mut byte = [0u8; 1];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Not a byte of the body may be taken with the head.
        match std::io::Read::read(&mut reader.stream, &mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let text = String::from_utf8(head).unwrap();
    Some(text.lines().next().unwrap().to_owned())
}

on_both_backends! {
    fn stopped_clients_hold_up_responses_with_a_length(backend: Backend) {
        readers_stop(backend, Framing::Length);
    }

    fn stopped_clients_hold_up_chunked_responses(backend: Backend) {
        readers_stop(backend, Framing::Chunked);
    }

    fn stopped_origins_hold_up_requests_with_a_length(backend: Backend) {
        origins_stop(backend, Framing::Length);
    }

    fn stopped_origins_hold_up_chunked_requests(backend: Backend) {
        origins_stop(backend, Framing::Chunked);
    }

    fn an_upload_and_a_download_in_one_exchange_do_not_wait_for_each_other(backend: Backend) {
        let (seen, done) = mpsc::channel();
        let origin = Origin::connections(move |stream, _| {
            let mut reader = Client::over(stream);
            next_request(&mut reader).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", Framing::Chunked.field());
            reader.stream.write_all(head.as_bytes()).unwrap();
            let mut writer = reader.stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| send(&mut writer, Framing::Chunked, 2, &AtomicU64::new(0)));
                receive(&mut reader, Framing::Length, 1);
            });
            seen.send(()).unwrap();
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{}\r\n", Framing::Length.field()));
        let mut writer = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| send(&mut writer, Framing::Length, 1, &AtomicU64::new(0)));
            assert_eq!(client.head().0, 200);
            receive(&mut client, Framing::Chunked, 2);
        });
        done.recv().expect("the upload came whole too");
    }
}
