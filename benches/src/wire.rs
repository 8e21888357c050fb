//! The two ends of an HTTP/2 connection in memory: h2 on one, a loop with a socket on the other.
//!
//! ```text
//! socket ──feed──▶ input ──poll_read──▶ h2 ──poll_write──▶ output ──send_with──▶ socket
//! ```
//! h2 sends each frame by itself. Here they gather, and whoever owns the socket sends them once for
//! each turn.
//!
//! # Invariants
//! - Nothing here wakes anybody: the loop polls h2 after it has fed it, and again after it has sent
//!   if [`Wire::is_full`] said so before.
//! - `input[at..]` is what h2 has not read yet. `output` grows past `WIRE_BYTES_MAX` by one write.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::WIRE_BYTES_MAX;

#[derive(Debug, Default)]
struct Buffers {
    input: Vec<u8>,
    at: usize,
    /// No more input will come.
    ended: bool,
    output: Vec<u8>,
    full: bool,
}

/// One end; a clone is the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Rc<RefCell<Buffers>>);

impl Wire {
    /// Gives h2 what the socket brought.
    pub(crate) fn feed(&self, bytes: &[u8]) {
        self.0.borrow_mut().input.extend_from_slice(bytes);
    }

    /// The peer has sent its last byte.
    pub(crate) fn end(&self) {
        self.0.borrow_mut().ended = true;
    }

    /// Whether h2 could not write all it had; it goes on when it is polled after a send.
    pub(crate) fn is_full(&self) -> bool {
        self.0.borrow().full
    }

    /// Takes what h2 wrote and leaves `empty` in its place.
    pub(crate) fn swap_output(&self, empty: Vec<u8>) -> Vec<u8> {
        let mut buffers = self.0.borrow_mut();
        buffers.full = false;
        std::mem::replace(&mut buffers.output, empty)
    }

    /// Lets `send` take bytes from the start of what h2 wrote, as many as it says.
    pub(crate) fn send_with(
        &self,
        mut send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut buffers = self.0.borrow_mut();
        let mut sent = 0;
        let mut result = Ok(());
        while sent < buffers.output.len() {
            match send(&buffers.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        buffers.output.drain(..sent);
        buffers.full &= buffers.output.len() >= WIRE_BYTES_MAX;
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = self.0.borrow_mut();
        let left = &buffers.input[buffers.at..];
        if left.is_empty() {
            return if buffers.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let count = left.len().min(room.remaining());
        room.put_slice(&left[..count]);
        buffers.at += count;
        if buffers.at == buffers.input.len() {
            buffers.input.clear();
            buffers.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.borrow_mut();
        if buffers.output.len() >= WIRE_BYTES_MAX {
            buffers.full = true;
            return Poll::Pending;
        }
        let mut written = 0;
        for part in parts {
            buffers.output.extend_from_slice(part);
            written += part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The numbers of those who asked to be polled again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready(Arc<Mutex<Vec<u32>>>);

#[derive(Debug)]
struct Token {
    ready: Ready,
    number: u32,
}

impl Ready {
    /// A waker that puts `number` on the list.
    pub(crate) fn waker(&self, number: u32) -> Waker {
        Arc::new(Token { ready: self.clone(), number }).into()
    }

    /// Appends the list to `taken` and empties it.
    pub(crate) fn take(&self, taken: &mut Vec<u32>) {
        taken.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Wake for Token {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(wire: &mut Wire, bytes: &[u8]) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(wire).poll_write(&mut context, bytes).is_ready()
    }

    #[test]
    fn a_full_wire_takes_nothing_until_something_was_sent() {
        let mut wire = Wire::default();
        assert!(write(&mut wire, &vec![1; WIRE_BYTES_MAX]) && !wire.is_full());
        assert!(!write(&mut wire, &[2]) && wire.is_full());
        // The socket takes ten bytes and has no more room.
        let mut room = 10;
        wire.send_with(|_| match std::mem::take(&mut room) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        })
        .unwrap();
        assert!(!wire.is_full() && write(&mut wire, &[3]));
        let sent = wire.swap_output(Vec::new());
        assert_eq!((sent.len(), sent.last()), (WIRE_BYTES_MAX - 9, Some(&3)));
    }

    #[test]
    fn input_is_read_in_any_pieces_and_then_ends() {
        let mut wire = Wire::default();
        wire.feed(b"abc");
        wire.end();
        let mut context = Context::from_waker(Waker::noop());
        let mut got = Vec::new();
        loop {
            let mut room = [0; 2];
            let mut room = ReadBuf::new(&mut room);
            assert!(Pin::new(&mut wire).poll_read(&mut context, &mut room).is_ready());
            if room.filled().is_empty() {
                break;
            }
            got.extend_from_slice(room.filled());
        }
        assert_eq!(got, b"abc");
    }

    #[test]
    fn wakers_note_their_number() {
        let ready = Ready::default();
        ready.waker(7).wake();
        ready.waker(3).wake();
        let mut taken = Vec::new();
        ready.take(&mut taken);
        ready.take(&mut taken);
        assert_eq!(taken, [7, 3]);
    }
}
