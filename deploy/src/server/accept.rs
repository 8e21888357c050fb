//! Connections, from the first byte to the end.
//!
//! # Invariants
//! - Handshakes begin no faster than they can be done without keeping those who are connected
//!   waiting. Whoever says nothing takes no turn from those who do.
//! - Whose turn would come when it has given up is closed at once: it comes back by chance, and no
//!   turn goes to those who are gone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ringway_tls::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Pusher, http};
use crate::limits::SIDECARS_MAX;

/// Connections at once: a stream and one for reports of each sidecar, and some of operators.
pub(super) const CONNECTIONS_MAX: usize = 2 * SIDECARS_MAX + 1000;
/// How many handshakes may begin in a second for each processor.
const HANDSHAKES_PER_SECOND: u32 = 200;
/// How long a connection may take to say its first byte, which a client of TLS does at once.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may take, and how long may be between two requests: sidecars
/// report every 8 to 12 s over one connection, which is to be there for the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that acknowledges nothing for so long is gone (TCP_USER_TIMEOUT).
const SILENT_PEER: Duration = Duration::from_secs(45);
/// How long a connection waits for its turn at most: sidecars give up after 15 s. While it waits
/// it costs a descriptor; one that is sent away comes back later than the pusher had time for it.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// What was not used of the pace of this time may be used at once.
const BURST: Duration = Duration::from_millis(100);

/// When the next handshake may begin.
pub(super) struct Pace {
    next: Mutex<Instant>,
    step: Duration,
}

impl Pace {
    pub(super) fn new() -> Pace {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let step = Duration::from_secs(1) / HANDSHAKES_PER_SECOND / processors as u32;
        Pace { next: Mutex::new(Instant::now()), step }
    }

    /// When one's turn is; `None` if that is more than [`HANDSHAKE_WAIT_MAX`] away.
    fn turn(&self, now: Instant) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(now.checked_sub(BURST).unwrap_or(now)) + self.step;
        let is_soon = turn.saturating_duration_since(now) <= HANDSHAKE_WAIT_MAX;
        is_soon.then(|| {
            *next = turn;
            turn
        })
    }
}

/// Accepts connections for ever.
pub(super) async fn accept(listener: TcpListener, pusher: Arc<Pusher>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                pusher.counters.connections.fetch_add(1, Ordering::Relaxed);
                let pusher = Arc::clone(&pusher);
                tokio::spawn(async move {
                    connection(pusher, stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(pusher: Arc<Pusher>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, SILENT_PEER.as_millis() as u32);
    // Whoever says nothing takes no place from those who do.
    let spoke = tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.readable()).await;
    if !matches!(spoke, Ok(Ok(()))) {
        pusher.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let Some(turn) = pusher.pace.turn(Instant::now()) else {
        pusher.counters.connections_shed.fetch_add(1, Ordering::Relaxed);
        return;
    };
    tokio::time::sleep_until(turn).await;
    let Some(acceptor) = pusher.identity.acceptor() else { return };
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            pusher.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            match ringway_tls::control::refusal() {
                Some(fault) => tracing::warn!("a connection was refused: {fault}"),
                None => tracing::debug!("a handshake failed: {error}"),
            }
            return;
        }
        Err(_) => {
            pusher.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Arc<[CertificateDer<'static>]> =
        chain.iter().map(|der| der.clone().into_owned()).collect();
    let service =
        service_fn(|request| http::answer(Arc::clone(&pusher), Arc::clone(&chain), request));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herd_waits_for_as_long_as_a_sidecar_would_and_the_rest_is_sent_away() {
        let pace = Pace::new();
        let now = Instant::now();
        let turns: Vec<Instant> = (0..100_000).map_while(|_| pace.turn(now)).collect();
        let waits = HANDSHAKE_WAIT_MAX.as_micros() / pace.step.as_micros();
        let burst = BURST.as_micros() / pace.step.as_micros();
        assert!(turns.len() as u128 >= waits, "{} of {waits}", turns.len());
        assert!(turns.len() as u128 <= waits + burst + 1, "{} of {waits}", turns.len());
        assert!(turns.is_sorted());
        assert_eq!(pace.turn(now), None, "whoever is sent away takes no turn");
        let later = now + HANDSHAKE_WAIT_MAX;
        assert!(pace.turn(later).is_some_and(|turn| turn <= later + pace.step));
    }
}
