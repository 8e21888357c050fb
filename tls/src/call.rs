//! What passes between a session and the callbacks that rustls makes from within a call.
//!
//! rustls asks for the time, verifies certificates and keeps tickets through shared objects that
//! know no connection. All of it happens on the thread and within the call of
//! [`crate::session::Session`], so that a thread-local carries the facts of that call: the time
//! inwards, what the verifier found outwards.
//!
//! # Invariants
//! - [`enter`] and [`leave`] enclose every call into a rustls connection; nothing is left behind.
//! - The expiry of the peer's chain travels with its session, since a ticket may be issued in a
//!   later call than the one that verified the chain.

use std::cell::{Cell, RefCell};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

use crate::fault::Fault;
use crate::spiffe::SpiffeId;

/// The facts of a call.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Why the verifier refused, in our words.
    pub(crate) fault: Option<Fault>,
    /// Whom it accepted.
    pub(crate) peer: Option<SpiffeId>,
    /// The name that the client asked for.
    pub(crate) server_name: Option<Box<str>>,
}

thread_local! {
    static NOW: Cell<Option<UnixTime>> = const { Cell::new(None) };
    /// Second after which the peer's chain is no longer valid.
    static PEER_UNTIL: Cell<u64> = const { Cell::new(u64::MAX) };
    static FOUND: RefCell<Found> =
        const { RefCell::new(Found { fault: None, peer: None, server_name: None }) };
}

/// Begins a call at `now` for a session whose peer's chain is valid until `peer_until`.
pub(crate) fn enter(now: UnixTime, peer_until: u64) {
    NOW.set(Some(now));
    PEER_UNTIL.set(peer_until);
    FOUND.take();
}

/// Ends a call: what was found, and until when the peer's chain is valid.
pub(crate) fn leave() -> (Found, u64) {
    NOW.set(None);
    (FOUND.take(), PEER_UNTIL.get())
}

pub(crate) fn now() -> Option<UnixTime> {
    NOW.get()
}

pub(crate) fn peer_until() -> u64 {
    PEER_UNTIL.get()
}

pub(crate) fn set_peer_until(second: u64) {
    PEER_UNTIL.set(second);
}

pub(crate) fn refused(fault: Fault) {
    FOUND.with_borrow_mut(|found| found.fault = Some(fault));
}

pub(crate) fn accepted(peer: SpiffeId) {
    FOUND.with_borrow_mut(|found| found.peer = Some(peer));
}

pub(crate) fn asked_for(server_name: Option<&str>) {
    FOUND.with_borrow_mut(|found| found.server_name = server_name.map(Box::from));
}

/// Gives rustls the time of the call.
#[derive(Debug)]
pub(crate) struct CallTime;

impl TimeProvider for CallTime {
    fn current_time(&self) -> Option<UnixTime> {
        now()
    }
}
