//! From a request head to a decision: refuse, answer here, or forward. No await in it.
//!
//! # Invariants
//! - One normal form of the path serves routing and forwarding; what cannot be normalised is
//!   refused.
//! - When the decision is to forward, the head for the upstream is complete.
//! - Nothing is allocated on the way to a request that is forwarded as HTTP/1.1.

use std::net::IpAddr;

use http::Uri;
use ringway_router::{
    Action, Backends, ClusterId, ClusterProtocol, Listener, ListenerId, Normalised, Redirect,
    RequestKey, Respond, Rewrite, Rule, RuleId, Target, normalise_path,
};

use super::answer::{self, Answer};
use super::body::Body;
use super::compose::{self, Certificate, Hop, Line, Overflow, Persistence};
use super::fields;
use super::request::{self, Fields, RequestHead};
use crate::connection::Peer;
use crate::http2::head::{Composed, StreamHead};
use crate::outcome::{Cause, Failure};
use crate::shared::Running;
use crate::sys::block::Block;
use crate::worker::{Scratch, Worker};

/// What will be done with a request.
pub enum Plan {
    /// It goes to a cluster; its head is in the block.
    Forward(Forward),
    /// It goes to a cluster of HTTP/2.
    Stream(Forward, Box<Composed>),
    /// It is answered here; the answer is in the block.
    Answer(Answered),
    /// It failed; the answer is still to be written.
    Refuse(Refused),
}

/// A request on its way to a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    /// The rule that matched.
    pub rule: RuleId,
    /// Series of its route.
    pub route_series: u32,
    /// The cluster that the rule's weights picked.
    pub cluster: ClusterId,
    /// Series of the cluster.
    pub cluster_series: u32,
    /// The body, of which nothing has been taken yet.
    pub body: Body,
    /// Whether it asks for a head only.
    pub to_head: bool,
    /// Whether sending it twice does no harm (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Whether the client speaks HTTP/1.0.
    pub is_http10: bool,
    /// Whether the client's connection may serve another request.
    pub keep_alive: bool,
    /// Whether it asks to switch protocols.
    pub upgrade: bool,
}

/// A request that was answered here.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Series of its route.
    pub route_series: u32,
    /// The status.
    pub status: u16,
    /// How the connection goes on, as the client was told.
    pub persistence: Persistence,
    /// Bytes behind the head that are the request's body; all of it unless the connection closes.
    pub body_bytes: usize,
}

/// A request that failed before it went anywhere.
#[derive(Debug)]
pub struct Refused {
    /// Series of its route, 0 when it matched none.
    pub route_series: u32,
    /// Why.
    pub failure: Failure,
    /// Whether it asks for a head only.
    pub to_head: bool,
    /// How the connection goes on, as the client will be told.
    pub persistence: Persistence,
    /// Bytes behind the head that are the request's body; all of it unless the connection closes.
    pub body_bytes: usize,
}

impl Refused {
    /// A request after which the connection is of no more use, and of which nothing more is known.
    #[must_use]
    pub fn ending(failure: impl Into<Failure>) -> Self {
        Self {
            route_series: 0,
            failure: failure.into(),
            to_head: false,
            persistence: Persistence::Close,
            body_bytes: 0,
        }
    }
}

/// What a request is planned with.
pub struct Context<'a> {
    /// The worker.
    pub worker: &'a Worker,
    /// The table.
    pub running: &'a Running,
    /// The listener that it came in by.
    pub listener: ListenerId,
    /// Who sent it.
    pub peer: &'a Peer,
    /// Whether the answer is to end the connection.
    pub closing: bool,
    /// Bytes that have come behind the head.
    pub behind: &'a [u8],
    /// Where the client's own stream leads, if it came by one.
    pub uri: Option<&'a Uri>,
}

impl<'a> Context<'a> {
    /// The verified identity of the client.
    fn identity(&self) -> Option<&'a str> {
        Some(self.peer.tls.as_ref()?.identity.as_ref()?.as_str())
    }

    /// What the upstream is told of the client's certificate.
    fn certificate(&self) -> Option<Certificate<'a>> {
        let tls = self.peer.tls.as_ref()?;
        let uri = tls.identity.as_ref()?.as_str();
        let by = self.running.credentials.own.as_ref().map_or("", |own| own.as_str());
        Some(Certificate { by, sha256: &tls.fingerprint, uri })
    }
}

/// Decides what to do with the request of `head`, and writes what goes out to `out`.
///
/// # Errors
/// When the head does not fit in `out`; nothing is decided then.
pub fn plan(context: &Context<'_>, head: &[u8], out: &mut Block) -> Result<Plan, Overflow> {
    let mut fields = Fields::new_const();
    let request = match request::parse(head, &mut fields) {
        Ok(request) => request,
        Err(fault) => {
            return Ok(Plan::Refuse(Refused::ending(Failure::with(fault.cause(), fault))));
        }
    };
    decide(context, &request, out)
}

/// [`plan`] for a head that has been understood already.
///
/// # Errors
/// When the head does not fit in `out`; nothing is decided then.
pub fn decide(
    context: &Context<'_>,
    request: &RequestHead<'_>,
    out: &mut Block,
) -> Result<Plan, Overflow> {
    if request.max_forwards == Some(0) {
        return last_hop(context, request, out);
    }
    let mut scratch = context.worker.scratch.borrow_mut();
    let Scratch { path, rewritten } = &mut *scratch;
    path.clear();
    let path = if request.path == "*" {
        request.path
    } else {
        match normalise_path(request.path.as_bytes(), path) {
            Ok(Normalised::Unchanged) => request.path,
            // What the normal form keeps of a path is ASCII.
            Ok(Normalised::Rewritten) => std::str::from_utf8(path).unwrap_or_default(),
            Err(fault) => {
                let failure = Failure::with(Cause::RequestMalformed, fault);
                return Ok(refuse(context, request, 0, failure));
            }
        }
    };
    let key = RequestKey {
        listener: context.listener,
        host: request.host,
        path,
        query: request.query,
        method: request.method,
        fields: request.fields,
        identity: context.identity(),
    };
    if context.worker.sampler.is_due() {
        context.worker.take_sample(&context.running.table, &key);
    }
    let Some(rule_id) = context.running.table.route(&key) else {
        return Ok(refuse(context, request, 0, Cause::NoRoute.into()));
    };
    let rule = context.running.table.rule(rule_id);
    let routed = Routed {
        context,
        request,
        path,
        rule_id,
        rule,
        series: context.running.route_series[rule.route().index()],
    };
    match rule.action() {
        Action::Forward { backends, rewrite } => routed.forward(backends, rewrite, rewritten, out),
        Action::Redirect(redirect) => routed.redirect(redirect, rewritten, out),
        Action::Respond(respond) => routed.respond(respond, out),
    }
}

fn refuse(
    context: &Context<'_>,
    request: &RequestHead<'_>,
    route_series: u32,
    failure: Failure,
) -> Plan {
    // After a malformed request nothing is sure about the next one.
    let sound = failure.cause != Cause::RequestMalformed;
    let body_bytes = in_hand(&request.body, context.behind).filter(|_| sound);
    Plan::Refuse(Refused {
        route_series,
        to_head: request.method == "HEAD",
        persistence: persistence(context, request, body_bytes.is_some()),
        body_bytes: body_bytes.unwrap_or(0),
        failure,
    })
}

/// Answers a request that may go no further (RFC 9110 section 7.6.2). TRACE is not reflected: it
/// would show the page that sent it fields that only the browser knows.
fn last_hop(
    context: &Context<'_>,
    request: &RequestHead<'_>,
    out: &mut Block,
) -> Result<Plan, Overflow> {
    let allow = (request.method == "TRACE").then(|| ("Allow".into(), "".into()));
    let answer = Answer {
        status: if allow.is_some() { 405 } else { 204 },
        cause: None,
        location: None,
        fields: allow.as_slice(),
        edits: None,
        content_type: "text/plain",
        body: b"",
    };
    write_answer(context, request, 0, &answer, out)
}

fn write_answer(
    context: &Context<'_>,
    request: &RequestHead<'_>,
    route_series: u32,
    answer: &Answer<'_>,
    out: &mut Block,
) -> Result<Plan, Overflow> {
    let body_bytes = in_hand(&request.body, context.behind);
    let persistence = persistence(context, request, body_bytes.is_some());
    let date = context.worker.date.now();
    answer::write(answer, request.method == "HEAD", persistence, &date, out)?;
    Ok(Plan::Answer(Answered {
        route_series,
        status: answer.status,
        persistence,
        body_bytes: body_bytes.unwrap_or(0),
    }))
}

/// How the connection goes on if nothing speaks against it but what is asked here.
fn persistence(context: &Context<'_>, request: &RequestHead<'_>, complete: bool) -> Persistence {
    let keep = request.keep_alive && complete && !context.closing;
    Persistence::of(keep, request.is_http10)
}

/// The length of the body as it came, if all of it has come.
fn in_hand(body: &Body, behind: &[u8]) -> Option<usize> {
    let mut body = *body;
    let taken = body.take(behind).ok()?;
    body.is_done().then_some(taken)
}

/// A request and the rule that it matched.
struct Routed<'a> {
    context: &'a Context<'a>,
    request: &'a RequestHead<'a>,
    path: &'a str,
    rule_id: RuleId,
    rule: &'a Rule,
    series: u32,
}

impl Routed<'_> {
    fn listener(&self) -> &Listener {
        self.context.running.table.listener(self.context.listener)
    }

    fn refuse(&self, cause: Cause) -> Plan {
        refuse(self.context, self.request, self.series, cause.into())
    }

    fn forward(
        &self,
        backends: &Backends,
        rewrite: &Rewrite,
        rewritten: &mut Vec<u8>,
        out: &mut Block,
    ) -> Result<Plan, Overflow> {
        let (context, request) = (self.context, self.request);
        if let (Body::Length(length), Some(most)) = (&request.body, self.rule.max_request_body())
            && *length > most
        {
            return Ok(self.refuse(Cause::RequestBodyTooLarge));
        }
        // The high half: the low one draws the endpoint.
        let draw = (context.worker.random() >> 32) as u32;
        let Some(cluster) = backends.pick(draw) else {
            return Ok(self.refuse(Cause::NoBackend));
        };
        rewritten.clear();
        let path = match rewrite.path() {
            Some(rewrite) if self.path != "*" => {
                rewrite.write(self.path, rewritten);
                rewritten.as_slice()
            }
            _ => self.path.as_bytes(),
        };
        let line = Line {
            path,
            query: request.query,
            host: rewrite.host().unwrap_or_else(|| self.host(cluster)),
        };
        let id = u128::from(context.worker.random()) << 64 | u128::from(context.worker.random());
        let hop = Hop {
            peer: &context.peer.text,
            trusted: trusted(self.listener(), context.peer.hop),
            request_id: id,
            secure: context.peer.tls.is_some(),
            certificate: context.certificate(),
        };
        let forward = Forward {
            rule: self.rule_id,
            route_series: self.series,
            cluster,
            cluster_series: context.running.cluster_series[cluster.index()],
            body: request.body.limited(self.rule.max_request_body().unwrap_or(u64::MAX)),
            to_head: request.method == "HEAD",
            idempotent: idempotent(request.method),
            is_http10: request.is_http10,
            keep_alive: request.keep_alive,
            upgrade: request.upgrade.is_some(),
        };
        let edits = self.rule.request_headers();
        let protocol = context.running.table.cluster(cluster).protocol;
        // Who wants to switch protocols can do so in HTTP/1.1 alone.
        if protocol == ClusterProtocol::Http1 || forward.upgrade {
            compose::request(request, &line, &hop, edits, out)?;
            return Ok(Plan::Forward(forward));
        }
        let mut head = StreamHead::new(context.uri);
        compose::request_to(request, &line, &hop, edits, &mut head);
        Ok(match head.finish() {
            Ok(composed) => Plan::Stream(forward, Box::new(composed)),
            Err(failure) => refuse(context, request, self.series, failure),
        })
    }

    /// The host that the client named. HTTP/1.0 may come without: then the cluster's name, if it
    /// can stand there, since origins refuse an empty one.
    fn host(&self, cluster: ClusterId) -> &str {
        let name = &self.context.running.table.cluster(cluster).name;
        let nameless = self.request.host.is_empty() && fields::valid_host(name.as_bytes());
        if nameless { name } else { self.request.host }
    }

    fn redirect(
        &self,
        redirect: &Redirect,
        location: &mut Vec<u8>,
        out: &mut Block,
    ) -> Result<Plan, Overflow> {
        location.clear();
        let target = Target {
            scheme: if self.context.peer.tls.is_some() { "https" } else { "http" },
            host: self.request.host,
            port: self.listener().address.port(),
            path: self.path,
            query: self.request.query,
        };
        redirect.location(&target, location);
        let answer = Answer {
            status: redirect.status,
            cause: None,
            location: Some(location),
            fields: &[],
            edits: Some(self.rule.response_headers()),
            content_type: "text/plain",
            body: b"",
        };
        self.answer(&answer, out)
    }

    fn respond(&self, respond: &Respond, out: &mut Block) -> Result<Plan, Overflow> {
        let answer = Answer {
            status: respond.status,
            cause: None,
            location: None,
            fields: &respond.headers,
            edits: Some(self.rule.response_headers()),
            content_type: respond.content_type.as_deref().unwrap_or("text/plain"),
            body: &respond.body,
        };
        self.answer(&answer, out)
    }

    fn answer(&self, answer: &Answer<'_>, out: &mut Block) -> Result<Plan, Overflow> {
        write_answer(self.context, self.request, self.series, answer, out)
    }
}

fn trusted(listener: &Listener, hop: IpAddr) -> bool {
    listener.trusted_proxies.iter().any(|network| network.contains(&hop))
}

fn idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}
