//! A connected TCP socket with a deadline for each direction, and what protects its bytes.
//!
//! ```text
//! recv ◀── plaintext ◀── Protection ◀── bytes of the wire ◀── stream
//! send ──▶ plaintext ──▶ Protection ──▶ bytes of the wire ──▶ stream
//! ```
//!
//! # Invariants
//! - Reads and writes own their block until they complete.
//! - `abort` is the only way to send RST; dropping a socket closes it in the ordinary way.
//! - Who receives and sends sees plaintext, whatever the protection is. Only `splice` and `glimpse`
//!   work on the bytes of the wire, so they ask [`Socket::is_plain`] first.
//!
//! # Not here
//! Pools, protocols, and what an error means.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ringway_stats::clock::now_ns;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{SendFlags, Shutdown};

use super::deadlines::{Alarm, Deadlines, Expiry, after};
use super::options::new_socket;
use super::pacing;
use super::race::{self, Either};
use super::resting::{Protection, Resting};
use super::turn;
use crate::limits::{GOODBYE_TIME, LINGER_BYTES_MAX, LINGER_TIME, QUIET_TIME};
use crate::sys::block::Block;
use crate::sys::stream::Stream;
use crate::tls::layer::{Layer, Received};
use crate::tls::live::{Entered, Register};

mod look;

/// A connected socket, registered with the worker's driver.
pub struct Socket {
    // First, so that they leave the table before the descriptor is closed.
    receiving: Alarm,
    sending: Alarm,
    /// Its place among the protected ones of the worker.
    entered: Option<Entered>,
    protection: Protection,
    stream: Rc<Stream>,
}

/// What a patient receive came back with.
pub enum Arrival {
    /// Bytes, appended to the block.
    Data(Block),
    /// The peer will send no more. The block comes back as it was.
    End(Block),
    /// Nothing until the deadline. The block comes back as it was.
    Silence(Block),
    /// The connection is broken.
    Broken(io::Error),
}

impl Socket {
    /// Takes over a connected, non-blocking descriptor.
    ///
    /// # Errors
    /// When the driver cannot register it.
    pub fn new(fd: OwnedFd, deadlines: &Rc<Deadlines>) -> io::Result<Self> {
        let stream = Rc::new(Stream::new(fd)?);
        let alarm = || Alarm::new(deadlines, Rc::clone(&stream));
        let (receiving, sending) = (alarm(), alarm());
        sending.watch();
        Ok(Self { receiving, sending, entered: None, protection: Protection::None, stream })
    }

    /// Takes a connection into the runtime again, with its protection.
    ///
    /// # Errors
    /// When the driver cannot register it.
    pub fn awake(
        resting: Resting,
        deadlines: &Rc<Deadlines>,
        live: &Rc<Register>,
    ) -> io::Result<Self> {
        let socket = Self::new(resting.fd, deadlines)?;
        Ok(match resting.protection {
            Protection::None => socket,
            Protection::UserSpace(layer) => socket.protected_by(layer, live),
        })
    }

    /// Takes the connection out of the runtime, with its protection.
    ///
    /// monoio's own way to get a descriptor back panics while an operation holds it, so this one is
    /// a duplicate.
    ///
    /// # Errors
    /// The socket as it was, when there is no descriptor left.
    pub fn rest(mut self) -> Result<Resting, Self> {
        let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(self.fd(), 0) else { return Err(self) };
        let protection = std::mem::replace(&mut self.protection, Protection::None);
        if let Protection::UserSpace(layer) = &protection {
            layer.rest();
        }
        Ok(Resting { fd, protection })
    }

    /// From here on the bytes are protected by `layer`. A peer with an identity is entered in
    /// `live`.
    #[must_use]
    pub fn protected_by(mut self, layer: Box<Layer>, live: &Rc<Register>) -> Self {
        let peer = layer.peer();
        if peer.identity.is_some() {
            self.entered = Some(live.enter(Rc::clone(&self.stream), Rc::clone(peer)));
        }
        self.protection = Protection::UserSpace(layer);
        self
    }

    /// Whether the bytes of the wire are those that are received and sent.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.protection, Protection::None)
    }

    /// What is known of the other side from its handshake.
    #[must_use]
    pub fn tls(&self) -> Option<&Layer> {
        match &self.protection {
            Protection::None => None,
            Protection::UserSpace(layer) => Some(layer),
        }
    }

    /// Connects to `address` within `timeout`.
    ///
    /// # Errors
    /// Whatever the kernel says of the attempt; `TimedOut` when it says nothing in time.
    pub async fn connect(
        address: SocketAddr,
        timeout: Duration,
        deadlines: &Rc<Deadlines>,
    ) -> io::Result<Self> {
        let fd = new_socket(address)?;
        pacing::on_connecting(&fd, address.ip());
        match rustix::net::connect(&fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = Self::new(fd, deadlines)?;
        let due = after(now_ns(), timeout);
        match race::first(pin!(socket.stream.writable()), pin!(socket.sending.wait_until(due)))
            .await
        {
            Either::Left(ready) => ready?,
            Either::Right(()) => return Err(io::ErrorKind::TimedOut.into()),
        }
        socket.sending.clear();
        sockopt::socket_error(socket.fd())??;
        Ok(socket)
    }

    /// A further deadline, for whoever waits for something else on this connection.
    #[must_use]
    pub fn alarm(&self, deadlines: &Rc<Deadlines>) -> Alarm {
        Alarm::new(deadlines, Rc::clone(&self.stream))
    }

    /// The deadline of what is received.
    #[must_use]
    pub fn receiving(&self) -> &Alarm {
        &self.receiving
    }

    /// The deadline of what is sent.
    #[must_use]
    pub fn sending(&self) -> &Alarm {
        &self.sending
    }

    /// The descriptor, for plain system calls.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.fd()
    }

    /// Receives into the spare room of `block`, or gives it back when nothing comes until `due_ns`.
    /// No byte is lost by that.
    pub async fn recv_until(&self, block: Block, due_ns: u64) -> Arrival {
        debug_assert!(block.spare() > 0, "no room to receive into");
        let mut received = self.before_receive(block);
        let mut begun = false;
        loop {
            let block = match received {
                Received::Over(arrival) => return arrival,
                Received::More(block) => block,
            };
            turn::operation().await;
            if self.is_late(&mut begun, due_ns, Expiry::Cancel) {
                received = self.received(Arrival::Silence(block));
                continue;
            }
            let handle = self.receiving.cancel_handle();
            received = self.received(match self.stream.recv_cancelable(block, handle).await {
                (Ok(0), block) => Arrival::End(block),
                (Ok(_), block) => Arrival::Data(block),
                (Err(error), block)
                    if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) =>
                {
                    Arrival::Silence(block)
                }
                (Err(error), _) => Arrival::Broken(error),
            });
        }
    }

    /// Sets the deadline of a receive at its first operation. At the next ones, of a receive that
    /// got less than a record, it stands where others may have moved it: whether it has passed.
    #[inline]
    fn is_late(&self, begun: &mut bool, due_ns: u64, expiry: Expiry) -> bool {
        if std::mem::replace(begun, true) {
            return self.receiving.expired();
        }
        self.receiving.set(due_ns, expiry);
        false
    }

    /// What has come already, or the block to receive into.
    #[inline]
    fn before_receive(&self, block: Block) -> Received {
        match &self.protection {
            Protection::None => Received::More(block),
            Protection::UserSpace(layer) => layer.before_receive(block),
        }
    }

    /// What the bytes of the wire come to.
    #[inline]
    fn received(&self, arrival: Arrival) -> Received {
        let Protection::UserSpace(layer) = &self.protection else {
            return Received::Over(arrival);
        };
        let received = layer.received(arrival);
        match received {
            Received::Over(Arrival::Broken(_)) => layer.last_words(|it| _ = self.send_now(it)),
            Received::More(_) => layer.pay(|owed| self.send_now(owed)),
            Received::Over(_) => {}
        }
        received
    }

    /// Sends what of `bytes` fits in the buffer of the kernel, past any protection; how much.
    pub fn send_now(&self, bytes: &[u8]) -> usize {
        self.send_flagged(bytes, SendFlags::empty())
    }

    /// The same; with `MORE` just before an end, in one packet with the FIN.
    fn send_flagged(&self, bytes: &[u8], flags: SendFlags) -> usize {
        let flags = flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(self.fd(), bytes, flags).unwrap_or(0)
    }

    /// [`Self::recv_until`] for waits that may be long: an empty block goes back to the pool after
    /// [`QUIET_TIME`], and one like it is taken when something has come.
    pub async fn recv_patient(&self, block: Block, due_ns: u64) -> Arrival {
        let quiet_ns = after(now_ns(), QUIET_TIME);
        if !block.is_empty() || block.headroom() > 0 || due_ns <= quiet_ns {
            return self.recv_until(block, due_ns).await;
        }
        match self.recv_until(block, quiet_ns).await {
            Arrival::Silence(block) => drop(block),
            other => return other,
        }
        match self.readable_until(due_ns).await {
            Ok(true) => {
                let due_ns = self.receiving.no_earlier_than(due_ns);
                self.recv_until(Block::small(), due_ns).await
            }
            Ok(false) => Arrival::Silence(Block::small()),
            Err(error) => Arrival::Broken(error),
        }
    }

    /// [`Self::recv_until`] for a connection that is of no use once `due_ns` has passed: it is
    /// shut down then. Cheaper than a receive that can go on.
    pub async fn recv_or_shutdown(&self, block: Block, due_ns: u64) -> Arrival {
        debug_assert!(block.spare() > 0, "no room to receive into");
        let mut received = self.before_receive(block);
        let mut begun = false;
        loop {
            let block = match received {
                Received::Over(arrival) => return arrival,
                Received::More(block) => block,
            };
            turn::operation().await;
            if self.is_late(&mut begun, due_ns, Expiry::Shutdown) {
                received = self.received(Arrival::Silence(block));
                continue;
            }
            received = self.received(match self.stream.recv(block).await {
                (Ok(0) | Err(_), block) if self.receiving.expired() => Arrival::Silence(block),
                (Ok(0), block) => Arrival::End(block),
                (Ok(_), block) => Arrival::Data(block),
                (Err(error), _) => Arrival::Broken(error),
            });
        }
    }

    /// Sends all data of `block` until `due_ns`. The block comes back, with what was not sent.
    ///
    /// # Errors
    /// `TimedOut` when the peer did not take it in time: the socket is shut down then. Else those
    /// of the send. Bytes may have gone out before either.
    pub async fn send_until(&self, block: Block, due_ns: u64) -> (io::Result<()>, Block) {
        let mut rest = block;
        self.sending.set(due_ns, Expiry::Shutdown);
        while !rest.is_empty() {
            let mut wire = match self.seal(rest) {
                Ok(wire) => wire,
                Err((error, block)) => {
                    self.sending.clear();
                    return (Err(error), block);
                }
            };
            let untouched = wire.len();
            while !wire.is_empty() {
                turn::operation().await;
                let (sent, block) = self.stream.send(wire).await;
                wire = block;
                match sent {
                    Ok(count) => wire.consume(count),
                    Err(error) => return self.send_failed(error, wire, untouched),
                }
            }
            rest = self.sent(wire, true);
        }
        self.sending.clear();
        (Ok(()), rest)
    }

    /// What becomes of a send that failed with `wire` left of `untouched` bytes.
    #[cold]
    fn send_failed(
        &self,
        error: io::Error,
        wire: Block,
        untouched: usize,
    ) -> (io::Result<()>, Block) {
        let begun = wire.len() < untouched;
        let rest = self.sent(wire, begun);
        if self.sending.expired() {
            return (Err(io::ErrorKind::TimedOut.into()), rest);
        }
        self.sending.clear();
        (Err(error), rest)
    }

    /// What goes over the wire for `block`, or for its first part.
    #[inline]
    fn seal(&self, block: Block) -> Result<Block, (io::Error, Block)> {
        match &self.protection {
            Protection::None => Ok(block),
            Protection::UserSpace(layer) => layer.seal(block),
        }
    }

    /// The caller's block, once `wire` has gone. `begun` says whether any of it has.
    #[inline]
    fn sent(&self, wire: Block, begun: bool) -> Block {
        match &self.protection {
            Protection::None => wire,
            Protection::UserSpace(layer) => layer.sent(wire, begun),
        }
    }

    /// Sends some of `block` and consumes it, however long that takes. `look` is called after each
    /// `pause` without a result, and may end the send by breaking the connection; `moved` whenever
    /// bytes have gone.
    ///
    /// # Errors
    /// Those of the send.
    pub async fn send_some(
        &self,
        block: Block,
        pause: Duration,
        look: impl Fn(),
        moved: impl Fn(),
    ) -> (io::Result<usize>, Block) {
        let length = block.len();
        let mut wire = match self.seal(block) {
            Ok(wire) => wire,
            Err((error, block)) => return (Err(error), block),
        };
        loop {
            turn::operation().await;
            let mut sending = pin!(self.stream.send(wire));
            let (sent, block) = loop {
                let due_ns = after(now_ns(), pause);
                let waited = pin!(self.sending.wait_until(due_ns));
                match race::first(sending.as_mut(), waited).await {
                    Either::Left(done) => break done,
                    Either::Right(()) => look(),
                }
            };
            wire = block;
            match sent {
                Ok(count) => wire.consume(count),
                Err(error) => return (Err(error), self.sent(wire, true)),
            }
            moved();
            // What was sealed goes out whole; of plain bytes any part is as good.
            if self.is_plain() || wire.is_empty() {
                let rest = self.sent(wire, true);
                return (Ok(length - rest.len()), rest);
            }
        }
    }

    /// Waits for input, its end, or an error. Safe to drop.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn readable(&self) -> io::Result<()> {
        if self.tls().is_some_and(|layer| layer.holds_plaintext() || layer.has_ended()) {
            return Ok(());
        }
        self.stream.readable().await
    }

    /// [`Self::readable`] for whoever looks at the wire: plaintext that waits does not count.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn wire_readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// [`Self::readable`] until `due_ns`: `false` when that passed first.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn readable_until(&self, due_ns: u64) -> io::Result<bool> {
        self.receiving.rest();
        let waited = pin!(self.receiving.wait_until(due_ns));
        match race::first(pin!(self.readable()), waited).await {
            Either::Left(ready) => ready.map(|()| true),
            Either::Right(()) => Ok(false),
        }
    }

    /// From how many bytes on the waits for input end; 1 unless told otherwise.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_low_water(&self, bytes: i32) -> io::Result<()> {
        self.stream.set_low_water(bytes)
    }

    /// [`Self::readable_until`], and nothing makes `due_ns` later.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn readable_briefly(&self, due_ns: u64) -> io::Result<bool> {
        self.receiving.rest();
        let waited = pin!(self.receiving.briefly_until(due_ns));
        match race::first(pin!(self.stream.readable()), waited).await {
            Either::Left(ready) => ready.map(|()| true),
            Either::Right(()) => Ok(false),
        }
    }

    /// Waits for input between requests until `due_ns`, or until a drain: `false` when nothing
    /// came.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn idle_until(&self, due_ns: u64) -> io::Result<bool> {
        self.receiving.rest();
        let waited = pin!(self.receiving.idle_until(due_ns));
        match race::first(pin!(self.readable()), waited).await {
            Either::Left(ready) => ready.map(|()| true),
            Either::Right(()) => Ok(false),
        }
    }

    /// Waits for room in the send buffer until `due_ns`: `false` when that passed first.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn writable_until(&self, due_ns: u64) -> io::Result<bool> {
        let waited = pin!(self.sending.wait_until(due_ns));
        match race::first(pin!(self.stream.writable()), waited).await {
            Either::Left(ready) => ready.map(|()| true),
            Either::Right(()) => Ok(false),
        }
    }

    /// Says that no more will be sent (FIN).
    pub async fn finish(&self) {
        if let Protection::UserSpace(layer) = &self.protection
            && let Some(wire) = layer.goodbye_block()
        {
            let mut wire = wire;
            wire.consume(self.send_flagged(wire.data(), SendFlags::MORE));
            if !wire.is_empty() {
                self.sending.set(after(now_ns(), GOODBYE_TIME), Expiry::Shutdown);
            }
            while !wire.is_empty() {
                let (sent, block) = self.stream.send(wire).await;
                wire = block;
                match sent {
                    Ok(count) => wire.consume(count),
                    Err(_) => break,
                }
            }
            self.sending.clear();
        }
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Write);
    }

    /// Says that no more will be sent, and throws away what still comes, for a while: closing with
    /// input unread sends RST, which can overtake what was said last.
    pub async fn linger(&self) {
        self.finish().await;
        let due_ns = after(now_ns(), LINGER_TIME);
        let mut block = Block::small();
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX {
            block.clear();
            block = match self.recv_until(block, due_ns).await {
                Arrival::Data(block) => block,
                Arrival::Silence(_) | Arrival::End(_) | Arrival::Broken(_) => return,
            };
            bytes += block.len() as u64;
        }
    }

    /// Ends the connection with RST, now ([`Stream::dissolve`]).
    pub fn abort(&self) {
        if let Protection::UserSpace(layer) = &self.protection {
            layer.forget_goodbye();
        }
        self.stream.dissolve();
    }

    /// Shuts both directions down: pending operations end.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // An end without a word could be anybody's (RFC 8446 section 6.1).
        if let Protection::UserSpace(layer) = &self.protection {
            layer.last_words(|words| {
                self.send_flagged(words, SendFlags::MORE);
            });
        }
    }
}
