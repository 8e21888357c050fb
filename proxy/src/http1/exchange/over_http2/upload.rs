//! The body of a request on its way from a client of HTTP/1.1 to a stream of an endpoint.
//!
//! # Invariants
//! - Nobody who does not want it any more waits for it: `stop` ends a wait for the client, `halt`
//!   one for room at the endpoint.
//!
//! # Not here
//! When to stop: the exchange.

use std::cell::Cell;
use std::pin::pin;

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::http1::body::Body;
use crate::http1::connection::widen;
use crate::http1::exchange::chunk_cause;
use crate::http1::plan::Forward;
use crate::http1::scan::{Scan, Scanner};
use crate::http2::body::{Pace, Wait, send_frame};
use crate::http2::translate;
use crate::http2::upload::{Sent, UploadFault};
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::io::socket::{Arrival, Socket};
use crate::limits::TRAILER_BYTES_MAX;
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::tls::handshake::Side;

/// The body of a request on its way from a client to a stream.
pub(super) struct Upload<'a> {
    pub(super) down: &'a Socket,
    pub(super) body: Body,
    /// The request has no body at all.
    pub(super) bodiless: bool,
    /// What has come and not been taken; at the end what follows the request.
    pub(super) block: Cell<Block>,
    pub(super) done: Cell<bool>,
    pub(super) stop: Cell<bool>,
    /// Ends a wait for room when that is set.
    pub(super) halt: Notify,
    /// All of it has gone.
    pub(super) whole: Notify,
    /// What has been sent, as long as it is little.
    pub(super) sent: Option<Sent>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(down: &'a Socket, forward: &Forward, input: Block) -> Self {
        let body = forward.body;
        Self {
            down,
            done: Cell::new(body.is_done()),
            body,
            block: Cell::new(input),
            stop: Cell::new(false),
            halt: Notify::default(),
            whole: Notify::default(),
            sent: Some(Sent::default()),
            bodiless: body.is_done(),
        }
    }

    /// Goes back to its beginning, for another attempt. False if that is not known any more, or
    /// the client was in the middle of sending more.
    pub(super) fn rewind(&mut self) -> bool {
        // A client that has gone wrong has lost its block.
        let Some(sent) = &mut self.sent else { return false };
        sent.rewind();
        self.stop.set(false);
        self.halt = Notify::default();
        self.down.receiving().clear();
        true
    }

    /// What came behind the request, if that came whole.
    pub(super) fn rest(self) -> Option<Block> {
        let rest = self.block.into_inner();
        self.done.get().then_some(rest)
    }
}

/// The body while it moves.
pub(super) struct Moving<'a> {
    pub(super) body: &'a mut Body,
    pub(super) block: &'a Cell<Block>,
    pub(super) down: &'a Socket,
    pub(super) stop: &'a Cell<bool>,
    pub(super) halt: &'a Notify,
    pub(super) pace: &'a Pace,
    pub(super) kept: &'a mut Option<Sent>,
}

impl Moving<'_> {
    pub(super) async fn run(
        &mut self,
        stream: &mut SendStream<Bytes>,
        done: &Cell<bool>,
    ) -> Result<(), UploadFault> {
        if self.resend(stream).await? {
            return Ok(());
        }
        while !done.get() {
            let mut block = self.block.replace(Block::with_room(0));
            let at_trailers = matches!(self.body, Body::Trailers);
            let (consumed, payload) = if at_trailers { (0, 0) } else { self.take(&mut block)? };
            let data = Bytes::copy_from_slice(&block.data()[..payload]);
            block.consume(consumed);
            let ends = self.body.is_done();
            if payload > 0 {
                Sent::data(self.kept, &data);
            }
            if ends {
                Sent::end(self.kept, None);
            }
            self.block.set(block);
            done.set(ends);
            if payload > 0 {
                self.send(stream, data, ends).await?;
            } else if ends {
                stream.send_data(Bytes::new(), true).map_err(|_| UploadFault::Upstream)?;
            }
            if matches!(self.body, Body::Trailers) {
                let block = self.block.replace(Block::with_room(0));
                let (block, fields) = self.trailers(block).await?;
                *self.body = Body::Done;
                Sent::end(self.kept, fields.clone());
                self.block.set(block);
                done.set(true);
                end(stream, fields)?;
            } else if !ends {
                let block = self.block.replace(Block::with_room(0));
                let block = self.receive(block).await?;
                self.pace.moved();
                self.block.set(block);
            }
        }
        Ok(())
    }

    /// Sends `data`, until nobody wants it.
    async fn send(
        &self,
        stream: &mut SendStream<Bytes>,
        data: Bytes,
        ends: bool,
    ) -> Result<(), UploadFault> {
        let sending = pin!(send_frame(stream, data, ends, (self.pace, Wait::Upload)));
        match race::first(sending, pin!(self.halt.wait())).await {
            Either::Left(sent) => sent.map_err(|_| UploadFault::Upstream),
            Either::Right(()) => Err(UploadFault::Stopped),
        }
    }

    /// Sends what an earlier attempt has sent. Whether that was all.
    async fn resend(&mut self, stream: &mut SendStream<Bytes>) -> Result<bool, UploadFault> {
        while let Some(data) = self.kept.as_mut().and_then(Sent::again) {
            self.send(stream, data, false).await?;
        }
        let ended = self.kept.as_ref().and_then(Sent::ended).cloned();
        match ended {
            Some(fields) => end(stream, fields).map(|()| true),
            None => Ok(false),
        }
    }

    /// Bytes of `block` that belong to the body, and how many of them, at its front, are data.
    fn take(&mut self, block: &mut Block) -> Result<(usize, usize), UploadFault> {
        let malformed = |fault| UploadFault::Client(Failure::with(chunk_cause(fault), fault));
        if let Body::Chunked(chunked) = &mut *self.body {
            let advance = chunked.strip(block.data_mut()).map_err(malformed)?;
            if advance.at_trailers {
                *self.body = Body::Trailers;
            }
            return Ok((advance.consumed, advance.payload));
        }
        let taken = self.body.take(block.data()).map_err(malformed)?;
        Ok((taken, taken))
    }

    async fn receive(&self, block: Block) -> Result<Block, UploadFault> {
        let mut block = block;
        block.compact();
        if block.spare() == 0 {
            block = widen(block);
        }
        let arrival = self.down.recv_until(block, self.pace.due_ns()).await;
        match arrival {
            // For another attempt, should there be one.
            Arrival::Data(block) | Arrival::Silence(block) if self.stop.get() => {
                self.block.set(block);
                Err(UploadFault::Stopped)
            }
            _ if self.stop.get() => Err(UploadFault::Stopped),
            Arrival::Data(block) => Ok(block),
            Arrival::End(_) => Err(UploadFault::Client(Cause::ClientClosed.into())),
            Arrival::Silence(_) => Err(UploadFault::Client(Cause::RequestTimeout.into())),
            Arrival::Broken(error) => {
                Err(UploadFault::Client(Failure::of_io(Side::Downstream, &error)))
            }
        }
    }

    /// Collects the trailer section. Gives back what came behind it.
    async fn trailers(&self, block: Block) -> Result<(Block, Option<HeaderMap>), UploadFault> {
        let malformed =
            || UploadFault::Client(Failure::with(Cause::RequestMalformed, "the trailer section"));
        let mut block = block;
        let mut scanner = Scanner::trailers();
        let length = loop {
            match scanner.scan(block.data()) {
                Ok(Scan::Complete { end, .. }) => break end,
                Ok(Scan::Partial) if block.len() <= TRAILER_BYTES_MAX => {}
                Ok(Scan::Partial) | Err(_) => return Err(malformed()),
            }
            block = self.receive(block).await?;
        };
        if length > TRAILER_BYTES_MAX {
            return Err(malformed());
        }
        let fields = translate::trailers(&block.data()[..length]).map_err(|_| malformed())?;
        block.consume(length);
        Ok((block, fields))
    }
}

/// Ends a stream, perhaps with trailers.
fn end(stream: &mut SendStream<Bytes>, trailers: Option<HeaderMap>) -> Result<(), UploadFault> {
    let ended = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
    ended.map_err(|_| UploadFault::Upstream)
}
