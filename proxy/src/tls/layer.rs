//! An established TLS connection: bytes of the wire on one side, plaintext on the other.
//!
//! ```text
//! wire ──▶ [partial record] ──▶ open ──▶ plaintext, behind what the caller has
//! wire ◀── sealed block ◀────── seal ◀── the caller's block, which comes back when that has gone
//! ```
//!
//! # Invariants
//! - Nothing is received from the wire while plaintext waits: memory is bounded by one block of
//!   each, and by what a single receive brought.
//! - A sealed record goes out whole, or the connection is of no further use.
//! - A connection that waits for input holds the caller's block alone: ciphertext is received
//!   into it as long as the caller has nothing in it.
//!
//! # Not here
//! Sockets and waiting (`io::socket`), the handshake (`handshake`), records (`ringway_tls`).

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use ringway_tls::limits::RECORD_BYTES_MAX;
use ringway_tls::{Fault, Session};

use super::peer::TlsPeer;
use crate::io::resting::Glimpse;
use crate::io::socket::Arrival;
use crate::recorder::Shard;
use crate::sys::block::{Block, Window};

/// Room for last words: an alert, and answers that were owed before it.
const LAST_WORDS_BYTES: usize = ringway_tls::limits::CONTROL_BYTES_MAX;

/// What a receive has come to.
pub enum Received {
    /// It is over.
    Over(Arrival),
    /// More of the wire is needed, into this block.
    More(Block),
}

/// Where an end of the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// It has not said that it will send no more.
    Open,
    /// It has.
    Said,
}

/// The caller's block while what was sealed of it is on its way.
struct Unsent {
    rest: Block,
    /// Where its data lay before.
    window: Window,
}

/// An established TLS connection.
pub struct Layer {
    session: RefCell<Session>,
    /// Ciphertext that is no whole record yet.
    partial: Cell<Option<Block>>,
    /// The same of a connection that rests, without a block.
    resting: Cell<Option<Box<[u8]>>>,
    /// Plaintext that nobody has taken yet.
    plain: Cell<Option<Block>>,
    /// The caller's block while ciphertext is received into another one.
    waiting: Cell<Option<Block>>,
    unsent: Cell<Option<Unsent>>,
    peer_farewell: Cell<Farewell>,
    own_farewell: Cell<Farewell>,
    peer: Rc<TlsPeer>,
    /// Where faults are counted.
    shard: Arc<Shard>,
}

impl Layer {
    /// The connection of `session`, whose handshake is over.
    #[must_use]
    pub fn new(session: Session, peer: Rc<TlsPeer>, shard: &Arc<Shard>) -> Box<Self> {
        Box::new(Self {
            session: RefCell::new(session),
            partial: Cell::default(),
            resting: Cell::default(),
            plain: Cell::default(),
            waiting: Cell::default(),
            unsent: Cell::default(),
            peer_farewell: Cell::new(Farewell::Open),
            own_farewell: Cell::new(Farewell::Open),
            peer,
            shard: Arc::clone(shard),
        })
    }

    /// Takes in `rest`, what of the wire came behind the handshake.
    ///
    /// # Errors
    /// When that is no TLS; [`Self::last_words`] has the alert.
    pub fn take_rest(&self, rest: Block) -> Result<(), Fault> {
        if !rest.is_empty() {
            let mut plain = Block::with_room(rest.len());
            self.open(rest, &mut plain)?;
            if !plain.is_empty() {
                self.plain.set(Some(plain));
            }
        }
        Ok(())
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Rc<TlsPeer> {
        &self.peer
    }

    /// Whether there is plaintext that nobody has taken.
    #[must_use]
    pub fn holds_plaintext(&self) -> bool {
        let plain = self.plain.take();
        let holds = plain.is_some();
        self.plain.set(plain);
        holds
    }

    /// Whether the peer has said that nothing more will come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.peer_farewell.get() == Farewell::Said
    }

    /// Whether part of a record has come.
    #[must_use]
    pub fn holds_partial(&self) -> bool {
        let (partial, resting) = (self.partial.take(), self.resting.take());
        let holds = partial.as_ref().is_some_and(|block| !block.is_empty()) || resting.is_some();
        self.partial.set(partial);
        self.resting.set(resting);
        holds
    }

    /// What has come already, or the block to receive more of the wire into.
    pub fn before_receive(&self, block: Block) -> Received {
        if let Some(plain) = self.plain.take() {
            return Received::Over(self.deliver(plain, block));
        }
        if self.has_ended() {
            return Received::Over(Arrival::End(block));
        }
        self.receive_into(block)
    }

    /// The block to receive more of the wire into, for a caller who has `block`.
    fn receive_into(&self, block: Block) -> Received {
        let is_free = block.is_empty() && block.headroom() == 0;
        let Some(mut partial) = self.stored_partial() else {
            if is_free {
                return Received::More(block);
            }
            self.waiting.set(Some(block));
            return Received::More(Block::small());
        };
        if is_free && block.capacity() > partial.capacity() {
            let mut larger = block;
            let fits = larger.push(partial.data());
            debug_assert!(fits, "the larger block has room");
            return Received::More(larger);
        }
        partial.compact();
        if partial.spare() == 0 {
            let mut larger = Block::large();
            let fits = larger.push(partial.data());
            debug_assert!(fits, "a partial record fits in a large block");
            partial = larger;
        }
        self.waiting.set(Some(block));
        Received::More(partial)
    }

    fn stored_partial(&self) -> Option<Block> {
        if let Some(bytes) = self.resting.take() {
            let mut block = Block::with_room(bytes.len());
            let fits = block.push(&bytes);
            debug_assert!(fits, "a partial record fits in a block");
            return Some(block);
        }
        self.partial.take()
    }

    /// What bytes of the wire, or their absence, come to.
    pub fn received(&self, arrival: Arrival) -> Received {
        match arrival {
            Arrival::Data(wire) => self.take_in(wire),
            Arrival::Silence(wire) => {
                let block = match self.waiting.take() {
                    Some(block) => {
                        self.partial.set(Some(wire));
                        block
                    }
                    None if wire.is_empty() => wire,
                    None => {
                        self.partial.set(Some(wire));
                        Block::small()
                    }
                };
                Received::Over(Arrival::Silence(block))
            }
            // Anybody can end a TCP connection; only the peer can say that it was the end.
            Arrival::End(_) => {
                self.forget_goodbye();
                Received::Over(Arrival::Broken(broken(Fault::Truncated)))
            }
            Arrival::Broken(error) => {
                self.forget_goodbye();
                Received::Over(Arrival::Broken(error))
            }
        }
    }

    fn take_in(&self, wire: Block) -> Received {
        let caller = self.waiting.take();
        let needed = wire.len();
        // Behind what the caller has, if it surely fits there.
        let (mut plain, before) = match caller {
            Some(block) if block.spare() >= needed => (block, None),
            other => (Block::with_room(needed), other),
        };
        let had = plain.len();
        if let Err(fault) = self.open(wire, &mut plain) {
            return Received::Over(Arrival::Broken(broken(fault)));
        }
        if plain.len() > had {
            return Received::Over(match before {
                Some(block) => self.deliver(plain, block),
                None => Arrival::Data(plain),
            });
        }
        let block = before.unwrap_or(plain);
        if self.has_ended() {
            return Received::Over(Arrival::End(block));
        }
        self.receive_into(block)
    }

    /// Opens the whole records of `wire` into `plain`, and keeps the rest.
    fn open(&self, wire: Block, plain: &mut Block) -> Result<(), Fault> {
        let mut wire = wire;
        let opened = self.session.borrow_mut().open(wire.data_mut(), |bytes| {
            let fits = plain.push(bytes);
            debug_assert!(fits, "plaintext is shorter than what protected it");
        });
        let opened = opened.inspect_err(|fault| {
            tracing::debug!(%fault, side = ?self.peer.side, "a TLS connection failed");
            self.shard.tls(self.peer.side).failed(fault);
        })?;
        wire.consume(opened.consumed);
        if opened.closed {
            self.peer_farewell.set(Farewell::Said);
        } else if !wire.is_empty() {
            self.partial.set(Some(wire));
        }
        Ok(())
    }

    /// Gives `plain` to a caller who has `block`; what does not fit is kept.
    fn deliver(&self, plain: Block, block: Block) -> Arrival {
        if block.is_empty() && block.headroom() == 0 {
            return Arrival::Data(plain);
        }
        let (mut plain, mut block) = (plain, block);
        let count = plain.len().min(block.spare());
        let fits = block.push(&plain.data()[..count]);
        debug_assert!(fits, "the count was measured");
        plain.consume(count);
        if !plain.is_empty() {
            self.plain.set(Some(plain));
        }
        Arrival::Data(block)
    }

    /// Seals `block`, or its first part, and keeps it until [`Self::sent`].
    ///
    /// # Errors
    /// When the session can send no more. The block comes back as it was.
    pub fn seal(&self, block: Block) -> Result<Block, (io::Error, Block)> {
        let mut rest = block;
        let mut wire = Block::with_room(rest.len() + Session::seal_overhead(rest.len()));
        let sealed = self.session.borrow_mut().seal(rest.data(), wire.spare_mut());
        let (taken, written) = match sealed {
            Ok(counts) => counts,
            Err(fault) => return Err((broken(fault), rest)),
        };
        wire.advance(written);
        let window = rest.window();
        rest.consume(taken);
        self.unsent.set(Some(Unsent { rest, window }));
        Ok(wire)
    }

    /// The block that was sealed, with what is still to be sent of it. When nothing of `wire` has
    /// gone (`begun` is false) it is as it was before.
    #[must_use]
    pub fn sent(&self, wire: Block, begun: bool) -> Block {
        if !wire.is_empty() {
            // A record was cut: what followed would not be understood.
            self.forget_goodbye();
        }
        let Some(Unsent { mut rest, window }) = self.unsent.take() else { return wire };
        if !wire.is_empty() && !begun {
            rest.restore(window);
        }
        rest
    }

    /// Ends what is sent: the bytes that say so, once.
    #[must_use]
    pub fn goodbye_block(&self) -> Option<Block> {
        if self.own_farewell.replace(Farewell::Said) == Farewell::Said {
            return None;
        }
        let mut block = Block::small();
        let written = self.session.borrow_mut().close(block.spare_mut());
        block.advance(written);
        Some(block)
    }

    /// Hands what is to be said before the connection is closed to `send`: an alert, or that this
    /// is the end. Nothing after [`Self::forget_goodbye`], or when it was said before.
    pub fn last_words(&self, send: impl FnOnce(&[u8])) {
        if self.is_sending() || self.own_farewell.replace(Farewell::Said) == Farewell::Said {
            return;
        }
        let mut words = [0u8; LAST_WORDS_BYTES];
        let mut session = self.session.borrow_mut();
        let written = match session.take_alert(&mut words) {
            0 => session.close(&mut words),
            alert => alert,
        };
        if written > 0 {
            send(&words[..written]);
        }
    }

    /// Hands what is owed to the peer, who may wait for it, to `send`, which says how much it took.
    /// While a record is on its way it is left to the next one.
    pub fn pay(&self, send: impl FnOnce(&[u8]) -> usize) {
        let mut session = self.session.borrow_mut();
        let may_speak = || !self.is_sending() && self.own_farewell.get() == Farewell::Open;
        if !session.owed().is_empty() && may_speak() {
            let count = send(session.owed());
            session.paid(count);
        }
    }

    /// Whether a record is on its way: anything else would fall into its middle.
    fn is_sending(&self) -> bool {
        let under_way = self.unsent.take();
        let is_sending = under_way.is_some();
        self.unsent.set(under_way);
        is_sending
    }

    /// Nothing more will be said: the connection is broken.
    pub fn forget_goodbye(&self) {
        self.own_farewell.set(Farewell::Said);
    }

    /// Gives blocks back for a connection that will be silent: part of a record is kept as what it
    /// is.
    pub fn rest(&self) {
        if let Some(partial) = self.partial.take()
            && !partial.is_empty()
        {
            self.resting.set(Some(partial.data().into()));
        }
    }

    /// A block with what has come of a record, to receive more into.
    #[must_use]
    pub fn take_partial(&self) -> Block {
        let mut block = self.stored_partial().unwrap_or_else(Block::small);
        block.compact();
        if block.spare() > RECORD_BYTES_MAX {
            return block;
        }
        let mut larger = Block::large();
        let fits = larger.push(block.data());
        debug_assert!(fits, "a partial record fits in a large block");
        larger
    }

    /// What there is in `wire` for a connection that nobody receives from.
    #[must_use]
    pub fn look_into(&self, wire: Block) -> Glimpse {
        let mut plain = Block::with_room(wire.len());
        if self.open(wire, &mut plain).is_err() {
            return Glimpse::Broken;
        }
        if !plain.is_empty() {
            self.plain.set(Some(plain));
            return Glimpse::Bytes;
        }
        // Part of a record could be the beginning of an answer that nobody asked for.
        match self.peer_farewell.get() {
            Farewell::Said => Glimpse::End,
            Farewell::Open if self.holds_partial() => Glimpse::Bytes,
            Farewell::Open => Glimpse::Nothing,
        }
    }
}

/// A fault of TLS among the errors of a socket.
#[must_use]
pub fn broken(fault: Fault) -> io::Error {
    io::Error::other(fault)
}

/// The fault of TLS that `error` is, if it is one.
#[must_use]
pub fn fault_of(error: &io::Error) -> Option<&Fault> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests;
