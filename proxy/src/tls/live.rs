//! The protected connections of a worker, so that one whose peer is trusted no more can be cut.
//!
//! # Invariants
//! - A connection is entered for as long as its socket is in the runtime; those that rest are
//!   looked at by who keeps them (`worker::parking`, `worker::pool`).

use std::cell::RefCell;
use std::rc::Rc;

use slab::Slab;

use super::peer::TlsPeer;
use crate::sys::stream::Stream;

struct Entry {
    stream: Rc<Stream>,
    peer: Rc<TlsPeer>,
}

/// The protected connections of a worker.
#[derive(Default)]
pub struct Register {
    entries: RefCell<Slab<Entry>>,
}

/// A connection's place in the register, until it is dropped.
pub struct Entered {
    register: Rc<Register>,
    key: usize,
}

impl Register {
    /// Enters a connection.
    #[must_use]
    pub fn enter(self: &Rc<Self>, stream: Rc<Stream>, peer: Rc<TlsPeer>) -> Entered {
        let key = self.entries.borrow_mut().insert(Entry { stream, peer });
        Entered { register: Rc::clone(self), key }
    }

    /// Shuts down every connection whose peer is not `trusted`. Returns how many.
    pub fn cut(&self, trusted: impl Fn(&TlsPeer) -> bool) -> u64 {
        let mut cut = 0;
        for (_, entry) in self.entries.borrow().iter() {
            if !trusted(&entry.peer) {
                let _ = rustix::net::shutdown(entry.stream.fd(), rustix::net::Shutdown::Both);
                cut += 1;
            }
        }
        cut
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.register.entries.borrow_mut().remove(self.key);
    }
}
