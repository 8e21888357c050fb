//! A connected TCP socket with a deadline for each direction.
//!
//! # Invariants
//! - Reads and writes own their block until they complete.
//! - `abort` is the only way to send RST; dropping a socket closes it in the ordinary way.
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
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType};

use super::deadlines::{Alarm, Deadlines, Expiry, after};
use super::pacing;
use super::race::{self, Either};
use super::turn;
use crate::limits::{KEEPALIVE_TIME, QUIET_TIME, USER_TIMEOUT_MS};
use crate::sys::block::Block;
use crate::sys::stream::Stream;

/// A connected socket, registered with the worker's driver.
pub struct Socket {
    // First, so that they leave the table before the descriptor is closed.
    receiving: Alarm,
    sending: Alarm,
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

/// What can be seen on a socket without reading from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glimpse {
    /// Nothing has come.
    Nothing,
    /// Bytes are waiting.
    Bytes,
    /// The peer has closed its side.
    End,
    /// The connection was reset or failed.
    Broken,
}

impl Socket {
    /// Takes over a connected, non-blocking descriptor.
    ///
    /// # Errors
    /// When the driver cannot register it.
    pub fn new(fd: OwnedFd, deadlines: &Rc<Deadlines>) -> io::Result<Self> {
        let stream = Rc::new(Stream::new(fd)?);
        let alarm = || Alarm::new(deadlines, Rc::clone(&stream));
        Ok(Self { receiving: alarm(), sending: alarm(), stream })
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
        turn::operation().await;
        self.receiving.set(due_ns, Expiry::Cancel);
        let handle = self.receiving.cancel_handle();
        match self.stream.recv_cancelable(block, handle).await {
            (Ok(0), block) => Arrival::End(block),
            (Ok(_), block) => Arrival::Data(block),
            (Err(error), block) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => {
                Arrival::Silence(block)
            }
            (Err(error), _) => Arrival::Broken(error),
        }
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
            Ok(true) => self.recv_until(Block::small(), due_ns).await,
            Ok(false) => Arrival::Silence(Block::small()),
            Err(error) => Arrival::Broken(error),
        }
    }

    /// [`Self::recv_until`] for a connection that is of no use once `due_ns` has passed: it is
    /// shut down then. Cheaper than a receive that can go on.
    pub async fn recv_or_shutdown(&self, block: Block, due_ns: u64) -> Arrival {
        debug_assert!(block.spare() > 0, "no room to receive into");
        turn::operation().await;
        self.receiving.set(due_ns, Expiry::Shutdown);
        match self.stream.recv(block).await {
            (Ok(0) | Err(_), block) if self.receiving.expired() => Arrival::Silence(block),
            (Ok(0), block) => Arrival::End(block),
            (Ok(_), block) => Arrival::Data(block),
            (Err(error), _) => Arrival::Broken(error),
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
            turn::operation().await;
            let (sent, block) = self.stream.send(rest).await;
            rest = block;
            match sent {
                Ok(count) => rest.consume(count),
                Err(_) if self.sending.expired() => {
                    return (Err(io::ErrorKind::TimedOut.into()), rest);
                }
                Err(error) => {
                    self.sending.clear();
                    return (Err(error), rest);
                }
            }
        }
        self.sending.clear();
        (Ok(()), rest)
    }

    /// Sends some of `block` and consumes it, however long that takes. `look` is called after each
    /// `pause` without a result; it may end the send by breaking the connection.
    ///
    /// # Errors
    /// Those of the send.
    pub async fn send_some(
        &self,
        block: Block,
        pause: Duration,
        look: impl Fn(),
    ) -> (io::Result<usize>, Block) {
        turn::operation().await;
        let mut sending = pin!(self.stream.send(block));
        loop {
            let due_ns = after(now_ns(), pause);
            match race::first(sending.as_mut(), pin!(self.sending.wait_until(due_ns))).await {
                Either::Left((sent, mut block)) => {
                    if let Ok(count) = sent {
                        block.consume(count);
                    }
                    return (sent, block);
                }
                Either::Right(()) => look(),
            }
        }
    }

    /// Whether the connection has failed, although nobody was told yet: whoever asks is.
    #[must_use]
    pub fn failed(&self) -> bool {
        !matches!(sockopt::socket_error(self.fd()), Ok(Ok(())))
    }

    /// Waits for input, its end, or an error. Safe to drop.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// [`Self::readable`] until `due_ns`: `false` when that passed first.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn readable_until(&self, due_ns: u64) -> io::Result<bool> {
        self.receiving.rest();
        let waited = pin!(self.receiving.wait_until(due_ns));
        match race::first(pin!(self.stream.readable()), waited).await {
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
        match race::first(pin!(self.stream.readable()), waited).await {
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

    /// Bytes that a send would take now, or a little more; 0 when the kernel does not say.
    #[must_use]
    pub fn room(&self) -> u64 {
        let Ok(buffer) = sockopt::socket_send_buffer_size(self.fd()) else { return 0 };
        self.stream.outstanding().map_or(0, |queued| (buffer as u64).saturating_sub(queued))
    }

    /// Looks at what has arrived without taking it: one system call.
    #[must_use]
    pub fn glimpse(&self) -> Glimpse {
        glimpse(self.fd())
    }

    /// The connection once more, for when this socket is dropped but the connection lives on.
    ///
    /// monoio's own way to get a descriptor back panics while an operation holds it.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(self.fd(), 0)?)
    }

    /// Says that no more will be sent (FIN).
    pub fn finish(&self) {
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Write);
    }

    /// Ends the connection with RST, now: pending operations fail, and the peer sees
    /// `ECONNRESET` rather than an orderly end.
    ///
    /// `connect` to no address dissolves the association at once (tcp(7)), where closing would
    /// wait for the operations in flight that still hold the descriptor.
    pub fn abort(&self) {
        let _ = sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO));
        if rustix::net::connect_unspec(self.fd()).is_err() {
            let _ = rustix::net::shutdown(self.fd(), Shutdown::Both);
        }
    }

    /// Shuts both directions down: pending operations end.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Both);
    }
}

/// [`Socket::glimpse`] on a bare descriptor.
#[must_use]
pub fn glimpse(fd: BorrowedFd<'_>) -> Glimpse {
    let mut byte = [0u8; 1];
    match rustix::net::recv(fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Glimpse::End,
        Ok(_) => Glimpse::Bytes,
        Err(Errno::AGAIN | Errno::INTR) => Glimpse::Nothing,
        Err(_) => Glimpse::Broken,
    }
}

/// A fresh socket for `address` with the options of every connection of the proxy.
fn new_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    set_connection_options(&fd)?;
    Ok(fd)
}

/// No delay, keepalive, and an end to unacknowledged data. Accepted sockets inherit these from
/// their listener, which is where they are set for them.
///
/// # Errors
/// When the kernel refuses one of them.
pub fn set_connection_options(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE_TIME)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_TIME)?;
    sockopt::set_tcp_user_timeout(fd, USER_TIMEOUT_MS)?;
    Ok(())
}
