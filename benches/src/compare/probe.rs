//! Single requests over blocking sockets: is it up, what does it answer, how much does it keep.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    child::Child,
    error::Error,
    limits::{HEAD_BYTES_MAX, HEADERS_MAX, LOAD_SILENCE_MAX, READY_MAX},
};

/// An answer, its body whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A kept connection.
pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LOAD_SILENCE_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOAD_SILENCE_MAX))?;
    stream.set_write_timeout(Some(LOAD_SILENCE_MAX))?;
    Ok(stream)
}

/// Asks on a kept connection. Reads exactly one answer with content-length.
pub(super) fn get(stream: &mut (impl Read + Write), host: &str, path: &str) -> io::Result<Answer> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    read_answer(stream)
}

/// Sends `body` on a kept connection and reads the answer.
pub(super) fn post(
    stream: &mut (impl Read + Write),
    path: &str,
    body: &[u8],
) -> io::Result<Answer> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    read_answer(stream)
}

/// The whole text that `address` answers to `path`, on a connection of its own.
pub(super) fn fetch(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Waits until a GET of `/` for `host` is answered with 200, asking without pause.
pub(super) fn wait_for_answer(
    child: &mut Child,
    address: SocketAddr,
    host: &str,
) -> Result<(), Error> {
    let deadline = Instant::now() + READY_MAX;
    let mut checked = Instant::now();
    loop {
        let answered = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            get(&mut stream, host, "/")
        });
        if answered.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(child.not_ready(address));
        }
        // Looking after the child costs more than a refused connect; do it rarely.
        if now.duration_since(checked) > Duration::from_millis(50) {
            child.check()?;
            checked = now;
        }
    }
}

fn read_answer(stream: &mut impl Read) -> io::Result<Answer> {
    let mut input = Vec::new();
    let mut room = [0; 4096];
    let (status, head_bytes, length) = loop {
        if let Some(head) = parse(&input)? {
            break head;
        }
        if input.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        read_more(stream, &mut room, &mut input)?;
    };
    while input.len() < head_bytes + length {
        read_more(stream, &mut room, &mut input)?;
    }
    let body = input[head_bytes..head_bytes + length].to_vec();
    Ok(Answer { status, body })
}

fn read_more(stream: &mut impl Read, room: &mut [u8], input: &mut Vec<u8>) -> io::Result<()> {
    let got = stream.read(room)?;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    input.extend_from_slice(&room[..got]);
    Ok(())
}

/// Status, length of the head and length of the body, or `None` while incomplete.
fn parse(input: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_bytes) = response.parse(input).map_err(|_| invalid())?
    else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok())
        .ok_or_else(invalid)?;
    Ok(Some((response.code.ok_or_else(invalid)?, head_bytes, length)))
}
