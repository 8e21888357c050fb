//! A TCP socket that two futures of one task may use at once, one reading and one writing.
//!
//! monoio's methods take `&mut TcpStream` although each only copies the descriptor into its
//! operation. Its own split halves work around that with a shared cell, and send FIN when one of
//! them is dropped, which a proxy must decide for itself. This type is the same workaround
//! without that.
//!
//! # Not here
//! Deadlines and buffers: `io::socket`.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use monoio::BufResult;
use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelHandle, CancelableAsyncReadRent};
use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{Shutdown, sockopt};

use super::block::Block;

/// The state of a connection that is over (`net/tcp_states.h` of Linux).
const TCP_CLOSE: u8 = 7;

/// How a peer acknowledges what it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    /// The time since its last acknowledgement, or data.
    pub silence: Duration,
    /// How often it has been asked for one since, by a retransmission or a probe of its window.
    pub asked: u8,
    /// Whether the connection is over: nothing will be acknowledged any more.
    pub closed: bool,
    /// Whether segments are under way. If not, what is outstanding waits for its window to open.
    pub in_flight: bool,
    /// The retransmission timeout.
    pub timeout: Duration,
    /// How often the time between two questions was doubled.
    pub doubled: u8,
}

/// A non-blocking descriptor registered with the worker's driver.
pub struct Stream {
    tcp: UnsafeCell<TcpStream>,
    given_up: Cell<bool>,
}

impl Stream {
    /// Takes over `fd`, which must be non-blocking. Any pollable descriptor will do for
    /// [`Self::readable`] and [`Self::writable`]: listeners and event counters are wrapped too.
    ///
    /// # Errors
    /// When the epoll driver cannot register it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let tcp = TcpStream::from_std(std::net::TcpStream::from(fd))?;
        Ok(Self { tcp: UnsafeCell::new(tcp), given_up: Cell::new(false) })
    }

    #[allow(clippy::mut_from_ref)]
    fn tcp(&self) -> &mut TcpStream {
        // SAFETY: the type is neither `Send` nor `Sync`, so only one thread gets here. The methods
        // called on the result clone the descriptor into an operation before they first suspend
        // and touch the stream no more; no reference made here is alive across another call.
        unsafe { &mut *self.tcp.get() }
    }

    /// The descriptor, for plain system calls.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and the borrow cannot outlive it.
        unsafe { BorrowedFd::borrow_raw(self.tcp().as_raw_fd()) }
    }

    /// From how many bytes on [`Self::readable`] answers; 1 unless told otherwise. The end and
    /// errors are not waited for, and neither is a mark that the receive buffer has no room for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_low_water(&self, bytes: i32) -> io::Result<()> {
        let length = size_of_val(&bytes) as libc::socklen_t;
        let value = (&raw const bytes).cast();
        // SAFETY: the descriptor is open as long as the stream is, and the kernel reads `length`
        // bytes of `bytes`, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                value,
                length,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Bytes sent that the peer has not acknowledged, and those still to be sent.
    ///
    /// # Errors
    /// When the kernel does not know.
    pub fn outstanding(&self) -> io::Result<u64> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as the stream is, and the kernel writes one int
        // to `bytes`.
        let result = unsafe { libc::ioctl(self.fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if result == 0 {
            Ok(u64::from(bytes.unsigned_abs()))
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// What the kernel knows of how the peer acknowledges (tcp(7), `TCP_INFO`).
    ///
    /// # Errors
    /// When the kernel does not know.
    pub fn answers(&self) -> io::Result<Answers> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the descriptor is open as long as the stream is, and the kernel writes at most
        // `length` bytes to `info`, which has room for them.
        let result = unsafe {
            libc::getsockopt(
                self.fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is made of integers, for which zeroes are a value.
        let info = unsafe { info.assume_init() };
        // Where data comes fast the kernel takes no note of the acknowledgements in it.
        let silence_ms = info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv);
        Ok(Answers {
            silence: Duration::from_millis(silence_ms.into()),
            asked: info.tcpi_retransmits.max(info.tcpi_probes),
            closed: info.tcpi_state == TCP_CLOSE,
            in_flight: info.tcpi_unacked > 0,
            timeout: Duration::from_micros(info.tcpi_rto.into()),
            doubled: info.tcpi_backoff,
        })
    }

    /// Ends the connection with RST, now: pending operations fail, and the peer sees
    /// `ECONNRESET` rather than an orderly end.
    ///
    /// `connect` to no address dissolves the association at once (tcp(7)), where closing would
    /// wait for the operations in flight that still hold the descriptor.
    pub fn dissolve(&self) {
        let _ = sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO));
        if rustix::net::connect_unspec(self.fd()).is_err() {
            let _ = rustix::net::shutdown(self.fd(), Shutdown::Both);
        }
    }

    /// [`Self::dissolve`] for a peer that is taken to be gone: operations fail with `TimedOut`.
    pub fn give_up(&self) {
        self.given_up.set(true);
        self.dissolve();
    }

    /// Keeps in mind what the kernel says only once: that the peer is gone.
    pub fn remember(&self, error: Errno) {
        if error == Errno::TIMEDOUT {
            self.given_up.set(true);
        }
    }

    /// What an error of the descriptor comes from, if that is known better than by the kernel.
    #[must_use]
    pub fn cause_of(&self, error: io::Error) -> io::Error {
        if self.given_up.get() { io::ErrorKind::TimedOut.into() } else { error }
    }

    fn told<T>(&self, (result, block): BufResult<T, Block>) -> BufResult<T, Block> {
        (result.map_err(|error| self.cause_of(error)), block)
    }

    /// Receives into the spare room of `block`. `Ok(0)` is the end of input, so the caller makes
    /// sure that there is room. Never dropped before it is done, unless the connection is given up.
    pub async fn recv(&self, block: Block) -> BufResult<usize, Block> {
        self.told(self.tcp().read(block).await)
    }

    /// [`Self::recv`] that `handle` can end early with `ECANCELED`; no byte is lost by that.
    pub async fn recv_cancelable(
        &self,
        block: Block,
        handle: CancelHandle,
    ) -> BufResult<usize, Block> {
        self.told(self.tcp().cancelable_read(block, handle).await)
    }

    /// Sends data of `block`, perhaps not all of it.
    pub async fn send(&self, block: Block) -> BufResult<usize, Block> {
        self.told(self.tcp().write(block).await)
    }

    /// Waits until a read would not block. Safe to drop. Always the exact form: the relaxed one
    /// answers from stale state on epoll and makes its caller spin.
    pub async fn readable(&self) -> io::Result<()> {
        self.tcp().readable(false).await
    }

    /// Waits until a write would not block. Safe to drop.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp().writable(false).await
    }
}
