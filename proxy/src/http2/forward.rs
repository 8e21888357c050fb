//! A request of an HTTP/2 client on a stream of an endpoint, and its response.
//!
//! # Invariants
//! - Both windows move together: a byte is taken from one side for a window of the other.
//! - A request is sent twice only if the endpoint says that it did nothing with it: REFUSED_STREAM,
//!   or GOAWAY before it (RFC 9113 sections 6.8 and 8.7).
//!
//! # Not here
//! What became of the exchange: `stream` records it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};

use super::body::{Pace, RelayFault, Wait, send_frame};
use super::client::Lease;
use super::stream::{Done, Fault};
use super::upload::{Upload, UploadFault};
use super::{flood, grpc, translate};
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::limits::INTERIM_RESPONSES_MAX;
use crate::outcome::{Cause, Failure};
use ringway_router::HeaderEdits;
use ringway_stats::clock::now_ns;

/// One try on one connection.
pub struct Attempt<'a> {
    /// Its place on the connection.
    pub lease: &'a Lease,
    /// How long it may take.
    pub pace: &'a Pace,
    /// What the rule does to response fields.
    pub edits: &'a HeaderEdits,
    /// The current second.
    pub date: &'a [u8],
    /// When the response began, on the clock of `now_ns`; 0 before.
    pub first_byte_ns: &'a Cell<u64>,
    /// Set when the client has reset its stream.
    pub client_gone: &'a Cell<bool>,
    /// Set when the client has sent what is not taken: it is still there.
    pub refused: Cell<bool>,
    /// Whether it is a call of gRPC.
    pub is_grpc: bool,
    /// How a call of gRPC has ended, once that is known.
    pub grpc_status: &'a Cell<Option<grpc::Status>>,
}

/// What the endpoint says next.
enum Said {
    Interim(Response<()>),
    Final(Result<Response<RecvStream>, h2::Error>),
    /// The client has reset its stream.
    Gone,
}

impl Attempt<'_> {
    /// Sends `request` with what `upload` brings, and the response by `respond`.
    ///
    /// # Errors
    /// With what the caller needs to answer or to try again.
    pub async fn run(
        &self,
        request: Request<()>,
        upload: &mut Upload,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Done, Fault> {
        let ended = upload.is_done();
        let mut sender = self.lease.sender();
        let ready =
            self.pace.timely(Wait::Request, poll_fn(|context| sender.poll_ready(context))).await;
        match ready {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(self.unsent(&error)),
            None => return Err(Fault::before(self.pace.stall_cause().into())),
        }
        let begun = sender.send_request(request, ended);
        let (response, mut stream) = begun.map_err(|error| self.unsent(&error))?;
        if ended {
            return self.reply(response, respond).await;
        }
        let stop = Notify::default();
        let client_fault = Cell::new(None);
        let (sent, reply) = {
            let sending = pin!(upload.run_http2(&mut stream, self.pace, &stop));
            let answering = pin!(self.reply(response, respond));
            race::both(sending, answering, |first| match first {
                Either::Left(Err(UploadFault::Client(failure))) => {
                    match failure.cause {
                        Cause::ClientReset => self.client_gone.set(true),
                        // The answer is late as well, and says so.
                        Cause::RequestTimeout => {}
                        _ => self.refused.set(true),
                    }
                    client_fault.set(Some(failure.clone()));
                }
                Either::Left(_) => {}
                // A success that came early is no reason to withhold the rest.
                Either::Right(Ok(done)) if done.status < 400 => {}
                Either::Right(_) => stop.notify(),
            })
            .await
        };
        if sent.is_err() {
            stream.send_reset(Reason::CANCEL);
        }
        match client_fault.take() {
            // Nobody knows whose fault it is that the time of the whole exchange is over.
            Some(failure) if failure.cause == Cause::RequestTimeout => reply.map_err(|fault| {
                let late = fault.failure.cause == Cause::UpstreamTimeout;
                Fault { failure: if late { fault.failure } else { failure }, ..fault }
            }),
            Some(failure) => reply.map_err(|fault| Fault { failure, unanswered: false, ..fault }),
            None => reply,
        }
    }

    /// The client has reset its stream, unless it was refused for what it sent.
    fn note_gone(&self) {
        if !self.refused.get() {
            self.client_gone.set(true);
        }
    }

    /// A request that did not get out.
    fn unsent(&self, error: &h2::Error) -> Fault {
        self.lease.leaves();
        let failure = Failure::with(Cause::UpstreamClosed, error);
        Fault { failure, started: false, unanswered: true }
    }

    async fn reply(
        &self,
        response: ResponseFuture,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Done, Fault> {
        let mut response = response;
        let mut interims = 0;
        let received = loop {
            let said = self.pace.timely(Wait::Response, self.next(&mut response, respond)).await;
            self.pace.moved();
            match said {
                Some(Said::Interim(interim)) => {
                    admit_interim(interim.status(), &mut interims).map_err(Fault::before)?;
                    let _ = respond.send_informational(interim);
                }
                Some(Said::Final(Ok(received))) => break received,
                Some(Said::Final(Err(error))) => return Err(self.broken(&error)),
                Some(Said::Gone) => {
                    self.note_gone();
                    return Err(Fault::before(Cause::ClientReset.into()));
                }
                None => return Err(Fault::before(self.pace.stall_cause().into())),
            }
        };
        self.first_byte_ns.set(now_ns());
        let (parts, mut body) = received.into_parts();
        let status = parts.status.as_u16();
        let head = translate::pass_on(parts, self.date, self.edits).map_err(Fault::before)?;
        let started = |failure| Fault { failure, started: true, unanswered: false };
        let ends = body.is_end_stream();
        if ends {
            self.grpc_status.set(grpc::Status::of_fields(head.headers()));
        }
        let sent = respond.send_response(head, ends);
        let gone = |error| started(Failure::with(Cause::ClientReset, error));
        let mut stream = sent.map_err(gone)?;
        if ends {
            return Ok(Done { status, reusable: true });
        }
        match self.relay(&mut body, &mut stream).await {
            Ok(()) => Ok(Done { status, reusable: true }),
            Err((fault, reason)) => {
                match &fault {
                    // A call can be told why in the middle, too, unless the endpoint has.
                    RelayFault::Upstream(failure)
                        if self.is_grpc && failure.cause != Cause::UpstreamReset =>
                    {
                        let _ = stream.send_trailers(grpc::failure_trailers(failure));
                    }
                    _ => stream.send_reset(reason),
                }
                Err(started(fault.into_failure()))
            }
        }
    }

    async fn next(&self, response: &mut ResponseFuture, respond: &mut SendResponse<Bytes>) -> Said {
        poll_fn(|context| {
            if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
                return Poll::Ready(Said::Interim(interim));
            }
            if let Poll::Ready(received) = Pin::new(&mut *response).poll(context) {
                return Poll::Ready(Said::Final(received));
            }
            if self.client_gone.get() || self.refused.get() {
                return Poll::Ready(Said::Gone);
            }
            respond.poll_reset(context).map(|_| Said::Gone)
        })
        .await
    }

    /// Why the endpoint did not answer.
    fn broken(&self, error: &h2::Error) -> Fault {
        let leaves = error.is_go_away() || error.is_io();
        if leaves {
            self.lease.leaves();
        }
        let unanswered = error.reason() == Some(Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR));
        let failure = Failure::with(broken_cause(error, Cause::UpstreamClosed), error);
        Fault { failure, started: false, unanswered }
    }

    /// Moves the body and its trailers.
    async fn relay(
        &self,
        body: &mut RecvStream,
        stream: &mut SendStream<Bytes>,
    ) -> Result<(), (RelayFault, Reason)> {
        loop {
            let next = poll_fn(|context| {
                if let Poll::Ready(data) = body.poll_data(context) {
                    return Poll::Ready(Some(data));
                }
                if self.refused.get() {
                    return Poll::Ready(None);
                }
                stream.poll_reset(context).map(|_| None)
            });
            let data = match self.pace.timely(Wait::Response, next).await {
                Some(Some(Some(Ok(data)))) => data,
                Some(Some(Some(Err(error)))) => return Err(upstream(&error)),
                Some(Some(None)) => break,
                Some(None) => {
                    self.note_gone();
                    return Err((RelayFault::Client(Cause::ClientReset.into()), Reason::CANCEL));
                }
                None => {
                    let failure = self.pace.stall_cause().into();
                    return Err((RelayFault::Upstream(failure), Reason::INTERNAL_ERROR));
                }
            };
            self.pace.moved();
            let (count, ends) = (data.len(), body.is_end_stream());
            let sent = send_frame(stream, data, ends, (self.pace, Wait::Response)).await;
            sent.map_err(|fault| (fault, Reason::CANCEL))?;
            // Fails only for a stream that is over.
            let _ = body.flow_control().release_capacity(count);
            if ends {
                return Ok(());
            }
        }
        let trailers =
            self.pace.timely(Wait::Response, poll_fn(|context| body.poll_trailers(context))).await;
        let trailers: Option<HeaderMap> = match trailers {
            Some(Ok(trailers)) => trailers.map(translate::clean_trailers),
            Some(Err(error)) => return Err(upstream(&error)),
            None => {
                let failure = self.pace.stall_cause().into();
                return Err((RelayFault::Upstream(failure), Reason::INTERNAL_ERROR));
            }
        };
        self.grpc_status.set(trailers.as_ref().and_then(grpc::Status::of_fields));
        let ended = match trailers {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        let gone = |error| RelayFault::Client(Failure::with(Cause::ClientReset, error));
        ended.map_err(|error| (gone(error), Reason::CANCEL))
    }
}

/// Counts an interim response, which goes on to the client without flow control.
///
/// # Errors
/// When there are too many, or it is one that HTTP/2 does not know (RFC 9113 section 8.6).
pub fn admit_interim(status: StatusCode, count: &mut u32) -> Result<(), Failure> {
    *count += 1;
    if status == StatusCode::SWITCHING_PROTOCOLS || *count > INTERIM_RESPONSES_MAX {
        return Err(Failure::with(Cause::UpstreamMalformed, "an interim response"));
    }
    Ok(())
}

/// A body that broke off: the client is told in the endpoint's words, unless these are about the
/// frames of that connection.
fn upstream(error: &h2::Error) -> (RelayFault, Reason) {
    // NO_ERROR would make what has come look whole (RFC 9113 section 8.1).
    let is_told = |reason: &Reason| *reason != Reason::NO_ERROR && !flood::is_provoked(*reason);
    let said = error.reason().filter(|reason| error.is_reset() && is_told(reason));
    let reason = said.unwrap_or(Reason::INTERNAL_ERROR);
    (RelayFault::Upstream(truncated(error)), reason)
}

/// Why a response did not come whole.
#[must_use]
pub fn truncated(error: &h2::Error) -> Failure {
    Failure::with(broken_cause(error, Cause::UpstreamTruncated), error)
}

/// The cause that `error` of an endpoint's stream is, `closed` if its connection ended.
#[must_use]
pub fn broken_cause(error: &h2::Error, closed: Cause) -> Cause {
    match error.get_io() {
        None => Cause::UpstreamReset,
        Some(error) if error.kind() == std::io::ErrorKind::TimedOut => Cause::UpstreamStalled,
        Some(_) => closed,
    }
}
