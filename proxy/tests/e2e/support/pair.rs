//! A tunnel with both of its ends in the test's hands, and bytes whose place can be told.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::http::End;
use super::proxy::{Backend, Proxy};

/// How long an end waits for what should come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy with a tcp listener `raw` whose only endpoint is this test.
pub struct Ends {
    pub proxy: Proxy,
    pub listener: TcpListener,
}

/// The two ends of one tunnel.
pub struct Pair {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Ends {
    pub fn start(backend: Backend) -> Self {
        Self::start_with(backend, "", "")
    }

    /// `listener` and `cluster` are further fields of the two, such as `idle_timeout: 1s`.
    pub fn start_with(backend: Backend, listener: &str, cluster: &str) -> Self {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(backend, &config(origin.local_addr().unwrap(), listener, cluster));
        Self { proxy, listener: origin }
    }

    pub fn connect(&self) -> Pair {
        let client = TcpStream::connect(self.proxy.address("raw")).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        Pair { client, server }
    }
}

/// A configuration with the one tcp listener `raw` that leads to `origin`.
pub fn config(origin: SocketAddr, listener: &str, cluster: &str) -> String {
    format!(
        "listeners:\n\
         - {{name: raw, address: '127.0.0.1:0', protocol: tcp, cluster: origin, {listener}}}\n\
         clusters:\n\
         - {{name: origin, endpoints: [{{address: '{origin}'}}], {cluster}}}\n"
    )
}

impl Pair {
    /// Sends a few bytes each way, so that the tunnel stands and is idle.
    pub fn greet(&mut self) {
        exchange(&mut self.client, &mut self.server, b"ping");
        exchange(&mut self.server, &mut self.client, b"pong");
    }

    /// The same tunnel seen from the other side.
    pub fn swap(self) -> Self {
        Self { client: self.server, server: self.client }
    }
}

/// `bytes` go in at one end and come out at the other.
pub fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    let mut got = vec![0; bytes.len()];
    to.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

/// Ends a connection with RST, whoever else holds it.
pub fn reset(stream: &TcpStream) {
    rustix::net::connect_unspec(stream).unwrap();
}

/// Reads to the end: how many bytes came before it, and which end it was.
pub fn drain(stream: &mut TcpStream) -> (u64, End) {
    let mut piece = vec![0u8; 256 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (bytes, End::Finished),
            Ok(count) => bytes += count as u64,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (bytes, End::Reset);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (bytes, End::Open),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes until the connection breaks, and says how.
pub fn write_until_broken(stream: &mut TcpStream) -> ErrorKind {
    let piece = [7u8; 64 * 1024];
    loop {
        match stream.write(&piece) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind(),
        }
    }
}

/// Byte number `at` of the stream that `seed` stands for.
fn word(seed: u64, at: u64) -> [u8; 8] {
    (seed ^ at).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()
}

const PIECE_WORDS: u64 = 8192;
const PIECE_BYTES: u64 = 8 * PIECE_WORDS;

/// Writes the first `bytes` bytes of the stream of `seed`; a multiple of 64 KiB.
pub fn write_pattern(stream: &mut TcpStream, seed: u64, bytes: u64) {
    assert_eq!(bytes % PIECE_BYTES, 0);
    let mut left = bytes / PIECE_BYTES;
    let more = || {
        left = left.saturating_sub(1);
        left > 0
    };
    assert_eq!(write_pattern_while(stream, seed, more), bytes);
}

/// Writes the stream of `seed` in pieces, for as long as there shall be `more` after one. Returns
/// how many bytes that was.
pub fn write_pattern_while(
    stream: &mut TcpStream,
    seed: u64,
    mut more: impl FnMut() -> bool,
) -> u64 {
    let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
    for first in (0..).step_by(PIECE_WORDS as usize) {
        piece.clear();
        (first..first + PIECE_WORDS).for_each(|at| piece.extend(word(seed, at)));
        stream.write_all(&piece).unwrap();
        if !more() {
            return 8 * (first + PIECE_WORDS);
        }
    }
    unreachable!("there is an end to every test");
}

/// Reads the first `bytes` bytes of the stream of `seed`, and fails at the first wrong one.
pub fn read_pattern(stream: &mut TcpStream, seed: u64, bytes: u64) {
    let mut piece = vec![0u8; PIECE_BYTES as usize];
    for first in (0..bytes / 8).step_by(PIECE_WORDS as usize) {
        stream.read_exact(&mut piece).unwrap();
        check(seed, first, &piece);
    }
}

/// Reads the stream of `seed` to its end, which comes after a whole piece. Returns its length.
pub fn read_pattern_to_end(stream: &mut TcpStream, seed: u64) -> u64 {
    let mut piece = vec![0u8; PIECE_BYTES as usize];
    let mut first = 0;
    loop {
        let mut length = 0;
        while length < piece.len() {
            match stream.read(&mut piece[length..]).unwrap() {
                0 if length == 0 => return 8 * first,
                0 => panic!("the stream ends inside a piece"),
                count => length += count,
            }
        }
        check(seed, first, &piece);
        first += PIECE_WORDS;
    }
}

fn check(seed: u64, first: u64, piece: &[u8]) {
    for (at, got) in (first..).zip(piece.chunks_exact(8)) {
        assert_eq!(got, word(seed, at), "bytes from {} of stream {seed}", 8 * at);
    }
}
