//! Answers that the proxy makes itself: failures, redirects, direct responses.
//!
//! # Invariants
//! - A failure says in plain words what happened and who is to blame, and carries its cause in
//!   the `ringway-cause` field: no opaque 503.

use ringway_router::HeaderEdits;

use super::compose::{Overflow, Persistence, Writer};
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;

/// A complete answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// Why, on a failure.
    pub cause: Option<Cause>,
    /// `Location`, on a redirect.
    pub location: Option<&'a [u8]>,
    /// Fields beyond those.
    pub fields: &'a [(Box<str>, Box<str>)],
    /// What the rule does to the fields of its responses.
    pub edits: Option<&'a HeaderEdits>,
    /// Type of the body.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// The reason phrase of a status; empty for one that has none.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Writes `answer`; without its body if the request was HEAD.
///
/// # Errors
/// When it does not fit in `out`.
pub fn write(
    answer: &Answer<'_>,
    to_head: bool,
    persistence: Persistence,
    date: &[u8],
    out: &mut Block,
) -> Result<(), Overflow> {
    let mut writer = Writer::new(out);
    writer.bytes(b"HTTP/1.1 ");
    writer.decimal(u64::from(answer.status));
    writer.bytes(b" ");
    writer.bytes(reason(answer.status).as_bytes());
    writer.bytes(b"\r\n");
    writer.field("Date", date);
    // What the rule removes or replaces is not written first.
    let is_left = |name: &str| answer.edits.is_none_or(|edits| !edits.drops(name));
    if let Some(location) = answer.location.filter(|_| is_left("location")) {
        writer.field("Location", location);
    }
    if let Some(cause) = answer.cause {
        writer.field("Ringway-Cause", cause.label().as_bytes());
    }
    for (name, value) in answer.fields.iter().filter(|(name, _)| is_left(name)) {
        writer.field(name, value.as_bytes());
    }
    for (name, value) in answer.edits.iter().flat_map(|edits| edits.appended()) {
        writer.field(name, value.as_bytes());
    }
    let bodiless = matches!(answer.status, 204 | 304);
    if !bodiless {
        if !answer.body.is_empty() && is_left("content-type") {
            writer.field("Content-Type", answer.content_type.as_bytes());
        }
        writer.length(answer.body.len() as u64);
    }
    match persistence {
        Persistence::Open | Persistence::Upgrade => {}
        Persistence::OpenHttp10 => writer.bytes(b"Connection: keep-alive\r\n"),
        Persistence::Close => writer.bytes(b"Connection: close\r\n"),
    }
    writer.bytes(b"\r\n");
    if !to_head && !bodiless {
        writer.bytes(answer.body);
    }
    writer.finish()
}

/// Writes the answer for a failure: its text, then a newline.
///
/// # Errors
/// When it does not fit in `out`.
pub fn write_failure(
    failure: &Failure,
    to_head: bool,
    persistence: Persistence,
    date: &[u8],
    out: &mut Block,
) -> Result<(), Overflow> {
    let body = format!("ringway: {failure}\n");
    // 405 must say what is allowed (RFC 9110 section 15.5.6): an empty list, for a tunnel.
    let allow = (failure.cause == Cause::ConnectMethod).then(|| ("Allow".into(), "".into()));
    let answer = Answer {
        // 499 is for records: on the wire it would be a status that nobody knows.
        status: if failure.cause.status() == 499 { 400 } else { failure.cause.status() },
        cause: Some(failure.cause),
        location: None,
        fields: allow.as_slice(),
        edits: None,
        content_type: "text/plain; charset=utf-8",
        body: body.as_bytes(),
    };
    write(&answer, to_head, persistence, date, out)
}
