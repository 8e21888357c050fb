//! Accepting connections, and handing them to the worker with the least to do.
//!
//! # Invariants
//! - Up to [`ACCEPTS_PER_TURN`] connections per turn, so that a storm leaves room for the rest.
//! - Out of descriptors or memory the loop rests; it never spins.
//! - A listener that is closed is emptied first: a client whose handshake is done is served.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::Worker;
use super::mailbox::Message;
use crate::io::notify::Notify;
use crate::io::pipe::Pipe;
use crate::io::race::{self, Either};
use crate::limits::{ACCEPT_PAUSE, ACCEPTS_PER_TURN};
use crate::shared::{Accepted, Instance};
use crate::sys::stream::Stream;

/// A listening socket of a worker.
pub struct Listening {
    /// The instance it belongs to.
    pub instance: Instance,
    /// Series that its connections are counted in.
    pub series: u32,
    /// Ends the loop.
    pub closing: Rc<Notify>,
}

/// What one attempt to accept came to.
enum Attempt {
    Connection(OwnedFd, SocketAddr),
    /// A connection that was gone before it was taken.
    Lost,
    Nothing,
    Exhausted(Errno),
}

/// Accepts on `fd` until `listening.closing` is notified.
pub async fn accept_loop(worker: Rc<Worker>, fd: OwnedFd, listening: Listening) {
    let Ok(stream) = Stream::new(fd) else {
        tracing::error!(instance = listening.instance.0, "cannot register a listener");
        return;
    };
    let mut pausing = false;
    loop {
        let woken = race::first(pin!(stream.readable()), pin!(listening.closing.wait())).await;
        if matches!(woken, Either::Right(())) {
            while take_turn(&worker, &stream, &listening).is_ok_and(|more| more) {}
            return;
        }
        match take_turn(&worker, &stream, &listening) {
            Ok(_) if pausing => {
                pausing = false;
                tracing::info!("accepting goes on");
            }
            Ok(_) => {}
            Err(error) => {
                worker.shard.accept_pauses.increment();
                if !std::mem::replace(&mut pausing, true) {
                    tracing::warn!(%error, "accepting pauses until there is room again");
                    // Pipes that nobody uses are the first to go.
                    Pipe::close_pooled();
                }
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts up to a turn's worth. Whether there may be more.
fn take_turn(worker: &Rc<Worker>, stream: &Stream, listening: &Listening) -> Result<bool, Errno> {
    for _ in 0..ACCEPTS_PER_TURN {
        match attempt(stream) {
            Attempt::Connection(fd, peer) => {
                welcome(worker, Accepted { fd, peer, instance: listening.instance }, listening);
            }
            Attempt::Lost => {}
            Attempt::Nothing => return Ok(false),
            Attempt::Exhausted(error) => return Err(error),
        }
    }
    Ok(true)
}

fn attempt(stream: &Stream) -> Attempt {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match rustix::net::acceptfrom_with(stream.fd(), flags) {
        Ok((fd, peer)) => match peer.map(SocketAddr::try_from) {
            Some(Ok(peer)) => Attempt::Connection(fd, peer),
            Some(Err(_)) | None => Attempt::Lost,
        },
        Err(Errno::AGAIN) => Attempt::Nothing,
        // Errors of the connection that was about to be accepted (accept(2)): the next may be
        // well.
        Err(
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::PERM
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NONET,
        ) => Attempt::Lost,
        // Want of descriptors or memory; and what nobody expects must not spin either.
        Err(error) => Attempt::Exhausted(error),
    }
}

/// Serves the connection here, or leaves it with a worker that has clearly less to do: with few
/// connections the kernel's hash can put twice the mean on one worker.
fn welcome(worker: &Rc<Worker>, accepted: Accepted, listening: &Listening) {
    worker.shard.downstream_accepted.increment();
    if let Some(series) = worker.shard.listeners.touch(listening.series as usize) {
        series.accepted.increment();
    }
    let Some(other) = less_loaded(worker) else {
        return super::serve(worker, accepted);
    };
    match worker.shared.seats[other].mailbox.post(Message::Serve(accepted)) {
        Ok(()) => {
            worker.shard.handed_over.increment();
            // The connection counts from now, or a burst would all be handed to the same one.
            worker.shared.seats[other].load.fetch_add(1, Ordering::Relaxed);
        }
        Err(Message::Serve(accepted)) => super::serve(worker, accepted),
        Err(_) => {}
    }
}

fn less_loaded(worker: &Worker) -> Option<usize> {
    let seats = &worker.shared.seats;
    if seats.len() < 2 {
        return None;
    }
    let load = |id: usize| seats[id].load.load(Ordering::Relaxed);
    let mine = load(worker.id);
    let (other, least) = (0..seats.len()).map(|id| (id, load(id))).min_by_key(|&(_, load)| load)?;
    (mine > least + (least / 10).max(2)).then_some(other)
}
