//! One request on an HTTP/2 connection, and its response.
//!
//! ```text
//! HEADERS ─▶ RequestHead ─▶ plan ─┬─▶ answer
//!                                 └─▶ upstream: head ─▶ upload ┐ both at once,
//!            SendStream ◀─ relay ◀── response head ◀───────────┘ while the client is there
//! ```
//!
//! # Invariants
//! - One final response is sent, or the stream is reset: never half of one that looks whole.
//! - Bytes are taken from the endpoint only for a window that is there, and the client's window
//!   opens only for bytes that the endpoint's connection has taken.
//! - A stream that the client resets gives its endpoint up at once.
//! - One outcome is recorded per stream, but for those that were given up before they began: of
//!   these only the cause is counted.
//!
//! # Not here
//! The connection: `server`. Moving bodies: `body`.

mod over_http2;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{Request, Response};
use ringway_router::{ListenerId, Mtls, Rule};
use ringway_stats::clock::now_ns;

use super::body::{Pace, Relay, RelayFault, send_bytes};
use super::server::Connection;
use super::upload::{Upload, UploadFault};
use super::{grpc, translate};
use crate::http1::answer;
use crate::http1::body::Body;
use crate::http1::compose::{Overflow, Persistence};
use crate::http1::plan::{self, Answered, Context as Planning, Forward, Plan, Refused};
use crate::http1::reply::receive_head;
use crate::http1::request::Fields;
use crate::http1::response;
use crate::io::deadlines::after;
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::io::socket::Socket;
use crate::limits::{HTTP2_SEND_STALL, INTERIM_RESPONSES_MAX};
use crate::outcome::{Cause, Failure};
use crate::recorder::Outcome;
use crate::sys::block::Block;
use crate::sys::reused::Reused;
use crate::upstream::{self, Want};
use crate::worker::Snapshot;

/// Serves a request.
pub async fn serve(
    connection: Rc<Connection>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let started_ns = now_ns();
    let mut respond = respond;
    // Given up before it has begun (CVE-2023-44487): its endpoint must not hear of it.
    if poll_fn(|context| Poll::Ready(respond.poll_reset(context).is_ready())).await {
        connection.worker.shard.record_cause(Cause::ClientReset);
        return;
    }
    let Some((snapshot, listener)) = connection.worker.table_for(connection.instance) else {
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    };
    let (parts, incoming) = request.into_parts();
    let is_grpc = grpc::is_grpc(&parts.headers);
    let exchange = Exchange {
        connection: &connection,
        snapshot,
        listener,
        started_ns,
        is_grpc,
        call_timeout: grpc::timeout(&parts.headers).filter(|_| is_grpc),
        sent_ns: Cell::new(0),
        first_byte_ns: Cell::new(0),
        attempts: Cell::new(0),
        endpoint: Cell::new(None),
        client_gone: Cell::new(false),
        grpc_status: Cell::new(None),
    };
    exchange.run(parts, incoming, respond).await;
}

struct Exchange<'a> {
    connection: &'a Connection,
    snapshot: Rc<Snapshot>,
    listener: ListenerId,
    started_ns: u64,
    is_grpc: bool,
    /// How long the caller gives the call.
    call_timeout: Option<Duration>,
    sent_ns: Cell<u64>,
    first_byte_ns: Cell<u64>,
    attempts: Cell<u32>,
    endpoint: Cell<Option<std::net::SocketAddr>>,
    client_gone: Cell<bool>,
    /// How the call has ended, as the endpoint says.
    grpc_status: Cell<Option<grpc::Status>>,
}

/// A response that went over whole.
pub struct Done {
    /// Its status.
    pub status: u16,
    /// Whether the upstream connection may serve another exchange.
    pub reusable: bool,
}

/// A response that did not.
pub struct Fault {
    /// Why.
    pub failure: Failure,
    /// Whether the client has seen the head of the final response.
    pub started: bool,
    /// Whether the endpoint has surely done nothing with the request, or, over HTTP/1.1, its
    /// connection ended without one byte.
    pub unanswered: bool,
}

impl Fault {
    /// One of which the client has seen nothing.
    #[must_use]
    pub fn before(failure: Failure) -> Self {
        Self { failure, started: false, unanswered: false }
    }
}

/// What a head of the endpoint leads to.
enum Step {
    Interim(Response<()>),
    Final { response: Response<()>, body: Body, reusable: bool },
}

impl Exchange<'_> {
    async fn run(&self, parts: Parts, incoming: RecvStream, respond: SendResponse<Bytes>) {
        let mut respond = respond;
        let ended = incoming.is_end_stream();
        let mut out = Block::small();
        let mut plan = self.decide(&parts, ended, &mut out);
        if plan.is_err() {
            out = Block::large();
            plan = self.decide(&parts, ended, &mut out);
        }
        match plan {
            Ok(Plan::Forward(forward)) => {
                // On its own: what only HTTP/1.1 needs is large.
                Reused::pin(|| self.forward(&forward, incoming, &mut respond, out)).await;
            }
            Ok(Plan::Stream(forward, head)) => {
                drop(out);
                self.forward_http2(forward, *head, parts.headers, incoming, &mut respond).await;
            }
            Ok(Plan::Answer(answered)) => {
                let to_head = parts.method == http::Method::HEAD;
                self.answer(&answered, to_head, &mut respond, &out).await;
            }
            Ok(Plan::Refuse(refused)) => self.refuse(&refused, &mut respond).await,
            Err(Overflow) => {
                self.refuse(&Refused::ending(Cause::HeadGrowth), &mut respond).await;
            }
        }
    }

    fn decide(&self, parts: &Parts, ended: bool, out: &mut Block) -> Result<Plan, Overflow> {
        let Connection { worker, peer, .. } = self.connection;
        let running = &self.snapshot.running;
        if running.table.listener(self.listener).mtls == Mtls::Strict && !peer.is_member() {
            // It came in before the listener became strict.
            return Ok(Plan::Refuse(Refused::ending(Cause::ClientPlaintext)));
        }
        let cookie = translate::joined_cookie(&parts.headers);
        let mut fields = Fields::new_const();
        let head = match translate::request_head(parts, cookie.as_deref(), ended, &mut fields) {
            Ok(head) => head,
            Err(fault) => {
                let failure = Failure::with(fault.cause(), fault);
                return Ok(Plan::Refuse(Refused::ending(failure)));
            }
        };
        let context = Planning {
            worker,
            running,
            listener: self.listener,
            peer,
            closing: false,
            behind: b"",
            uri: Some(&parts.uri),
        };
        plan::decide(&context, &head, out)
    }

    fn rule(&self, forward: &Forward) -> &Rule {
        self.snapshot.running.table.rule(forward.rule)
    }

    /// Sends an answer that planning wrote.
    async fn answer(
        &self,
        answered: &Answered,
        to_head: bool,
        respond: &mut SendResponse<Bytes>,
        out: &Block,
    ) {
        let sent = match translate::answer(out.data(), to_head) {
            Ok((response, body)) => self.send(respond, response, &out.data()[body..]).await,
            Err(failure) => {
                self.log(&failure);
                respond.send_reset(Reason::INTERNAL_ERROR);
                Err(failure.cause)
            }
        };
        self.record(answered.route_series, None, answered.status, sent.err());
    }

    async fn refuse(&self, refused: &Refused, respond: &mut SendResponse<Bytes>) {
        self.log(&refused.failure);
        self.send_failure(&refused.failure, refused.to_head, respond).await;
        let cause = refused.failure.cause;
        self.record(refused.route_series, None, cause.status(), Some(cause));
    }

    /// Tells the client of a failure, in the words of its protocol.
    async fn send_failure(
        &self,
        failure: &Failure,
        to_head: bool,
        respond: &mut SendResponse<Bytes>,
    ) {
        if self.is_grpc {
            let _ = respond.send_response(grpc::failure(failure), true);
            return;
        }
        let date = self.connection.worker.date.now();
        let mut out = Block::small();
        let written = answer::write_failure(failure, to_head, Persistence::Open, &date, &mut out);
        let translated = written.ok().and_then(|()| translate::answer(out.data(), to_head).ok());
        match translated {
            Some((response, body)) => {
                let _ = self.send(respond, response, &out.data()[body..]).await;
            }
            None => respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Sends a response that is at hand.
    async fn send(
        &self,
        respond: &mut SendResponse<Bytes>,
        response: Response<()>,
        body: &[u8],
    ) -> Result<(), Cause> {
        let sent = respond.send_response(response, body.is_empty());
        let mut stream = sent.map_err(|_| Cause::ClientReset)?;
        if body.is_empty() {
            return Ok(());
        }
        let pace = self.connection.pace(HTTP2_SEND_STALL, u64::MAX);
        send_bytes(&mut stream, body, true, &pace).await.map_err(|fault| fault.cause())
    }

    fn log(&self, failure: &Failure) {
        tracing::debug!(
            cause = failure.cause.label(),
            peer = %self.connection.peer.address,
            table = %self.snapshot.running.table.hash().short(),
            "{failure}"
        );
    }

    /// How a call has ended.
    fn call_status(&self, cause: Option<Cause>) -> grpc::Status {
        match cause {
            Some(cause) => grpc::Status::of_cause(cause),
            None => self.grpc_status.get().unwrap_or(grpc::Status::NONE),
        }
    }

    fn record(&self, route: u32, cluster: Option<u32>, status: u16, cause: Option<Cause>) {
        let upstream_ns = self.first_byte_ns.get().saturating_sub(self.sent_ns.get());
        self.connection.worker.shard.record(&Outcome {
            route,
            cluster,
            endpoint: self.endpoint.get(),
            status,
            cause,
            total_ns: now_ns().saturating_sub(self.started_ns),
            upstream_ns: if self.first_byte_ns.get() == 0 { 0 } else { upstream_ns },
            attempts: self.attempts.get(),
            grpc: self.is_grpc.then(|| self.call_status(cause)),
        });
    }

    /// Sends the request to its cluster and the response to the client.
    async fn forward(
        &self,
        forward: &Forward,
        incoming: RecvStream,
        respond: &mut SendResponse<Bytes>,
        out: Block,
    ) {
        let mut out = out;
        let rule = self.rule(forward);
        let deadline_ns = self.deadline_ns(forward);
        let pace = self.connection.pace(rule.idle_timeout(), deadline_ns);
        let most = rule.max_request_body().unwrap_or(u64::MAX);
        let mut upload = Upload::new(incoming, &forward.body, most);
        if let Err(fault) = upload.take_ready(&mut out) {
            return self.fail(forward, &fault.failure(), respond).await;
        }
        let complete = upload.is_done();
        let mut want = Want::Any;
        loop {
            let (Connection { worker, peer, .. }, snapshot) = (self.connection, &self.snapshot);
            let acquired =
                upstream::acquire(worker, snapshot, forward.cluster, peer, want, deadline_ns);
            let upstream = match acquired.await {
                Ok(upstream) => upstream,
                Err(failure) => return self.fail(forward, &failure, respond).await,
            };
            self.attempts.set(self.attempts.get() + 1);
            self.endpoint.set(Some(upstream.address()));
            let window = out.window();
            self.sent_ns.set(now_ns());
            let (sent, block) = upstream.socket().send_until(out, pace.due_ns()).await;
            out = block;
            let untouched = sent.is_err() && out.window() == window;
            let result =
                self.attempt(forward, upstream.socket(), &mut upload, respond, &pace).await;
            match result {
                Ok(done) => {
                    let cluster = Some(forward.cluster_series);
                    self.record(forward.route_series, cluster, done.status, None);
                    if done.reusable && upload.is_done() {
                        upstream.give_back();
                    }
                    return;
                }
                Err(fault)
                    if self.may_repeat(&fault, want)
                        && upstream.reused()
                        && complete
                        && (untouched || forward.idempotent) =>
                {
                    self.connection.worker.shard.retries.increment();
                    want = Want::Fresh;
                    out.restore(window);
                }
                Err(fault) => {
                    drop(upstream);
                    return self.give_up(forward, fault, respond).await;
                }
            }
        }
    }

    /// Whether a request of which nothing came back may be sent once more.
    fn may_repeat(&self, fault: &Fault, want: Want) -> bool {
        fault.unanswered && want != Want::Fresh && !self.client_gone.get()
    }

    /// When the rule's timeout ends the exchange, or the caller's.
    fn deadline_ns(&self, forward: &Forward) -> u64 {
        let timeouts = [self.rule(forward).timeout(), self.call_timeout];
        timeouts
            .iter()
            .flatten()
            .map(|timeout| after(self.started_ns, *timeout))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// One try on one connection, whose head is on its way.
    async fn attempt(
        &self,
        forward: &Forward,
        up: &Socket,
        upload: &mut Upload,
        respond: &mut SendResponse<Bytes>,
        pace: &Pace,
    ) -> Result<Done, Fault> {
        if upload.is_done() {
            return self.reply(forward, up, respond, pace).await;
        }
        let stop = Notify::default();
        let uploaded = Cell::new(false);
        let client_fault = Cell::new(None);
        let (_, reply) = {
            let sending = pin!(async {
                let sent = upload.run(up, pace, &stop).await;
                uploaded.set(sent.is_ok());
                sent
            });
            let answering = pin!(self.reply(forward, up, respond, pace));
            race::both(sending, answering, |first| match first {
                Either::Left(Err(UploadFault::Client(failure))) => {
                    client_fault.set(Some(failure.clone()));
                    up.shutdown();
                }
                // The endpoint takes no more: it may have answered.
                Either::Left(_) => {}
                // A success that came early is no reason to withhold the rest.
                Either::Right(Ok(done)) if done.status < 400 && done.reusable => {}
                Either::Right(_) => {
                    stop.notify();
                    up.shutdown();
                }
            })
            .await
        };
        let reply = reply.map(|done| Done { reusable: done.reusable && uploaded.get(), ..done });
        match client_fault.take() {
            Some(failure) => reply.map_err(|fault| Fault { failure, unanswered: false, ..fault }),
            None => reply,
        }
    }

    /// Receives the response and sends it on.
    async fn reply(
        &self,
        forward: &Forward,
        up: &Socket,
        respond: &mut SendResponse<Bytes>,
        pace: &Pace,
    ) -> Result<Done, Fault> {
        let mut block = Block::small();
        for _ in 0..=INTERIM_RESPONSES_MAX {
            let received = receive_head(up, block, || pace.due_ns(), &self.first_byte_ns);
            let gone = |context: &mut Context<'_>| respond.poll_reset(context).map(drop);
            let received = self.or_gone(received, gone, up).await;
            let (filled, end) = received.map_err(|(failure, unanswered)| {
                let failure = self.of_the_client(failure);
                Fault { failure, started: false, unanswered }
            })?;
            block = filled;
            pace.moved();
            let step = self.step(&block.data()[..end], forward).map_err(Fault::before)?;
            block.consume(end);
            match step {
                Step::Interim(response) => {
                    // A client that is gone is noticed at the next wait.
                    let _ = respond.send_informational(response);
                }
                Step::Final { response, body, reusable } => {
                    return self.relay(respond, response, body, reusable, (up, block), pace).await;
                }
            }
        }
        let detail = "too many interim responses";
        Err(Fault::before(Failure::with(Cause::UpstreamMalformed, detail)))
    }

    fn step(&self, head: &[u8], forward: &Forward) -> Result<Step, Failure> {
        let malformed =
            |detail: &dyn std::fmt::Display| Failure::with(Cause::UpstreamMalformed, detail);
        let mut fields = Fields::new_const();
        let head = response::parse(head, &mut fields, forward.to_head)
            .map_err(|fault| malformed(&fault))?;
        if head.status == 101 {
            return Err(malformed(&"101 without being asked"));
        }
        let date = self.connection.worker.date.now();
        if head.status < 200 {
            let edits = ringway_router::HeaderEdits::default();
            return Ok(Step::Interim(translate::response(&head, &date, &edits)?));
        }
        let edits = self.rule(forward).response_headers();
        let response = translate::response(&head, &date, edits)?;
        Ok(Step::Final { response, body: head.body, reusable: head.keep_alive })
    }

    async fn relay(
        &self,
        respond: &mut SendResponse<Bytes>,
        response: Response<()>,
        body: Body,
        reusable: bool,
        (up, block): (&Socket, Block),
        pace: &Pace,
    ) -> Result<Done, Fault> {
        let status = response.status().as_u16();
        let started = |failure| Fault { failure, started: true, unanswered: false };
        let sent = respond.send_response(response, body.is_done());
        let mut stream = sent.map_err(|error| started(Failure::with(Cause::ClientReset, error)))?;
        if body.is_done() {
            return Ok(Done { status, reusable: reusable && block.is_empty() });
        }
        let shard = &self.connection.worker.shard;
        let relay = Relay { up, pace, shard, gone: &self.client_gone };
        match relay.run(body, block, &mut stream).await {
            // Bytes behind the response answer nothing that was asked.
            Ok(clean) => Ok(Done { status, reusable: reusable && clean }),
            Err(fault) => {
                let reason = match &fault {
                    RelayFault::Client(_) => Reason::CANCEL,
                    RelayFault::Upstream(_) => Reason::INTERNAL_ERROR,
                };
                stream.send_reset(reason);
                Err(started(self.of_the_client(fault.into_failure())))
            }
        }
    }

    /// Awaits `work` on the endpoint's connection, and gives that up when the client resets the
    /// stream, which `reset` tells.
    async fn or_gone<T>(
        &self,
        work: impl Future<Output = T>,
        mut reset: impl FnMut(&mut Context<'_>) -> Poll<()>,
        up: &Socket,
    ) -> T {
        let mut work = pin!(work);
        match race::first(work.as_mut(), pin!(poll_fn(|context| reset(context)))).await {
            Either::Left(done) => done,
            Either::Right(()) => {
                self.client_gone.set(true);
                up.shutdown();
                work.await
            }
        }
    }

    /// What went wrong after the client had gone is the client's doing.
    fn of_the_client(&self, failure: Failure) -> Failure {
        if self.client_gone.get() { Cause::ClientReset.into() } else { failure }
    }

    /// Ends a stream whose client has seen nothing.
    async fn fail(&self, forward: &Forward, failure: &Failure, respond: &mut SendResponse<Bytes>) {
        self.log(failure);
        self.send_failure(failure, forward.to_head, respond).await;
        let cluster = Some(forward.cluster_series);
        let status = failure.cause.status();
        self.record(forward.route_series, cluster, status, Some(failure.cause));
    }

    async fn give_up(&self, forward: &Forward, fault: Fault, respond: &mut SendResponse<Bytes>) {
        let failure = self.of_the_client(fault.failure);
        if !fault.started && !self.client_gone.get() {
            return self.fail(forward, &failure, respond).await;
        }
        self.log(&failure);
        let cluster = Some(forward.cluster_series);
        let status = failure.cause.status();
        self.record(forward.route_series, cluster, status, Some(failure.cause));
    }
}
