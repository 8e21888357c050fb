//! Decides what a request gets, and writes the answer's head and small bodies.
//!
//! ```text
//! (Head, Variant) ─▶ plan ─▶ Plan ─▶ render(Plan, length of the request body) ─▶ bytes + Stream
//! ```
//!
//! # Invariants
//! - `Plan` borrows nothing from the input, so the request body can be read in between.
//! - Exactly one of content-length and chunked frames a body, and HEAD, 204, 304 have none.
//! - The answer of `/` is a copy of bytes made at start.

use std::{cell::RefCell, io::Write, time::Duration};

use bytes::Bytes;
use http::HeaderValue;

use super::{behaviour::Behaviour, head::Head};
use crate::{
    body::Framing,
    limits::{BODY_BYTES_MAX, DELAY_MAX, READY_BODY_BYTES_MAX},
    pattern,
};

/// The field after the body of `/trailers/N`: the body's length.
pub(super) const TRAILER: &str = "x-body-bytes";

/// One named origin and what its `/` answers.
pub(super) struct Variant {
    name: String,
    /// The name as the value of a field.
    field: HeaderValue,
    /// The body of `/`, if it is a text.
    text: Bytes,
    root: Content,
    behaviour: Behaviour,
    random: RefCell<fastrand::Rng>,
    /// Head and body of `/` to a plain HTTP/1.1 GET, when it is small.
    ready: Option<Vec<u8>>,
}

/// What is to be answered, once the request body has been read.
pub(super) struct Plan {
    content: Content,
    status: u16,
    pub(super) framing: Framing,
    pub(super) pause: Duration,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    head_only: bool,
    minor: u8,
}

#[derive(Clone, PartialEq, Eq)]
enum Content {
    /// The bytes made at start.
    Ready,
    Text(String),
    /// The length of the request body, in words.
    Received,
    Bytes(u64),
    Chunks(u64),
    /// Chunks, and a trailer field after them.
    Trailers(u64),
}

/// An answer that HTTP/2 frames.
pub(super) struct Parts {
    pub(super) status: u16,
    pub(super) body: Body,
    /// Whether content-length tells the body's length.
    pub(super) has_length: bool,
    pub(super) has_trailers: bool,
    /// The body is not sent.
    pub(super) is_head_only: bool,
}

/// What follows the head of an answer that HTTP/2 frames.
pub(super) enum Body {
    Text(Bytes),
    /// So many bytes of the pattern.
    Pattern(u64),
}

/// The part of the answer that does not fit in memory and follows the rendered bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    None,
    Bytes(u64),
    Chunks(u64),
    Trailers(u64),
}

impl Variant {
    pub(super) fn new(
        name: String,
        body_bytes: Option<u64>,
        chunked: bool,
        behaviour: Behaviour,
    ) -> Self {
        let line = format!("hello from {name}\n");
        let text = Bytes::from(line.clone());
        let root = match (body_bytes, chunked) {
            (None, false) => Content::Text(line),
            (None, true) => Content::Chunks(line.len() as u64),
            (Some(length), false) => Content::Bytes(length),
            (Some(length), true) => Content::Chunks(length),
        };
        let mut variant = Self {
            random: RefCell::new(fastrand::Rng::with_seed(name.len() as u64)),
            field: HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("")),
            name,
            text,
            root,
            behaviour,
            ready: None,
        };
        variant.ready = variant.render_ready();
        variant
    }

    /// The name as the value of a field.
    pub(super) fn field(&self) -> HeaderValue {
        self.field.clone()
    }

    /// Whether the next answer fails on purpose, and how long it takes.
    pub(super) fn draw(&self) -> (bool, Duration) {
        let mut random = self.random.borrow_mut();
        (self.behaviour.fails(&mut random), self.behaviour.delay.draw(&mut random))
    }

    fn render_ready(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut plan = self.plan_of(self.root.clone(), 200);
        if let Content::Bytes(length @ ..=READY_BODY_BYTES_MAX) = self.root {
            plan.content = Content::Ready;
            write_head(&mut out, &plan, &self.name, Some(length));
            out.extend_from_slice(pattern::part(0, length));
            return Some(out);
        }
        (render(&plan, self, 0, &mut out) == Stream::None).then_some(out)
    }

    fn plan_of(&self, content: Content, status: u16) -> Plan {
        Plan {
            content,
            status,
            framing: Framing::Length(0),
            pause: self.behaviour.delay.draw(&mut self.random.borrow_mut()),
            keep_alive: true,
            expects_continue: false,
            head_only: false,
            minor: 1,
        }
    }
}

/// Chooses the answer to `head`.
pub(super) fn plan(head: &Head<'_>, variant: &Variant) -> Plan {
    let path = path_of(head.target);
    let mut plan = if variant.behaviour.fails(&mut variant.random.borrow_mut()) {
        variant.plan_of(Content::Text(format!("{} fails on purpose\n", variant.name)), 503)
    } else if path == "/" {
        variant.plan_of(variant.root.clone_or_ready(variant), 200)
    } else {
        plan_path(head, path, variant)
    };
    plan.framing = head.framing;
    plan.keep_alive = head.keep_alive;
    plan.expects_continue = head.expects_continue;
    plan.head_only = head.method == "HEAD";
    plan.minor = head.minor;
    let plain = plan.keep_alive && !plan.head_only && plan.minor == 1;
    if plan.content == Content::Ready && !plain {
        plan.content = variant.root.clone();
    }
    if let (0, Content::Chunks(length) | Content::Trailers(length)) = (plan.minor, &plan.content) {
        // An HTTP/1.0 client cannot read chunks.
        plan.content = Content::Bytes(*length);
    }
    plan
}

impl Content {
    fn clone_or_ready(&self, variant: &Variant) -> Self {
        if variant.ready.is_some() { Self::Ready } else { self.clone() }
    }
}

fn plan_path(head: &Head<'_>, path: &str, variant: &Variant) -> Plan {
    let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let number = rest.parse::<u64>().ok();
    let (content, status) = match (first, number) {
        ("echo", _) => (Content::Text(echo(head, variant)), 200),
        ("upload", _) => (Content::Received, 200),
        ("bytes", Some(length @ ..=BODY_BYTES_MAX)) => (Content::Bytes(length), 200),
        ("chunked", Some(length @ ..=BODY_BYTES_MAX)) => (Content::Chunks(length), 200),
        ("trailers", Some(length @ ..=BODY_BYTES_MAX)) => (Content::Trailers(length), 200),
        ("status", Some(code @ 200..=599)) => {
            (Content::Text(format!("{} answers with status {code}\n", variant.name)), code as u16)
        }
        ("slow", Some(milliseconds)) => {
            let mut plan = variant.plan_of(variant.root.clone_or_ready(variant), 200);
            plan.pause = Duration::from_millis(milliseconds).min(DELAY_MAX);
            return plan;
        }
        ("bytes" | "chunked" | "trailers" | "status" | "slow", _) => {
            let text = format!("{}: {path} needs a number in range\n", variant.name);
            (Content::Text(text), 404)
        }
        _ => (Content::Text(format!("{}: {} {path}\n", variant.name, head.method)), 200),
    };
    variant.plan_of(content, status)
}

/// The path of origin form or absolute form; `/` for anything else (`*`, authority form).
fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let path = target.split('?').next().unwrap_or("/");
    if path.starts_with('/') { path } else { "/" }
}

fn echo(head: &Head<'_>, variant: &Variant) -> String {
    let mut text =
        format!("variant: {}\n{} {} {}\n", variant.name, head.method, head.target, head.protocol);
    for field in head.fields {
        text.push_str(field.name);
        text.push_str(": ");
        text.push_str(&String::from_utf8_lossy(field.value));
        text.push('\n');
    }
    text
}

/// Appends the answer to `out`, or its head and what must be streamed after it.
pub(super) fn render(
    plan: &Plan,
    variant: &Variant,
    received_bytes: u64,
    out: &mut Vec<u8>,
) -> Stream {
    let text = match &plan.content {
        Content::Ready => {
            out.extend_from_slice(variant.ready.as_deref().unwrap_or_default());
            return Stream::None;
        }
        Content::Text(text) => text.clone(),
        Content::Received => format!("{} received {received_bytes} bytes\n", variant.name),
        Content::Bytes(length) => {
            write_head(out, plan, &variant.name, Some(*length));
            return if plan.head_only { Stream::None } else { Stream::Bytes(*length) };
        }
        Content::Chunks(length) => {
            write_head(out, plan, &variant.name, None);
            return if plan.head_only { Stream::None } else { Stream::Chunks(*length) };
        }
        Content::Trailers(length) => {
            write_head(out, plan, &variant.name, None);
            return if plan.head_only { Stream::None } else { Stream::Trailers(*length) };
        }
    };
    let bodiless = is_bodiless(plan.status);
    write_head(out, plan, &variant.name, Some(text.len() as u64));
    if !plan.head_only && !bodiless {
        out.extend_from_slice(text.as_bytes());
    }
    Stream::None
}

/// The answer for HTTP/2, whose framing has neither chunks nor a connection to close.
pub(super) fn parts(plan: &Plan, variant: &Variant, received_bytes: u64) -> Parts {
    let is_ready = plan.content == Content::Ready;
    let content = if is_ready { &variant.root } else { &plan.content };
    let body = match content {
        // `Ready` is `root`, which is never `Ready` itself.
        Content::Ready => Body::Pattern(0),
        Content::Text(_) if is_ready => Body::Text(variant.text.clone()),
        Content::Text(text) => Body::Text(Bytes::copy_from_slice(text.as_bytes())),
        Content::Received => {
            Body::Text(format!("{} received {received_bytes} bytes\n", variant.name).into())
        }
        Content::Bytes(length) | Content::Chunks(length) | Content::Trailers(length) => {
            Body::Pattern(*length)
        }
    };
    let is_bodiless = is_bodiless(plan.status);
    Parts {
        status: plan.status,
        body,
        has_length: !is_bodiless && !matches!(content, Content::Chunks(_) | Content::Trailers(_)),
        has_trailers: matches!(content, Content::Trailers(_)),
        is_head_only: plan.head_only || is_bodiless,
    }
}

/// Whether answers with this status have no body (RFC 9110 section 6.4.1).
fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// Appends a head; `length` is the content-length, `None` means chunked.
fn write_head(out: &mut Vec<u8>, plan: &Plan, name: &str, length: Option<u64>) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", plan.status, reason(plan.status));
    let _ = write!(out, "Content-Type: text/plain\r\nX-Variant: {name}\r\n");
    match length {
        _ if is_bodiless(plan.status) => {}
        Some(length) => {
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
        None => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    if matches!(plan.content, Content::Trailers(_)) {
        let _ = write!(out, "Trailer: {TRAILER}\r\n");
    }
    match (plan.keep_alive, plan.minor) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// A whole answer that refuses the request and closes the connection.
pub(super) fn refusal(status: u16) -> Vec<u8> {
    let reason = reason(status);
    format!("HTTP/1.1 {status} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        // The phrase may be empty (RFC 9112 section 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests;
