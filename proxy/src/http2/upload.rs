//! Bodies of requests from a client's stream to an endpoint of either version.
//!
//! ```text
//! RecvStream ─▶ [chunk] block ─▶ endpoint   the window opens when the endpoint has taken it
//!            └▶ frame ─▶ SendStream         the beginning is kept, to be sent once more
//! ```
//!
//! # Invariants
//! - One block or one frame is held, and the little that may have to be sent once more; what the
//!   endpoint does not take is not read.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::body::{Pace, Wait, send_frame};
use super::translate;
use crate::http1::body::Body;
use crate::http1::compose::Writer;
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::io::socket::Socket;
use crate::limits::{LARGE_BLOCK_BYTES, REPLAYED_BYTES_MAX, REPLAYED_FRAMES_MAX};
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;

/// What a chunk adds to its data: a line of at most 16 digits, and two line ends.
const CHUNK_OVERHEAD: usize = 20;
/// What of a frame goes into one block; a frame may be longer.
const DATA_BYTES_MAX: usize = LARGE_BLOCK_BYTES - CHUNK_OVERHEAD;

/// Why the body of a request did not go over whole.
#[derive(Debug)]
pub enum UploadFault {
    /// The client's doing.
    Client(Failure),
    /// The endpoint takes no more.
    Upstream,
    /// The response has ended; nobody wants the rest.
    Stopped,
}

impl UploadFault {
    /// As the failure of an exchange.
    #[must_use]
    pub fn failure(self) -> Failure {
        match self {
            Self::Client(failure) => failure,
            Self::Upstream | Self::Stopped => Cause::UpstreamReset.into(),
        }
    }
}

/// The body of a request on its way to an endpoint.
pub struct Upload {
    incoming: RecvStream,
    chunked: bool,
    /// The body had its end at the head.
    done: bool,
    /// What did not fit behind the head.
    held: Option<Bytes>,
    bytes: u64,
    most: u64,
    /// What came by a frame that has not gone yet: the client may not send it anew.
    owed: usize,
    /// What has been sent, as long as it is little.
    sent: Option<Sent>,
}

/// The beginning of a body, for a request that may have to be sent once more.
#[derive(Default)]
pub(crate) struct Sent {
    frames: Vec<Bytes>,
    bytes: usize,
    /// The end has come, perhaps with trailers.
    end: Option<Option<HeaderMap>>,
    /// Frames that were sent by this attempt.
    at: usize,
}

/// Sends `data` to an endpoint, until `stop`.
async fn send(
    stream: &mut SendStream<Bytes>,
    data: Bytes,
    ends: bool,
    pace: &Pace,
    stop: &Notify,
) -> Result<(), UploadFault> {
    let sending = pin!(send_frame(stream, data, ends, (pace, Wait::Upload)));
    match race::first(sending, pin!(stop.wait())).await {
        Either::Left(sent) => sent.map_err(|_| UploadFault::Upstream),
        Either::Right(()) => Err(UploadFault::Stopped),
    }
}

/// What the client sends next.
enum Next {
    Data(Bytes),
    End(Option<HeaderMap>),
}

impl Upload {
    /// The body that comes by `incoming` and is framed as `body` says; refused beyond `most` bytes.
    #[must_use]
    pub fn new(incoming: RecvStream, body: &Body, most: u64) -> Self {
        let (chunked, done) = (matches!(body, Body::Chunked(_)), body.is_done());
        let sent = Some(Sent::default());
        Self { incoming, chunked, done, held: None, bytes: 0, most, owed: 0, sent }
    }

    /// Whether all of it has gone.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Puts what has come already behind the head in `out`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn take_ready(&mut self, out: &mut Block) -> Result<(), UploadFault> {
        while !self.done {
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(next) = self.poll_next(&mut context) else { return Ok(()) };
            match next? {
                Next::Data(data) if out.spare() >= data.len() + CHUNK_OVERHEAD => {
                    self.push(&data, out)?;
                    self.release(data.len());
                }
                Next::Data(data) => {
                    self.held = Some(data);
                    return Ok(());
                }
                Next::End(trailers) => {
                    if !self.finish(trailers.as_ref(), out) {
                        let detail = "the trailer section is too long";
                        let failure = Failure::with(Cause::RequestMalformed, detail);
                        return Err(UploadFault::Client(failure));
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends the rest to `up`, until `stop` says that nobody wants it.
    ///
    /// # Errors
    /// When it did not go over whole.
    pub async fn run(
        &mut self,
        up: &Socket,
        pace: &Pace,
        stop: &Notify,
    ) -> Result<(), UploadFault> {
        while !self.done {
            let held = self.held.take();
            let next = match held {
                Some(data) => Next::Data(data),
                None => self.next(pace, stop).await?,
            };
            let next = match next {
                Next::Data(mut data) if data.len() > DATA_BYTES_MAX => {
                    self.held = Some(data.split_off(DATA_BYTES_MAX));
                    Next::Data(data)
                }
                next => next,
            };
            pace.moved();
            up.receiving().postpone(pace.due_ns());
            let (block, taken) = match &next {
                Next::Data(data) if data.is_empty() => continue,
                Next::Data(data) => {
                    let mut block = Block::with_room(data.len() + CHUNK_OVERHEAD);
                    self.push(data, &mut block)?;
                    (block, data.len())
                }
                Next::End(trailers) => {
                    let mut block = Block::small();
                    if !self.finish(trailers.as_ref(), &mut block) {
                        let failure = Failure::new(Cause::RequestMalformed);
                        return Err(UploadFault::Client(failure));
                    }
                    (block, 0)
                }
            };
            if up.send_until(block, pace.due_ns()).await.0.is_err() {
                return Err(UploadFault::Upstream);
            }
            pace.moved();
            up.receiving().postpone(pace.due_ns());
            self.release(taken);
        }
        Ok(())
    }

    /// [`Self::run`] for a stream: frame by frame, without a copy.
    ///
    /// # Errors
    /// When it did not go over whole.
    pub async fn run_http2(
        &mut self,
        stream: &mut SendStream<Bytes>,
        pace: &Pace,
        stop: &Notify,
    ) -> Result<(), UploadFault> {
        while !self.done {
            if let Some(data) = self.sent.as_mut().and_then(Sent::again) {
                send(stream, data, false, pace, stop).await?;
                self.release_owed();
                continue;
            }
            let next = match self.sent.as_ref().and_then(|sent| sent.end.clone()) {
                Some(trailers) => Next::End(trailers),
                None => self.next(pace, stop).await?,
            };
            pace.moved();
            if let Next::Data(data) = &next {
                // Without this part it must not be sent once more as if it were whole.
                self.admit(data.len()).inspect_err(|_| self.sent = None)?;
            }
            self.remember(&next);
            match next {
                Next::Data(data) => {
                    self.owed = data.len();
                    let ends = self.incoming.is_end_stream();
                    send(stream, data, ends, pace, stop).await?;
                    self.release_owed();
                    self.done = ends;
                }
                Next::End(trailers) => {
                    let ended = match trailers.map(translate::clean_trailers) {
                        Some(trailers) => stream.send_trailers(trailers),
                        None => stream.send_data(Bytes::new(), true),
                    };
                    ended.map_err(|_| UploadFault::Upstream)?;
                    self.done = true;
                }
            }
        }
        Ok(())
    }

    /// Keeps what is about to be sent, unless that becomes much.
    fn remember(&mut self, next: &Next) {
        match next {
            Next::Data(data) => {
                Sent::data(&mut self.sent, data);
                if self.incoming.is_end_stream() {
                    Sent::end(&mut self.sent, None);
                }
            }
            Next::End(trailers) => Sent::end(&mut self.sent, trailers.clone()),
        }
    }

    /// Goes back to its beginning, for another attempt. False if that is not known any more.
    pub fn rewind(&mut self) -> bool {
        let Some(sent) = &mut self.sent else { return false };
        sent.rewind();
        // One that had no body has sent nothing, and is done as before.
        self.done &= sent.end.is_none();
        true
    }

    /// Counts `count` bytes more.
    fn admit(&mut self, count: usize) -> Result<(), UploadFault> {
        self.bytes += count as u64;
        if self.bytes > self.most {
            return Err(UploadFault::Client(Cause::RequestBodyTooLarge.into()));
        }
        Ok(())
    }

    async fn next(&mut self, pace: &Pace, stop: &Notify) -> Result<Next, UploadFault> {
        let next = pin!(poll_fn(|context| self.poll_next(context)));
        let stopped = pin!(stop.wait());
        let wanted = race::first(next, stopped);
        match pace.timely(Wait::Request, wanted).await {
            Some(Either::Left(next)) => next,
            Some(Either::Right(())) => Err(UploadFault::Stopped),
            None => Err(UploadFault::Client(Cause::RequestTimeout.into())),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Next, UploadFault>> {
        let broken =
            |error: h2::Error| UploadFault::Client(Failure::with(Cause::ClientReset, error));
        match self.incoming.poll_data(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(data)) => return Poll::Ready(data.map(Next::Data).map_err(broken)),
            Poll::Ready(None) => {}
        }
        self.incoming.poll_trailers(context).map(|trailers| trailers.map(Next::End).map_err(broken))
    }

    /// Writes `data` as the body is framed.
    fn push(&mut self, data: &Bytes, out: &mut Block) -> Result<(), UploadFault> {
        self.admit(data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        let mut writer = Writer::new(out);
        if self.chunked {
            writer.bytes(format!("{:x}\r\n", data.len()).as_bytes());
        }
        writer.bytes(data);
        if self.chunked {
            writer.bytes(b"\r\n");
        }
        debug_assert!(writer.finish().is_ok(), "room was made for it");
        Ok(())
    }

    /// Writes the end. False if the trailers do not fit.
    fn finish(&mut self, trailers: Option<&HeaderMap>, out: &mut Block) -> bool {
        self.done = true;
        !self.chunked || translate::write_trailers(trailers, out)
    }

    fn release_owed(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        self.release(owed);
    }

    /// Lets the client send as much again.
    fn release(&mut self, count: usize) {
        // Fails only for a stream that is over.
        let _ = self.incoming.flow_control().release_capacity(count);
    }
}

impl Sent {
    /// Keeps `data`, which is about to be sent; nothing any more once it becomes much.
    pub(crate) fn data(kept: &mut Option<Sent>, data: &Bytes) {
        let Some(sent) = kept else { return };
        sent.frames.push(data.clone());
        sent.bytes += data.len();
        sent.at = sent.frames.len();
        if sent.bytes > REPLAYED_BYTES_MAX || sent.frames.len() > REPLAYED_FRAMES_MAX {
            *kept = None;
        }
    }

    /// Keeps the end, perhaps with trailers, which is about to be sent.
    pub(crate) fn end(kept: &mut Option<Sent>, trailers: Option<HeaderMap>) {
        if let Some(sent) = kept {
            sent.end = Some(trailers);
        }
    }

    /// The end, if it has been sent.
    pub(crate) fn ended(&self) -> Option<&Option<HeaderMap>> {
        self.end.as_ref()
    }

    /// Back to the beginning.
    pub(crate) fn rewind(&mut self) {
        self.at = 0;
    }

    /// The next frame that was sent before.
    pub(crate) fn again(&mut self) -> Option<Bytes> {
        let frame = self.frames.get(self.at)?;
        self.at += 1;
        Some(frame.clone())
    }
}
