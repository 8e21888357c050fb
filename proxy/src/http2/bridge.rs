//! The h2 crate's I/O traits over a [`Socket`] and its owned blocks.
//!
//! ```text
//! socket ─▶ reader task ─▶ one block ─▶ poll_read      one copy, into h2's buffer
//!             └ flood: looks at the headers of frames, takes some out
//! socket ◀─ writer task ◀─ one block ◀─ poll_write     frames gather while the last send is away
//! ```
//! h2 flushes once for each stream that it accepts, and its encoder holds one DATA frame. Passing
//! each write on would cost a system call for each response. Here a write is a copy into a block,
//! and the writer task, which runs once everybody who is ready has run, sends what has gathered.
//!
//! # Invariants
//! - One block waits to be read, and nothing is received meanwhile; at most [`GATHERED_BYTES_MAX`]
//!   and a frame wait to be sent, beside the block that is on its way.
//! - An error of a send comes up at the next write; one of a receive at the next read.
//! - A connection that is silent for long has given its receive block back, unless it has begun a
//!   frame header.
//! - h2 gets frame headers whole: of one that has come in part it sees nothing yet.
//! - The socket is closed by its tasks, once what was written has gone: what h2 says last is sent,
//!   and input is taken for a while, so that no RST overtakes it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringway_stats::clock::now_ns;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flood::{Flood, OwnWatch, Watch};
use crate::io::deadlines::after;
use crate::io::notify::Notify;
use crate::io::socket::{Arrival, Socket};
use crate::limits::{GATHERED_BYTES_MAX, HTTP2_SEND_STALL, HTTP2_SILENCE};
use crate::sys::block::Block;
use crate::worker::{Worker, guarded};

/// What the reader task has for h2.
enum Inbound {
    Nothing,
    Data(Block),
    End,
    Broken(io::Error),
}

/// What the two tasks and h2 share.
struct Wire {
    socket: Socket,
    inbound: RefCell<Inbound>,
    /// An empty block to receive into.
    spent: Cell<Option<Block>>,
    /// What was delivered has been taken.
    taken: Notify,
    reader: Cell<Option<Waker>>,
    outbound: RefCell<Option<Block>>,
    /// Something waits to be sent, or h2 is done.
    written: Notify,
    writer: Cell<Option<Waker>>,
    sending: Cell<bool>,
    broken: Cell<Option<io::ErrorKind>>,
    /// h2 has let go.
    released: Cell<bool>,
    /// The reader task has ended.
    read_to_the_end: Notify,
    /// When something was last received.
    heard_ns: Cell<u64>,
    watch: RefCell<Watch>,
    /// Sees what is sent to a client.
    own_watch: Option<RefCell<OwnWatch>>,
    /// What there is too much of, once h2 has got as far.
    flood: Cell<Option<Flood>>,
    /// What there is too much of in the block that waits to be read.
    ahead: Cell<Option<Flood>>,
}

/// A connection as h2 wants it.
pub struct Io(Rc<Wire>);

/// What is to be known of a connection that h2 has.
#[derive(Clone)]
pub struct Line(Rc<Wire>);

/// Starts to move the bytes of `socket`, of which `early` have come already. `watch` sifts the
/// frames of the peer, `own_watch` sees ours.
#[must_use]
pub fn open(
    worker: &Rc<Worker>,
    socket: Socket,
    early: Option<Block>,
    watch: Watch,
    own_watch: Option<OwnWatch>,
) -> (Io, Line) {
    let wire = Rc::new(Wire {
        socket,
        inbound: RefCell::new(Inbound::Nothing),
        spent: Cell::default(),
        taken: Notify::default(),
        reader: Cell::default(),
        outbound: RefCell::default(),
        written: Notify::default(),
        writer: Cell::default(),
        sending: Cell::default(),
        broken: Cell::default(),
        released: Cell::default(),
        read_to_the_end: Notify::default(),
        heard_ns: Cell::new(now_ns()),
        watch: RefCell::new(watch),
        own_watch: own_watch.map(RefCell::new),
        flood: Cell::default(),
        ahead: Cell::default(),
    });
    let early = early.and_then(|block| wire.sift(block));
    let has_early = early.is_some();
    if let Some(block) = early {
        *wire.inbound.borrow_mut() = Inbound::Data(block);
    }
    spawn(worker, &wire, read(Rc::clone(&wire), has_early));
    spawn(worker, &wire, write(Rc::clone(&wire)));
    (Io(Rc::clone(&wire)), Line(wire))
}

/// Runs one of the two tasks of `wire`, which does not outlive a panic in it.
fn spawn(worker: &Rc<Worker>, wire: &Rc<Wire>, task: impl Future<Output = ()> + 'static) {
    let (worker, wire) = (Rc::clone(worker), Rc::clone(wire));
    monoio::spawn(async move {
        if guarded(&worker, pin!(task)).await.is_none() {
            wire.give_up();
        }
    });
}

impl Wire {
    /// Ends the connection when one of its tasks is no more.
    #[cold]
    fn give_up(&self) {
        self.socket.abort();
        self.broken.set(Some(io::ErrorKind::Other));
        *self.inbound.borrow_mut() = Inbound::Broken(io::ErrorKind::Other.into());
        *self.outbound.borrow_mut() = None;
        self.taken.notify();
        self.read_to_the_end.notify();
        self.wake_reader();
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// What h2 gets of a block that has come; `None` if that is nothing.
    fn sift(&self, mut block: Block) -> Option<Block> {
        let sifted = self.watch.borrow_mut().sift(block.data_mut(), now_ns());
        block.truncate(sifted.kept);
        if !block.is_empty() {
            self.ahead.set(sifted.flood);
            return Some(block);
        }
        self.note(sifted.flood);
        block.clear();
        self.spent.set(Some(block));
        None
    }

    fn note(&self, flood: Option<Flood>) {
        if flood.is_some() {
            self.flood.set(flood);
        }
    }

    fn wake_reader(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

impl Line {
    /// When something was last received, on the clock of `now_ns`.
    #[must_use]
    pub fn heard_ns(&self) -> u64 {
        self.0.heard_ns.get()
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.0.socket
    }

    /// What the peer floods this connection with, if it does.
    #[must_use]
    pub fn flood(&self) -> Option<Flood> {
        self.0.flood.get()
    }
}

/// Receives a block whenever the last one has been taken.
async fn read(wire: Rc<Wire>, has_early: bool) {
    if has_early {
        wire.taken.wait().await;
    }
    let mut was_full = false;
    while !wire.released.get() {
        let mut block = match wire.spent.take() {
            Some(block) if !was_full => block,
            _ if was_full => Block::large(),
            _ => Block::small(),
        };
        let fits = block.push(wire.watch.borrow().held());
        debug_assert!(fits, "an empty block has room for a part of a header");
        let due_ns = after(now_ns(), HTTP2_SILENCE);
        let found = match wire.socket.recv_patient(block, due_ns).await {
            Arrival::Silence(block) => {
                block.retire();
                continue;
            }
            Arrival::Data(block) => {
                was_full = block.spare() == 0;
                wire.heard_ns.set(now_ns());
                match wire.sift(block) {
                    Some(block) => Inbound::Data(block),
                    None => {
                        // A flood is looked after although nothing has come.
                        if wire.flood.get().is_some() {
                            wire.wake_reader();
                        }
                        continue;
                    }
                }
            }
            Arrival::End(_) => Inbound::End,
            Arrival::Broken(error) => Inbound::Broken(error),
        };
        let is_over = !matches!(found, Inbound::Data(_));
        wire.heard_ns.set(now_ns());
        *wire.inbound.borrow_mut() = found;
        wire.wake_reader();
        if is_over {
            break;
        }
        wire.taken.wait().await;
    }
    wire.read_to_the_end.notify();
}

/// Sends what has gathered, until h2 is done; then closes.
async fn write(wire: Rc<Wire>) {
    loop {
        wire.written.wait().await;
        loop {
            let block = wire.outbound.borrow_mut().take();
            let Some(block) = block else { break };
            wire.sending.set(true);
            let due_ns = after(now_ns(), HTTP2_SEND_STALL);
            let (sent, _) = wire.socket.send_until(block, due_ns).await;
            wire.sending.set(false);
            if let Err(error) = sent {
                wire.broken.set(Some(error.kind()));
                *wire.outbound.borrow_mut() = None;
                // Nothing can be said any more: what is still read is of no use.
                wire.socket.abort();
            }
            if let Some(waker) = wire.writer.take() {
                waker.wake();
            }
        }
        if wire.released.get() {
            break;
        }
    }
    if wire.broken.get().is_none() {
        wire.socket.finish().await;
    }
    wire.socket.receiving().end();
    wire.read_to_the_end.wait().await;
    wire.socket.receiving().clear();
    let over = matches!(*wire.inbound.borrow(), Inbound::End | Inbound::Broken(_));
    if wire.broken.get().is_none() && !over {
        // Nobody reads what has come: it is not kept for as long as the peer sends on.
        *wire.inbound.borrow_mut() = Inbound::End;
        drop(wire.spent.take());
        wire.socket.linger().await;
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &self.0;
        let mut inbound = wire.inbound.borrow_mut();
        match std::mem::replace(&mut *inbound, Inbound::Nothing) {
            Inbound::Nothing => {
                wire.reader.set(Some(context.waker().clone()));
                Poll::Pending
            }
            Inbound::Data(mut block) => {
                wire.note(wire.ahead.take());
                let count = block.len().min(buffer.remaining());
                buffer.put_slice(&block.data()[..count]);
                block.consume(count);
                if block.is_empty() {
                    block.clear();
                    wire.spent.set(Some(block));
                    wire.taken.notify();
                } else {
                    *inbound = Inbound::Data(block);
                }
                Poll::Ready(Ok(()))
            }
            Inbound::End => {
                *inbound = Inbound::End;
                Poll::Ready(Ok(()))
            }
            Inbound::Broken(error) => {
                *inbound = Inbound::End;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Io {
    /// Takes as much of the slices as there is room for.
    fn gather<'s>(
        &self,
        context: &Context<'_>,
        slices: impl Iterator<Item = &'s [u8]>,
    ) -> Poll<io::Result<usize>> {
        let wire = &self.0;
        if let Some(kind) = wire.broken.get() {
            return Poll::Ready(Err(kind.into()));
        }
        let mut outbound = wire.outbound.borrow_mut();
        let block = outbound.get_or_insert_with(Block::small);
        if block.len() >= GATHERED_BYTES_MAX {
            wire.writer.set(Some(context.waker().clone()));
            return Poll::Pending;
        }
        let mut total = 0;
        let mut watched = wire.own_watch.as_ref().map(|watch| (watch.borrow_mut(), now_ns()));
        for slice in slices {
            if block.spare() < slice.len() && block.capacity() <= GATHERED_BYTES_MAX {
                let mut larger = Block::large();
                let fits = larger.push(block.data());
                debug_assert!(fits, "a large block has room for a small one");
                *block = larger;
            }
            let count = slice.len().min(block.spare());
            let fits = block.push(&slice[..count]);
            debug_assert!(fits, "the count was measured");
            if let Some((watch, now)) = &mut watched {
                wire.note(watch.see(&slice[..count], *now));
            }
            total += count;
            if count < slice.len() {
                break;
            }
        }
        drop(outbound);
        wire.written.notify();
        Poll::Ready(Ok(total))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.gather(context, std::iter::once(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gather(context, slices.iter().map(|slice| &**slice))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written is the writer task's: there is nothing to wait for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.broken.get() {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &self.0;
        let all_gone = wire.outbound.borrow().is_none() && !wire.sending.get();
        if all_gone || wire.broken.get().is_some() {
            return Poll::Ready(Ok(()));
        }
        wire.writer.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.0.released.set(true);
        self.0.written.notify();
        self.0.taken.notify();
    }
}
