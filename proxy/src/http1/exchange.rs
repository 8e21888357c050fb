//! One request and its response.
//!
//! ```text
//!  plan ─▶ acquire ─▶ send head and body ─▶ await response head ─▶ send it ─▶ relay body ─▶ record
//!             ▲               │ a reused connection closed without a byte
//!             └── once more ──┘
//! ```
//! A request whose body has come with its head is sent in one piece, and the response awaited. A
//! longer one is uploaded while the response is awaited, because either may end first.
//!
//! # Invariants
//! - The client gets one final response or a broken connection, never half of one that looks whole.
//! - A request is sent twice only if the first connection was used before, closed without one byte
//!   of response, and a second time does no harm.
//! - One outcome is recorded per exchange.

mod over_http2;

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;

use ringway_router::Mtls;
use ringway_stats::clock::now_ns;

use super::answer;
use super::chunked::ChunkFault;
use super::compose::Persistence;
use super::connection::Connection;
use super::plan::{self, Answered, Context, Forward, Plan, Refused};
use super::relay::{Coding, Relay, RelayFault, Side};
use super::reply::{Reply, ReplyEnd, ReplyFault};
use crate::io::deadlines::after;
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::io::resting::Glimpse;
use crate::io::socket::Socket;
use crate::limits::{ABORT_WATCH_DELAY, LINGER_TIME};
use crate::outcome::{Cause, Failure};
use crate::recorder::Outcome;
use crate::sys::block::Block;
use crate::tls::handshake::Side as TlsSide;
use crate::tunnel;
use crate::upstream::{self, Upstream, Want};
use crate::worker::Snapshot;

/// How the client's connection goes on.
pub enum Flow {
    /// With the next request, of which the block may hold the first bytes.
    Next(Block),
    /// Not at all.
    Close,
}

/// Serves the request whose head is `input[head]`.
pub async fn run(connection: &Connection, input: Block, head: Range<usize>) -> Flow {
    let started_ns = now_ns();
    let worker = &connection.worker;
    let Some((snapshot, listener)) = worker.table_for(connection.instance) else {
        return Flow::Close;
    };
    let mut input = input;
    if snapshot.running.table.listener(listener).mtls == Mtls::Strict
        && !connection.peer.is_member()
    {
        // It came in before the listener became strict.
        input.consume(head.end);
        let refused = Refused::ending(Cause::ClientPlaintext);
        let exchange = Exchange { connection, snapshot, started_ns, progress: Progress::default() };
        return exchange.refuse(refused, input).await;
    }
    let mut out = Block::small();
    let decide = |out: &mut Block| {
        let context = Context {
            worker,
            running: &snapshot.running,
            listener,
            peer: &connection.peer,
            closing: connection.closing(),
            behind: &input.data()[head.end..],
            uri: None,
        };
        plan::plan(&context, &input.data()[head.clone()], out)
    };
    let mut plan = decide(&mut out);
    if plan.is_err() {
        out = Block::large();
        plan = decide(&mut out);
    }
    input.consume(head.end);
    let exchange = Exchange { connection, snapshot, started_ns, progress: Progress::default() };
    match plan {
        Ok(Plan::Forward(forward)) => exchange.forward(forward, input, out).await,
        Ok(Plan::Stream(forward, head)) => {
            drop(out);
            // On the heap: its state is large.
            Box::pin(exchange.forward_http2(forward, *head, input)).await
        }
        Ok(Plan::Answer(answered)) => exchange.answer(answered, input, out).await,
        Ok(Plan::Refuse(refused)) => exchange.refuse(refused, input).await,
        Err(_) => exchange.refuse(Refused::ending(Cause::HeadGrowth), input).await,
    }
}

/// What is known of an exchange as it goes; the outcome is made of it.
#[derive(Debug, Default)]
struct Progress {
    attempts: Cell<u32>,
    sent_ns: Cell<u64>,
    upstream_ns: Cell<u64>,
    endpoint: Cell<Option<std::net::SocketAddr>>,
    /// The kernel reports a reset once: whoever sees it says so here.
    client_gone: Cell<bool>,
}

struct Exchange<'a> {
    connection: &'a Connection,
    snapshot: Rc<Snapshot>,
    started_ns: u64,
    progress: Progress,
}

/// What became of one attempt on one connection.
enum Attempt {
    /// The exchange is over.
    Over(Flow),
    /// The connection closed without a byte; the request can be sent again from the block.
    Unanswered { failure: Failure, out: Block, input: Block },
}

impl Exchange<'_> {
    /// Sends an answer that planning wrote.
    async fn answer(&self, answered: Answered, input: Block, out: Block) -> Flow {
        let due_ns = after(now_ns(), self.patience());
        let (sent, _) = self.connection.socket.send_until(out, due_ns).await;
        let cause = sent.is_err().then_some(Cause::ClientClosed);
        self.record(answered.route_series, None, answered.status, cause);
        let keep = sent.is_ok() && answered.persistence != Persistence::Close;
        self.go_on(keep, answered.body_bytes, input).await
    }

    /// Goes on with the next request, past a body that nobody asked for, or ends.
    async fn go_on(&self, keep_alive: bool, body_bytes: usize, input: Block) -> Flow {
        let mut input = input;
        if keep_alive {
            input.consume(body_bytes);
            return Flow::Next(input);
        }
        drop(input);
        self.connection.socket.linger().await;
        Flow::Close
    }

    /// Answers a request that failed before it went anywhere.
    async fn refuse(&self, refused: Refused, input: Block) -> Flow {
        let Refused { route_series, failure, to_head, persistence, body_bytes } = refused;
        let cause = failure.cause;
        self.log(&failure);
        let sent = self.send_failure(&failure, to_head, persistence).await;
        self.record(route_series, None, cause.status(), Some(cause));
        self.go_on(sent && persistence != Persistence::Close, body_bytes, input).await
    }

    async fn send_failure(
        &self,
        failure: &Failure,
        to_head: bool,
        persistence: Persistence,
    ) -> bool {
        let worker = &self.connection.worker;
        let date = worker.date.now();
        let mut out = Block::small();
        if answer::write_failure(failure, to_head, persistence, &date, &mut out).is_err() {
            return false;
        }
        let due_ns = after(now_ns(), self.patience());
        self.connection.socket.send_until(out, due_ns).await.0.is_ok()
    }

    /// How long the client may take to read an answer of ours.
    fn patience(&self) -> std::time::Duration {
        LINGER_TIME
    }

    fn log(&self, failure: &Failure) {
        tracing::debug!(
            cause = failure.cause.label(),
            peer = %self.connection.peer.address,
            table = %self.snapshot.running.table.hash().short(),
            "{failure}"
        );
    }

    fn record(&self, route: u32, cluster: Option<u32>, status: u16, cause: Option<Cause>) {
        self.connection.worker.shard.record(&Outcome {
            route,
            cluster,
            endpoint: self.progress.endpoint.get(),
            status,
            cause,
            total_ns: now_ns().saturating_sub(self.started_ns),
            upstream_ns: self.progress.upstream_ns.get(),
            attempts: self.progress.attempts.get(),
            grpc: None,
        });
    }

    /// Sends the request to its cluster and the response to the client.
    async fn forward(&self, forward: Forward, input: Block, out: Block) -> Flow {
        let mut forward = forward;
        let mut input = input;
        let mut out = out;
        // What has come of the body goes out with the head.
        let window = input.len().min(out.spare());
        match forward.body.take(&input.data()[..window]) {
            Ok(taken) => {
                let fits = out.push(&input.data()[..taken]);
                debug_assert!(fits, "the window was measured");
                input.consume(taken);
            }
            Err(fault) => {
                let failure = Failure::with(chunk_cause(fault), fault);
                return self.fail(&forward, &failure, None).await;
            }
        }
        let complete = forward.body.is_done();
        let mut want = Want::Any;
        loop {
            let acquired = upstream::acquire(
                &self.connection.worker,
                &self.snapshot,
                forward.cluster,
                &self.connection.peer,
                want,
                self.deadline_ns(&forward),
            );
            let upstream = match acquired.await {
                Ok(upstream) => upstream,
                Err(failure) => {
                    let rest = complete.then_some(input);
                    return self.fail(&forward, &failure, rest).await;
                }
            };
            self.progress.attempts.set(self.progress.attempts.get() + 1);
            self.progress.endpoint.set(Some(upstream.address()));
            let attempt = if complete {
                self.ask(&forward, upstream, input, out).await
            } else {
                // On the heap: uploads are rare, and their state is large.
                Attempt::Over(Box::pin(self.upload(&forward, upstream, input, out)).await)
            };
            match attempt {
                Attempt::Over(flow) => return flow,
                Attempt::Unanswered { out: again, input: rest, .. } if want != Want::Fresh => {
                    self.connection.worker.shard.retries.increment();
                    want = Want::Fresh;
                    (out, input) = (again, rest);
                }
                Attempt::Unanswered { failure, input, .. } => {
                    return self.fail(&forward, &failure, Some(input)).await;
                }
            }
        }
    }

    /// Ends an exchange of which the client has seen nothing. `rest` is what came behind the
    /// request, if that came whole: then the connection is as good as before.
    async fn fail(&self, forward: &Forward, failure: &Failure, rest: Option<Block>) -> Flow {
        self.log(failure);
        let keep = forward.keep_alive && rest.is_some() && !self.connection.closing();
        let persistence = Persistence::of(keep, forward.is_http10);
        let sent = self.send_failure(failure, forward.to_head, persistence).await;
        let status = failure.cause.status();
        let cluster = Some(forward.cluster_series);
        self.record(forward.route_series, cluster, status, Some(failure.cause));
        match rest.filter(|_| sent && keep) {
            Some(rest) => Flow::Next(rest),
            None => {
                self.connection.socket.linger().await;
                Flow::Close
            }
        }
    }

    /// An exchange whose request is complete in `out`.
    async fn ask(
        &self,
        forward: &Forward,
        upstream: Upstream,
        input: Block,
        out: Block,
    ) -> Attempt {
        let down = &self.connection.socket;
        let reply = self.reply(forward, &upstream);
        let window = out.window();
        self.progress.sent_ns.set(now_ns());
        let (sent, mut out) = upstream.socket().send_until(out, reply.due_ns()).await;
        let harmless = match &sent {
            Ok(()) => forward.idempotent,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let failure = Failure::new(stall_cause(reply.deadline_ns));
                drop(upstream);
                return Attempt::Over(self.give_up(forward, failure, false, Some(input)).await);
            }
            // An endpoint that stops reading may have answered already: its word counts.
            Err(_) => forward.idempotent || out.window() == window,
        };
        // With nothing pipelined the block is free, and its memory warm.
        let (block, mut rest) =
            if input.is_empty() { (input, None) } else { (Block::small(), Some(input)) };
        out.clear();
        let uploaded = Cell::new(true);
        let received = {
            let received = pin!(reply.run(block, out, &uploaded));
            let gone = pin!(client_gone(down));
            self.watched(received, upstream.socket(), gone).await
        };
        match received {
            Ok(end) => {
                self.replied(&reply);
                let block = rest.take();
                Attempt::Over(self.finish(forward, upstream, end, block, true).await)
            }
            Err(ReplyFault { failure, started: false, unanswered: true, out })
                if upstream.reused() && harmless && !self.client_is_gone() =>
            {
                let mut out = out;
                out.restore(window);
                let input = rest.take().unwrap_or_else(Block::small);
                Attempt::Unanswered { failure, out, input }
            }
            Err(fault) => {
                self.replied(&reply);
                drop(upstream);
                let rest = rest.take().unwrap_or_else(Block::small);
                let ReplyFault { failure, started, .. } = fault;
                Attempt::Over(self.give_up(forward, failure, started, Some(rest)).await)
            }
        }
    }

    fn reply<'r>(&'r self, forward: &'r Forward, upstream: &'r Upstream) -> Reply<'r> {
        let rule = self.snapshot.running.table.rule(forward.rule);
        Reply {
            worker: &self.connection.worker,
            down: &self.connection.socket,
            up: upstream.socket(),
            forward,
            closing: self.connection.closing(),
            edits: rule.response_headers(),
            idle: rule.idle_timeout(),
            deadline_ns: self.deadline_ns(forward),
            first_byte_ns: Cell::new(0),
        }
    }

    /// When the rule's timeout ends the exchange.
    fn deadline_ns(&self, forward: &Forward) -> u64 {
        let timeout = self.snapshot.running.table.rule(forward.rule).timeout();
        timeout.map_or(u64::MAX, |timeout| after(self.started_ns, timeout))
    }

    fn replied(&self, reply: &Reply<'_>) {
        let first = reply.first_byte_ns.get();
        self.progress.upstream_ns.set(first.saturating_sub(self.progress.sent_ns.get()));
    }

    /// Awaits a response, and gives the upstream up when the client resets its connection, which
    /// ends `gone`: there is nobody left to answer.
    async fn watched<T>(
        &self,
        mut reply: Pin<&mut impl Future<Output = T>>,
        up: &Socket,
        gone: Pin<&mut impl Future<Output = ()>>,
    ) -> T {
        match race::first(reply.as_mut(), gone).await {
            Either::Left(end) => end,
            Either::Right(()) => {
                self.progress.client_gone.set(true);
                up.shutdown();
                reply.await
            }
        }
    }

    /// Whether the client has reset its connection.
    fn client_is_gone(&self) -> bool {
        let gone = &self.progress.client_gone;
        gone.set(gone.get() || self.connection.socket.glimpse() == Glimpse::Broken);
        gone.get()
    }

    /// What it is that the client is gone.
    fn client_failure(&self) -> Failure {
        let reset = io::ErrorKind::ConnectionReset.into();
        Failure::of_io(TlsSide::Downstream, &self.connection.socket.cause_of(reset))
    }

    /// Ends an exchange that failed after the request was sent. `rest` as for [`Self::fail`].
    async fn give_up(
        &self,
        forward: &Forward,
        failure: Failure,
        started: bool,
        rest: Option<Block>,
    ) -> Flow {
        let gone = self.client_is_gone();
        let failure = if gone { self.client_failure() } else { failure };
        if !started && !gone {
            return self.fail(forward, &failure, rest).await;
        }
        self.log(&failure);
        let cluster = Some(forward.cluster_series);
        self.record(forward.route_series, cluster, failure.cause.status(), Some(failure.cause));
        // Part of a response is out. Only RST says for sure that it is not all.
        self.connection.socket.abort();
        Flow::Close
    }

    /// Ends an exchange whose response went over whole.
    async fn finish(
        &self,
        forward: &Forward,
        upstream: Upstream,
        end: ReplyEnd,
        input: Option<Block>,
        uploaded: bool,
    ) -> Flow {
        let cluster = Some(forward.cluster_series);
        if let Some(late) = end.upgraded {
            let early = input.unwrap_or_else(Block::small);
            let rule = self.snapshot.running.table.rule(forward.rule);
            let idle = rule.idle_timeout();
            let shard = &self.connection.worker.shard;
            let carried =
                tunnel::run(&self.connection.socket, upstream.socket(), early, late, idle, shard);
            let cause = Box::pin(carried).await.err();
            shard.tunnels.increment();
            self.record(forward.route_series, cluster, 101, cause);
            return Flow::Close;
        }
        self.record(forward.route_series, cluster, end.status, None);
        if end.reusable && uploaded {
            upstream.give_back();
        } else {
            drop(upstream);
        }
        if end.keep_alive && uploaded {
            return Flow::Next(input.unwrap_or(end.block));
        }
        self.connection.socket.linger().await;
        Flow::Close
    }

    /// An exchange whose request body is still coming.
    async fn upload(
        &self,
        forward: &Forward,
        upstream: Upstream,
        input: Block,
        out: Block,
    ) -> Flow {
        let reply = self.reply(forward, &upstream);
        let down = &self.connection.socket;
        let uploaded = Cell::new(false);
        let stop = Cell::new(false);
        let fault = RefCell::new(None);
        let whole = Notify::default();
        self.progress.sent_ns.set(now_ns());
        let sending = async {
            let sent = self.send_request(forward, &reply, input, out, (&stop, &uploaded)).await;
            if sent.is_ok() {
                uploaded.set(true);
                whole.notify();
            }
            sent
        };
        let (sent, answered) = {
            let gone = pin!(async {
                whole.wait().await;
                client_gone(down).await;
            });
            let answering = pin!(reply.run(Block::small(), Block::small(), &uploaded));
            let answering = self.watched(answering, reply.up, gone);
            race::both(pin!(sending), pin!(answering), |first| match first {
                Either::Left(Err(relay)) => {
                    if let Some(failure) = upload_failure(relay, reply.deadline_ns) {
                        *fault.borrow_mut() = Some(failure);
                        reply.up.shutdown();
                    }
                }
                Either::Left(Ok(_)) => {}
                // A success that came early, such as 202, is no reason to withhold the rest.
                Either::Right(Ok(end)) if end.status < 400 && end.reusable => {
                    reply.up.receiving().clear();
                }
                Either::Right(_) => {
                    // The endpoint has said all it will: the rest of the body is of no use.
                    stop.set(true);
                    reply.up.shutdown();
                    down.receiving().end();
                }
            })
            .await
        };
        down.receiving().clear();
        self.replied(&reply);
        match answered {
            Ok(end) => self.finish(forward, upstream, end, sent.ok(), uploaded.get()).await,
            Err(answer) => {
                let waited_for_client = matches!(sent, Err(RelayFault::Stopped(Side::Source)));
                let failure = match fault.into_inner() {
                    Some(failure) => failure,
                    // Both directions ran out of time, and it was the client that held it up.
                    None if answer.failure.cause == Cause::UpstreamTimeout && waited_for_client => {
                        Cause::RequestTimeout.into()
                    }
                    None => answer.failure,
                };
                drop(upstream);
                self.give_up(forward, failure, answer.started, sent.ok()).await
            }
        }
    }

    /// Sends the head and what follows it. Returns what came behind the request.
    async fn send_request(
        &self,
        forward: &Forward,
        reply: &Reply<'_>,
        input: Block,
        out: Block,
        (stop, uploaded): (&Cell<bool>, &Cell<bool>),
    ) -> Result<Block, RelayFault> {
        let relay = Relay {
            source: &self.connection.socket,
            sink: reply.up,
            coding: Coding::AsIs,
            idle: reply.idle,
            deadline_ns: reply.deadline_ns,
            stop,
            uploaded,
            shard: &self.connection.worker.shard,
            wrapped: Cell::new(false),
        };
        relay.send(out).await?;
        let mut body = forward.body;
        relay.run(&mut body, input).await
    }
}

/// The failure of an exchange whose upload broke; `None` when the endpoint broke it, which may
/// have answered before.
fn upload_failure(fault: &RelayFault, deadline_ns: u64) -> Option<Failure> {
    let cause = match fault {
        RelayFault::Truncated => Cause::ClientClosed,
        RelayFault::Source(error) => Cause::of_io(TlsSide::Downstream, error),
        RelayFault::Chunk(fault) => chunk_cause(*fault),
        RelayFault::Trailers => Cause::RequestMalformed,
        RelayFault::Stalled(Side::Source) => Cause::RequestTimeout,
        RelayFault::Stalled(Side::Sink) => stall_cause(deadline_ns),
        RelayFault::Sink(_) | RelayFault::Stopped(_) => return None,
    };
    Some(Failure::with(cause, fault))
}

fn chunk_cause(fault: ChunkFault) -> Cause {
    match fault {
        ChunkFault::TooLarge => Cause::RequestBodyTooLarge,
        ChunkFault::Size
        | ChunkFault::Extension
        | ChunkFault::ExtensionsTooLong
        | ChunkFault::DataEnd => Cause::RequestMalformed,
    }
}

/// Why an endpoint that takes nothing any more is given up.
fn stall_cause(deadline_ns: u64) -> Cause {
    if now_ns() >= deadline_ns { Cause::UpstreamTimeout } else { Cause::UpstreamStalled }
}

/// Waits until the client resets its connection. A client that merely finishes sending still
/// wants its answer (RFC 9112 section 9.6).
async fn client_gone(down: &Socket) {
    down.receiving().wait_until(after(now_ns(), ABORT_WATCH_DELAY)).await;
    loop {
        if down.wire_readable().await.is_err() {
            return;
        }
        match down.glimpse() {
            Glimpse::Broken => return,
            // Nothing more can be learnt without taking bytes.
            Glimpse::Bytes | Glimpse::End => std::future::pending::<()>().await,
            Glimpse::Nothing => {}
        }
    }
}
