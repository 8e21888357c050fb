//! An origin made of a closure per connection, so that a test says exactly what it does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::http::Client;

/// A listening origin. Its threads end with their connections.
pub struct Origin {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// Calls `serve` for every connection, on a thread of its own, with the number of the
    /// connection from 0.
    pub fn connections(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    serve(stream, number);
                });
            }
        });
        Self { address, connections, heads: Arc::default() }
    }

    /// Answers every request with what `answer` makes of its head and body, and keeps the
    /// connection. Bodies with a length and chunked ones are read whole before.
    pub fn http(answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        let origin = Self::connections(move |stream, _| {
            let mut reader = Client::over(stream);
            while let Some((head, body)) = read_request(&mut reader) {
                seen.lock().unwrap().push(head.clone());
                if reader.stream.write_all(&answer(&head, &body)).is_err() {
                    return;
                }
            }
        });
        Self { heads, ..origin }
    }

    /// Answers 200 with a body that is the request's head.
    pub fn echo() -> Self {
        Self::http(|head, body| {
            let body = [head.as_bytes(), body].concat();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Heads of the requests seen so far, by [`Self::http`].
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// A configuration with one http1 listener `web` and one tcp listener `raw` that both lead
    /// here.
    pub fn config(&self) -> String {
        let address = self.address;
        format!(
            "listeners:\n\
             - {{name: web, address: '127.0.0.1:0'}}\n\
             - {{name: raw, address: '127.0.0.1:0', protocol: tcp, cluster: origin}}\n\
             routes:\n\
             - {{name: all, rules: [{{backends: [{{cluster: origin}}]}}]}}\n\
             clusters:\n\
             - {{name: origin, endpoints: [{{address: '{address}'}}]}}\n"
        )
    }
}

/// A response of 200 with `body`.
pub fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// Bytes whose place can be told.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// The payload of a chunked body without trailers.
pub fn unchunked(mut raw: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    loop {
        let end = raw.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return payload;
        }
        payload.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw = &raw[end + 2 + size + 2..];
    }
}

/// Reads one request with its body; `None` at the end of the connection.
pub fn read_request(reader: &mut Client) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        match reader.stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| {
        let named = |line: &&str| line.to_ascii_lowercase().starts_with(name);
        head.lines().find(named).map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let body = if field("transfer-encoding").is_some() {
        read_chunked(reader)
    } else {
        let length = field("content-length").map_or(0, |value| value.parse().unwrap());
        let mut body = vec![0; length];
        reader.stream.read_exact(&mut body).ok()?;
        body
    };
    Some((head, body))
}

/// Reads a chunked body, raw, trailers included.
fn read_chunked(reader: &mut Client) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut byte = [0u8; 1];
    while !(raw.ends_with(b"\r\n\r\n") && last_chunk(&raw)) {
        if reader.stream.read(&mut byte).ok() != Some(1) {
            break;
        }
        raw.push(byte[0]);
    }
    raw
}

fn last_chunk(raw: &[u8]) -> bool {
    raw.starts_with(b"0\r\n") || raw.windows(5).any(|window| window == b"\r\n0\r\n")
}
