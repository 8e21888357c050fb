//! What gRPC says in fields: whether a call is one, how long it may take, how it ended.
//!
//! Sources: "gRPC over HTTP2" and "Status codes and their use in gRPC" of the gRPC project.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::outcome::{Cause, Failure};

/// The field that says how long a call may take.
pub const TIMEOUT: &str = "grpc-timeout";
/// The field that says how a call has ended.
const STATUS: &str = "grpc-status";

/// How a call has ended: the number of one of [`Status::LABELS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(u8);

impl Status {
    /// The codes by name, in the order of their numbers; the last is for calls that ended without
    /// one, or with one that is no code.
    pub const LABELS: [&str; 18] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
        "none",
    ];
    /// It ended without a status.
    pub const NONE: Self = Self(17);
    /// It ended well.
    pub const OK: Self = Self(0);
    /// What was asked for is not there.
    pub const NOT_FOUND: Self = Self(5);
    const CANCELLED: Self = Self(1);
    const DEADLINE_EXCEEDED: Self = Self(4);
    const RESOURCE_EXHAUSTED: Self = Self(8);
    const UNIMPLEMENTED: Self = Self(12);
    const INTERNAL: Self = Self(13);
    const UNAVAILABLE: Self = Self(14);

    /// The status that trailers state, or the head of a response that is all trailers.
    #[must_use]
    pub fn of_fields(fields: &HeaderMap) -> Option<Self> {
        let text = fields.get(STATUS)?.to_str().ok()?;
        let known = text.parse().ok().filter(|code| *code < Self::NONE.0);
        Some(known.map_or(Self::NONE, Self))
    }

    /// The status that says `cause` best.
    #[must_use]
    pub fn of_cause(cause: Cause) -> Self {
        match cause.status() {
            404 => Self::UNIMPLEMENTED,
            499 => Self::CANCELLED,
            413 | 431 => Self::RESOURCE_EXHAUSTED,
            502 | 503 | 429 => Self::UNAVAILABLE,
            504 => Self::DEADLINE_EXCEEDED,
            _ => Self::INTERNAL,
        }
    }

    /// Its place among [`Self::LABELS`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Whether a request or a response is one of gRPC.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = value.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The time that `grpc-timeout` gives a call.
#[must_use]
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What is `left` of a call's time, for the next hop: in at most eight digits, never more.
#[must_use]
pub fn timeout_value(left: Duration) -> HeaderValue {
    let fits = |number: u128| number < 100_000_000;
    let text = if fits(left.as_micros()) {
        format!("{}u", left.as_micros())
    } else if fits(left.as_millis()) {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", left.as_secs().min(99_999_999))
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

/// A failure as gRPC says it: a response that is all trailers, with the status that fits.
#[must_use]
pub fn failure(failure: &Failure) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = failure_trailers(failure);
    let value = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

/// A failure as gRPC says it at the end of a response that has begun.
#[must_use]
pub fn failure_trailers(failure: &Failure) -> HeaderMap {
    let text = format!("ringway: {failure}");
    let mut message = String::with_capacity(text.len());
    for byte in text.bytes() {
        // The percent-encoding of gRPC: what is printable and no percent sign stays.
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            message.push(char::from(byte));
        } else {
            message.push_str(&format!("%{byte:02X}"));
        }
    }
    let mut headers = HeaderMap::with_capacity(4);
    let status = Status::of_cause(failure.cause);
    headers.insert(STATUS, HeaderValue::from(u32::from(status.0)));
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    headers.insert("ringway-cause", HeaderValue::from_static(failure.cause.label()));
    headers
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    #[test]
    fn failures_have_their_code_in_grpc() {
        let failure = Failure::with(Cause::ConnectFailed, "10.0.0.1: caf\u{e9} 5%");
        let response = super::failure(&failure);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.ends_with("caf%C3%A9 5%25"), "{message}");
        let code = |cause: Cause| super::failure(&cause.into()).headers()["grpc-status"].clone();
        assert_eq!(code(Cause::UpstreamTimeout), "4");
        assert_eq!(code(Cause::NoRoute), "12");
    }

    #[test]
    fn a_status_is_read_from_trailers() {
        let read = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            Status::of_fields(&HeaderMap::from_iter([(HeaderName::from_static(STATUS), value)]))
        };
        assert_eq!(Status::LABELS[read("0").unwrap().index()], "OK");
        assert_eq!(Status::LABELS[read("16").unwrap().index()], "UNAUTHENTICATED");
        for odd in ["17", "-1", "", "x", "256"] {
            assert_eq!(read(odd), Some(Status::NONE), "{odd}");
        }
        assert_eq!(Status::of_fields(&HeaderMap::new()), None);
        assert_eq!(Status::LABELS[Status::NONE.index()], "none");
    }

    #[test]
    fn a_calls_time_is_read_and_never_grows() {
        let read = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            timeout(&HeaderMap::from_iter([(HeaderName::from_static(TIMEOUT), value)]))
        };
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "m", "1", "1x", "123456789S", "-1S", "1.5S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let seconds = Duration::from_secs;
        assert_eq!(timeout_value(Duration::from_micros(1_500)), "1500u");
        assert_eq!(timeout_value(seconds(99) + Duration::from_nanos(999)), "99000000u");
        assert_eq!(timeout_value(seconds(100)), "100000m");
        assert_eq!(timeout_value(seconds(1_000_000)), "1000000S");
    }

    #[test]
    fn grpc_is_known_by_its_type() {
        let is = |value: &'static str| {
            is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]))
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x"));
        assert!(!is("application/grpc-web") && !is("text/plain"));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
