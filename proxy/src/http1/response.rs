//! Parses a complete response head and decides where its body ends (RFC 9112 sections 4 and 6).
//!
//! # Invariants
//! - A response whose end is ambiguous is refused: what follows it would be taken for the answer
//!   to somebody else's request.

use std::mem::MaybeUninit;

use ringway_router::Field;
use thiserror::Error;

use super::body::Body;
use super::fields::{self, Known};
use super::request::{FieldSet, Fields, named_by_connection};
use crate::limits::HEAD_FIELDS_MAX;

/// Why a response is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResponseFault {
    /// Not a status line and fields.
    #[error("{0}")]
    Syntax(httparse::Error),
    /// A status that is not three digits from 100 up.
    #[error("the status is not valid")]
    Status,
    /// `Content-Length` that is no number, or more than one of them.
    #[error("the Content-Length is not one decimal number")]
    ContentLength,
    /// Both framings at once.
    #[error("both Content-Length and Transfer-Encoding are present")]
    TwoFramings,
    /// A transfer coding other than chunked, or in HTTP/1.0.
    #[error("the Transfer-Encoding is not chunked")]
    TransferEncoding,
}

/// A response head, as slices of the bytes it was parsed from.
#[derive(Debug)]
pub struct ResponseHead<'b> {
    /// The status, 100 to 999.
    pub status: u16,
    /// The reason phrase, perhaps empty.
    pub reason: &'b str,
    /// All fields, in their order.
    pub fields: &'b [Field<'b>],
    /// Fields that end here.
    pub dropped: FieldSet,
    /// The body, for the method that was asked with.
    pub body: Body,
    /// The length that the head claims, which the answer to HEAD passes on.
    pub claimed_length: Option<u64>,
    /// Whether the connection may carry another exchange.
    pub keep_alive: bool,
    /// Whether the origin dated it.
    pub dated: bool,
    /// The protocol switched to, with status 101; the one asked for, with 426.
    pub upgrade: Option<&'b [u8]>,
}

#[derive(Default)]
struct Gathered<'b> {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    dated: bool,
    named: bool,
    upgrade: Option<&'b [u8]>,
}

/// Parses a head that the scanner found complete. `fields` is empty before; `to_head` says that
/// the request was HEAD.
///
/// # Errors
/// What is wrong with it. The connection is of no use afterwards.
pub fn parse<'f, 'b: 'f>(
    head: &'b [u8],
    fields: &'f mut Fields<'b>,
    to_head: bool,
) -> Result<ResponseHead<'f>, ResponseFault> {
    let mut slots = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        head,
        &mut slots,
    );
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(ResponseFault::Syntax(httparse::Error::NewLine)),
        Err(httparse::Error::Status) => return Err(ResponseFault::Status),
        Err(error) => return Err(ResponseFault::Syntax(error)),
    }
    let is_http10 = response.version == Some(0);
    let status = response.code.filter(|&code| code >= 100).ok_or(ResponseFault::Status)?;

    let parsed = response.headers.iter();
    fields.extend(parsed.map(|field| Field { name: field.name, value: field.value }));
    let fields = fields.as_slice();
    let mut dropped = 0;
    let mut gathered = Gathered::default();
    for (index, field) in fields.iter().enumerate() {
        if gather(&mut gathered, field, is_http10)? {
            dropped |= 1 << index;
        }
    }
    if gathered.named {
        dropped |= named_by_connection(fields);
    }
    if gathered.chunked && gathered.length.is_some() {
        return Err(ResponseFault::TwoFramings);
    }
    let body = match status {
        100..200 | 204 | 304 => Body::Done,
        _ if to_head => Body::Done,
        _ if gathered.chunked => Body::chunked(),
        _ => gathered.length.map_or(Body::UntilClose, Body::of_length),
    };
    Ok(ResponseHead {
        status,
        reason: response.reason.unwrap_or_default(),
        fields,
        dropped,
        claimed_length: gathered.length,
        keep_alive: !gathered.close
            && (!is_http10 || gathered.keep_alive)
            && !matches!(body, Body::UntilClose),
        body,
        dated: gathered.dated,
        upgrade: gathered.upgrade,
    })
}

/// Takes note of one field and says whether it ends here.
fn gather<'b>(
    gathered: &mut Gathered<'b>,
    field: &Field<'b>,
    is_http10: bool,
) -> Result<bool, ResponseFault> {
    match fields::known(field.name) {
        Known::ContentLength => {
            let length = fields::content_length(field.value).ok_or(ResponseFault::ContentLength)?;
            if gathered.length.replace(length).is_some() {
                return Err(ResponseFault::ContentLength);
            }
        }
        Known::TransferEncoding => {
            let chunked = field.value.eq_ignore_ascii_case(b"chunked");
            if is_http10 || gathered.chunked || !chunked {
                return Err(ResponseFault::TransferEncoding);
            }
            gathered.chunked = true;
        }
        Known::Connection => {
            for option in fields::list(field.value) {
                match option {
                    _ if option.eq_ignore_ascii_case(b"close") => gathered.close = true,
                    _ if option.eq_ignore_ascii_case(b"keep-alive") => gathered.keep_alive = true,
                    _ => gathered.named = true,
                }
            }
        }
        Known::Upgrade => gathered.upgrade = Some(field.value),
        Known::KeepAlive | Known::ProxyConnection | Known::Te => {}
        Known::Date => {
            gathered.dated = true;
            return Ok(false);
        }
        _ => return Ok(false),
    }
    Ok(true)
}
