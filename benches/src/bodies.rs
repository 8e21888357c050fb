//! Closed-loop clients of bodies of one size: over the raw TCP origin, or over HTTP/1.1.
//!
//! One blocking thread per connection: ask, read to the last byte, ask again, until the time is up.
//! The first body of a connection is compared with the pattern; later ones are dropped in the
//! kernel (`MSG_TRUNC`), so that the client costs little beside what it measures.
//!
//! # Invariants
//! - A body counts only when its last byte has arrived. The time is over at the first body that
//!   ends after it.
//! - An error ends its connection and a new one takes its place: errors cannot slow the loop down
//!   unseen, they are counted.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    limits::{BODY_BYTES_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEADERS_MAX, LOAD_SILENCE_MAX},
    pattern, terminal,
};

/// Bytes that one read may drop.
const DROP_BYTES: usize = 1024 * 1024;
/// Pause after an error, so that a refusing proxy does not turn the loop into a busy one.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Options that both clients share.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Address of the origin, or of a tunnel or proxy before it
    #[arg(long, value_name = "IP:PORT")]
    target: SocketAddr,
    /// Length of each body
    #[arg(long, value_name = "N", default_value_t = 1 << 20,
          value_parser = clap::value_parser!(u64).range(..=BODY_BYTES_MAX))]
    bytes: u64,
    /// Connections, each with one body in flight
    #[arg(long, short = 'c', default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// Seconds to go on for
    #[arg(long, short = 's', default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// Options of `ringway-bench load-tcp`.
#[derive(Debug, clap::Args)]
pub(crate) struct TcpOptions {
    #[command(flatten)]
    common: Common,
}

/// Options of `ringway-bench load-http`.
#[derive(Debug, clap::Args)]
pub(crate) struct HttpOptions {
    #[command(flatten)]
    common: Common,
}

/// How a body is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    /// 8 bytes of length; see `origin --tcp-bytes`.
    Tcp,
    /// `GET /bytes/N` on a kept connection.
    Http,
}

/// One load to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) target: SocketAddr,
    pub(crate) bytes: u64,
    pub(crate) connections: u32,
    pub(crate) duration: Duration,
}

/// What a load achieved.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) bodies: u64,
    /// Payload of the counted bodies.
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    /// What the first error said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_error: Option<String>,
}

/// Runs `load-tcp`.
pub(crate) fn run_tcp(options: &TcpOptions) -> Result<(), Error> {
    report(&options.common, Protocol::Tcp)
}

/// Runs `load-http`.
pub(crate) fn run_http(options: &HttpOptions) -> Result<(), Error> {
    report(&options.common, Protocol::Http)
}

fn report(common: &Common, protocol: Protocol) -> Result<(), Error> {
    let load = Load {
        protocol,
        target: common.target,
        bytes: common.bytes,
        connections: common.connections,
        duration: Duration::from_secs(common.seconds),
    };
    let summary = run(&load)?;
    let text = serde_json::to_string(&summary)
        .map_err(|error| Error::io("encode the summary")(error.into()))?;
    terminal::say(&text);
    if summary.errors > 0 || summary.bodies == 0 {
        return Err(Error::BadRound {
            scenario: format!("{} byte bodies", load.bytes),
            peer: load.target.to_string(),
            requests: summary.bodies,
            errors: summary.errors,
        });
    }
    Ok(())
}

/// Runs a load to its end, its threads on the caller's cores.
pub(crate) fn run(load: &Load) -> Result<Summary, Error> {
    let start = Instant::now();
    let deadline = start + load.duration;
    let mut sum = Summary::default();
    thread::scope(|scope| -> Result<(), Error> {
        let mut threads = Vec::new();
        for _ in 0..load.connections {
            let thread = thread::Builder::new()
                .name("load".to_owned())
                .spawn_scoped(scope, move || client(load, deadline))
                .map_err(Error::io("start a load thread"))?;
            threads.push(thread);
        }
        for thread in threads {
            let part = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sum.bodies += part.bodies;
            sum.bytes += part.bytes;
            sum.errors += part.errors;
            sum.first_error = sum.first_error.take().or(part.first_error);
        }
        Ok(())
    })?;
    sum.seconds = start.elapsed().as_secs_f64();
    Ok(sum)
}

fn client(load: &Load, deadline: Instant) -> Summary {
    let mut sum = Summary::default();
    let mut room = vec![0; DROP_BYTES];
    while Instant::now() < deadline {
        if let Err(error) = connection(load, deadline, &mut room, &mut sum) {
            sum.errors += 1;
            sum.first_error.get_or_insert_with(|| error.to_string());
            thread::sleep(ERROR_PAUSE);
        }
    }
    sum
}

fn connection(
    load: &Load,
    deadline: Instant,
    room: &mut [u8],
    sum: &mut Summary,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&load.target, LOAD_SILENCE_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOAD_SILENCE_MAX))?;
    stream.set_write_timeout(Some(LOAD_SILENCE_MAX))?;
    let mut verify = true;
    while verify || Instant::now() < deadline {
        match load.protocol {
            Protocol::Tcp => {
                stream.write_all(&load.bytes.to_be_bytes())?;
                finish(&mut stream, 0, load.bytes, room, verify)?;
            }
            Protocol::Http => get(&mut stream, load, room, verify)?,
        }
        sum.bodies += 1;
        sum.bytes += load.bytes;
        verify = false;
    }
    Ok(())
}

fn get(stream: &mut TcpStream, load: &Load, room: &mut [u8], verify: bool) -> io::Result<()> {
    let request = format!("GET /bytes/{} HTTP/1.1\r\nHost: {}\r\n\r\n", load.bytes, load.target);
    stream.write_all(request.as_bytes())?;
    let mut filled = 0;
    loop {
        let got = stream.read(&mut room[filled..HEAD_BYTES_MAX])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += got;
        if let Some((head_bytes, length)) = response_head(&room[..filled])? {
            let early = &room[head_bytes..filled];
            if length != load.bytes || early.len() as u64 > length {
                return Err(invalid("a body of another length"));
            }
            if verify && !pattern::matches(early, 0) {
                return Err(invalid("a body of other content"));
            }
            return finish(stream, early.len() as u64, length, room, verify);
        }
    }
}

/// Length of the head and of the body, or `None` while the head is incomplete.
fn response_head(input: &[u8]) -> io::Result<Option<(usize, u64)>> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(input).map_err(|_| invalid("not an HTTP head"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    if response.code != Some(200) {
        return Err(invalid("a status other than 200"));
    }
    let length = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
    length.map(|length| Some((head_bytes, length))).ok_or_else(|| invalid("no content-length"))
}

/// Reads from `offset` to the end of a body: compares it, or drops it without a copy.
fn finish(
    stream: &mut TcpStream,
    offset: u64,
    length: u64,
    room: &mut [u8],
    verify: bool,
) -> io::Result<()> {
    let mut at = offset;
    while at < length {
        let want = (length - at).min(room.len() as u64) as usize;
        let got = if verify {
            stream.read(&mut room[..want])?
        } else {
            rustix::net::recv(&*stream, &mut room[..want], RecvFlags::TRUNC)?.1
        };
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if verify && !pattern::matches(&room[..got], at) {
            return Err(invalid("a body of other content"));
        }
        at += got as u64;
    }
    Ok(())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
