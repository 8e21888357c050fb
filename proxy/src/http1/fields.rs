//! Header fields that mean something to a proxy, and the lists inside their values.
//!
//! # Not here
//! Everything that is only passed on.

/// Fields that the proxy reads or must not pass on as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// `Connection` (RFC 9110 section 7.6.1).
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Date`.
    Date,
    /// `Expect`.
    Expect,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `Host`.
    Host,
    /// `HTTP2-Settings`, part of the obsolete upgrade to h2c.
    Http2Settings,
    /// `Keep-Alive`.
    KeepAlive,
    /// `Max-Forwards`.
    MaxForwards,
    /// `Proxy-Connection`, never standardised, always hop by hop.
    ProxyConnection,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `X-Forwarded-Client-Cert`.
    XForwardedClientCert,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Request-Id`.
    XRequestId,
    /// One of the above with other hyphens or underscores: no field of ours, but `CGI` and its
    /// heirs hand both to the application under the same name.
    Lookalike,
    /// Anything else.
    Other,
}

/// Recognises a field name in any case. The length decides almost always.
#[must_use]
pub fn known(name: &str) -> Known {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Known::Te,
        4 if is("host") => Known::Host,
        4 if is("date") => Known::Date,
        6 if is("expect") => Known::Expect,
        7 if is("upgrade") => Known::Upgrade,
        7 if is("trailer") => Known::Trailer,
        9 if is("forwarded") => Known::Forwarded,
        10 if is("connection") => Known::Connection,
        10 if is("keep-alive") => Known::KeepAlive,
        12 if is("x-request-id") => Known::XRequestId,
        12 if is("max-forwards") => Known::MaxForwards,
        14 if is("content-length") => Known::ContentLength,
        14 if is("http2-settings") => Known::Http2Settings,
        15 if is("x-forwarded-for") => Known::XForwardedFor,
        16 if is("proxy-connection") => Known::ProxyConnection,
        16 if is("x-forwarded-host") => Known::XForwardedHost,
        17 if is("transfer-encoding") => Known::TransferEncoding,
        17 if is("x-forwarded-proto") => Known::XForwardedProto,
        23 if is("x-forwarded-client-cert") => Known::XForwardedClientCert,
        10.. if lookalike(name) => Known::Lookalike,
        _ => Known::Other,
    }
}

/// Whether `name` is one that must not be forged, spelt with other hyphens and underscores.
fn lookalike(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "contentlength",
        "transferencoding",
        "xforwardedclientcert",
        "xforwardedfor",
        "xforwardedhost",
        "xforwardedproto",
        "xrequestid",
        "proxyconnection",
    ];
    let mut letters = name.bytes().filter(|byte| !matches!(byte, b'-' | b'_'));
    // Most names end here: every field of a request comes by.
    let Some(first @ (b'c' | b't' | b'x' | b'p')) = letters.next().map(|byte| byte | 0x20) else {
        return false;
    };
    let rest = || letters.clone().map(|byte| byte.to_ascii_lowercase());
    let mut candidates = NAMES.iter().filter(|other| other.as_bytes()[0] == first);
    candidates.any(|other| rest().eq(other.bytes().skip(1)))
}

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Fields that may not stand in a trailer section: framing, routing, and what a recipient would
/// have needed before the body (RFC 9110 section 6.5.1).
#[must_use]
pub fn forbidden_in_trailers(name: &str) -> bool {
    if known(name) != Known::Other {
        return true;
    }
    const ALSO: [&str; 12] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "location",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "set-cookie",
        "www-authenticate",
    ];
    ALSO.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// The members of a comma-separated list, without the white space around them and without empty
/// ones (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Parses `Content-Length`: digits and nothing else, no list, no sign, no overflow.
#[must_use]
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, &byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        length.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
    })
}

/// Whether `value` can stand in a `Host` field: a name or an address, and a port at most. User
/// information, lists and escapes are refused: no two parsers agree on them.
#[must_use]
pub fn valid_host(value: &[u8]) -> bool {
    let port_of = |rest: &[u8]| match rest {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if let [b'[', rest @ ..] = value {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        let address = std::str::from_utf8(&rest[..end]).ok();
        return address.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
            && port_of(&rest[end + 1..]);
    }
    let allowed =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // Names are short: a plain loop is over before a search by blocks has begun.
    let end = value.iter().position(|byte| !allowed(byte)).unwrap_or(value.len());
    let (name, port) = value.split_at(end);
    !name.is_empty() && name.len() <= 255 && port_of(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_digits_and_nothing_else() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"-1", b"1 ", b"1,1", b"0x1", b"18446744073709551616", b"1.0"]
        {
            assert_eq!(content_length(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_host_is_a_name_or_address_with_a_port_at_most() {
        for good in ["a", "A.example:80", "127.0.0.1:1", "[::1]", "[::1]:80", "a_b-c.d~", "a:"] {
            assert!(valid_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a@b", "a b", "a/b", "a,b", "[::1", "[x]", "a:b", "a:123456", "a%41",
            "a:1:2",
        ] {
            assert!(!valid_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn underscores_do_not_make_a_field_of_ours() {
        for name in [
            "Content_Length",
            "transfer--Encoding",
            "XForwarded-For",
            "X_REQUEST_ID",
            "_x-forwarded_host",
            "-Proxy_Connection-",
        ] {
            assert_eq!(known(name), Known::Lookalike, "{name}");
        }
        for name in
            ["my_content_length", "x_custom_one", "some_other_name", "-_-_-_-_-_-_", "content_type"]
        {
            assert_eq!(known(name), Known::Other, "{name}");
        }
    }

    #[test]
    fn lists_skip_white_space_and_empty_members() {
        let members: Vec<&[u8]> = list(b" close,, Upgrade\t, ").collect();
        assert_eq!(members, [&b"close"[..], b"Upgrade"]);
    }
}
