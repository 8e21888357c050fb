//! Tickets and session caches that know until when the peer's chain is valid.
//!
//! rustls does not look at certificates again when a session is resumed. Here the last second of
//! the peer's chain is sealed into the ticket (server) or kept beside it (client), and a ticket
//! past it is as good as none: what follows is a full handshake, which says what is wrong.
//!
//! # Invariants
//! - Ticket keys and caches belong to one configuration. A rotation or a change of policy makes a
//!   new one, with which no earlier ticket resumes.
//! - A ticket is used once by a client (RFC 8446 appendix C.4).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::server::ProducesTickets;
use rustls::{Error, NamedGroup};
use rustls_pki_types::ServerName;

use crate::call;
use crate::limits::TICKETS_MAX;

/// Seals the expiry of the peer's chain into tickets.
#[derive(Debug)]
pub(crate) struct BoundTickets {
    /// Rotates its keys every 6 hours and keeps the previous one; keys never leave the process.
    inner: Arc<dyn ProducesTickets>,
}

impl BoundTickets {
    pub(crate) fn new() -> Result<BoundTickets, Error> {
        Ok(BoundTickets { inner: rustls::crypto::aws_lc_rs::Ticketer::new()? })
    }
}

impl ProducesTickets for BoundTickets {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&[&call::peer_until().to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut plain = self.inner.decrypt(cipher)?;
        let until = u64::from_be_bytes(plain.get(..8)?.try_into().ok()?);
        if until < call::now()?.as_secs() {
            return None;
        }
        call::set_peer_until(until);
        plain.drain(..8);
        Some(plain)
    }
}

/// The tickets of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointSessions {
    /// Held by one worker, so that it is never waited for.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The group that the endpoint chose, which saves a HelloRetryRequest.
    group: Option<NamedGroup>,
    tls12: Option<(u64, ServerName<'static>, Tls12ClientSessionValue)>,
    /// Oldest first, each with the last second of the peer's chain.
    tls13: VecDeque<(u64, ServerName<'static>, Tls13ClientSessionValue)>,
}

impl EndpointSessions {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a chain valid until `until` is valid at the time of the call; if so it is the session's.
fn still_valid(until: u64) -> bool {
    let valid = call::now().is_some_and(|now| now.as_secs() <= until);
    if valid {
        call::set_peer_until(until);
    }
    valid
}

impl ClientSessionStore for EndpointSessions {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, group: NamedGroup) {
        self.with(|kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|kept| kept.group)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|kept| kept.tls12 = Some((call::peer_until(), server_name, value)));
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|kept| {
            let (until, name, value) = kept.tls12.as_ref()?;
            (name == server_name && still_valid(*until)).then(|| value.clone())
        })
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {
        self.with(|kept| kept.tls12 = None);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.with(|kept| {
            if kept.tls13.len() == TICKETS_MAX {
                kept.tls13.pop_front();
            }
            kept.tls13.push_back((call::peer_until(), server_name, value));
        });
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.with(|kept| {
            while let Some((until, name, value)) = kept.tls13.pop_back() {
                if name == *server_name && still_valid(until) {
                    return Some(value);
                }
            }
            None
        })
    }
}
