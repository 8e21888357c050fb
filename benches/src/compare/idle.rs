//! Memory with idle connections, each of which has carried one request before.
//!
//! What counts is the growth of the proxy's resident memory per connection; the kernel's socket
//! buffers are not in it. For a master with a worker it is the proportional set of both.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    thread,
    time::Duration,
};

use super::{
    Bench,
    findings::{Findings, PER_CONNECTION, PSS, RSS},
    peer::{Peer, Proxy},
    probe,
    scenario::{Idle, Scenario},
};
use crate::{
    error::Error,
    load::{Blocking, ClientTls},
    procfs::Memory,
    terminal,
};

/// Fresh proxies per peer.
const REPEATS: u32 = 3;
/// Body of the one request that each connection sends.
const REQUEST_BYTES: usize = 16 * 1024;
/// A connection gives its buffer back after about a second of silence; three are plenty.
const SILENCE: Duration = Duration::from_secs(3);
/// Idle connections that are asked once more at the end: were they really kept?
const STILL_ALIVE: usize = 50;

/// Measures every contender.
pub(super) fn measure(bench: &Bench, scenario: &Scenario, idle: &Idle, findings: &mut Findings) {
    let mut order = bench.peers_with(scenario.setup().name, findings);
    for repeat in 0..REPEATS {
        order.retain(|peer| {
            terminal::progress(&format!("{}: {} ({})", scenario.id, peer.id, repeat + 1));
            match one_proxy(bench, peer, scenario, idle) {
                Ok((before, after)) => {
                    keep(findings, peer, idle.connections, before, after);
                    true
                }
                Err(error) => {
                    findings.failed(&peer.id, &error);
                    false
                }
            }
        });
        order.reverse();
    }
}

fn keep(findings: &mut Findings, peer: &Peer, connections: u32, before: Memory, after: Memory) {
    findings.push(RSS, &peer.id, after.resident_kib as f64 / 1024.0);
    findings.push(PSS, &peer.id, after.proportional_kib as f64 / 1024.0);
    if connections > 0 {
        let growth_kib = after.resident_kib as f64 - before.resident_kib as f64;
        findings.push(PER_CONNECTION, &peer.id, growth_kib * 1024.0 / f64::from(connections));
    }
}

/// The memory before the connections, and with them idle.
fn one_proxy(
    bench: &Bench,
    peer: &Rc<Peer>,
    scenario: &Scenario,
    &Idle { connections, tls }: &Idle,
) -> Result<(Memory, Memory), Error> {
    let proxy = Proxy::start(bench, peer, scenario.setup())?;
    thread::sleep(Duration::from_secs(1));
    let memory = || proxy.child.process().memory().map_err(Error::io("read the memory in use"));
    let before = memory()?;
    if connections == 0 {
        return Ok((before, before));
    }
    let bad = |done: usize, error: &io::Error| {
        terminal::warn(&format!("connection {done} through {}: {error}", peer.id));
        Error::BadRound {
            scenario: scenario.id.clone(),
            peer: peer.id.clone(),
            requests: done as u64,
            errors: 1,
        }
    };
    let target = proxy.addresses.http;
    let terms = tls.map(|tls| bench.certificates.terms(tls));
    // No protocol is offered: these speak HTTP/1.1 whatever the proxy would prefer.
    let tls = terms.map(|terms| ClientTls::new(&terms, target, None)).transpose()?;
    let mut held: Vec<Held> = Vec::with_capacity(connections as usize);
    for _ in 0..connections {
        held.push(used_connection(target, tls.as_ref()).map_err(|error| bad(held.len(), &error))?);
    }
    thread::sleep(SILENCE);
    let after = memory()?;
    let step = (held.len() / STILL_ALIVE).max(1);
    for stream in held.iter_mut().step_by(step) {
        let answer = probe::get(stream, "bench", "/").map_err(|error| bad(0, &error))?;
        if answer.status != 200 {
            return Err(bad(0, &io::Error::other(format!("status {}", answer.status))));
        }
    }
    Ok((before, after))
}

fn used_connection(target: SocketAddr, tls: Option<&ClientTls>) -> io::Result<Held> {
    let stream = probe::connect(target)?;
    let mut stream = match tls {
        Some(tls) => Held::Tls(Box::new(tls.over(stream)?)),
        None => Held::Plain(stream),
    };
    let answer = probe::post(&mut stream, "/upload", &[b'x'; REQUEST_BYTES])?;
    if answer.status == 200 {
        return Ok(stream);
    }
    Err(io::Error::other(format!("status {}", answer.status)))
}

/// A connection that is kept.
enum Held {
    Plain(TcpStream),
    Tls(Box<Blocking>),
}

impl Read for Held {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
