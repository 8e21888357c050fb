//! Host names: what does not count when they are compared, and what a file may name.
//!
//! Case, a port and one trailing dot do not count. An IPv6 address stands in brackets.

use crate::limits::{HOST_BYTES_MAX, HOST_LABELS_MAX};

/// `host` without its port: `example.com:80` and `[::1]:80` lose theirs.
pub fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    // Names are short: a plain loop is over before a search by blocks has begun.
    match host.bytes().position(|byte| byte == b':') {
        Some(colon) => &host[..colon],
        None => host,
    }
}

/// `host` in the form that tables hold, written to `buffer`; `None` if it is too long for any table
/// to hold.
#[inline]
pub(crate) fn fold<'b>(host: &str, buffer: &'b mut [u8; 256]) -> Option<&'b [u8]> {
    let host = without_port(host).as_bytes();
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.len() > HOST_BYTES_MAX {
        return None;
    }
    let folded = &mut buffer[..host.len()];
    for (to, from) in folded.iter_mut().zip(host) {
        *to = from.to_ascii_lowercase();
    }
    Some(folded)
}

/// A host as a route names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pattern<'a> {
    /// This one.
    Exact(&'a str),
    /// Any name with at least one label before the suffix, which starts with its dot.
    Suffix(&'a str),
    /// Every one.
    Any,
}

/// Reads a host of a route: `name`, `*.suffix` or `*`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn pattern(host: &str) -> Result<Pattern<'_>, &'static str> {
    if host == "*" {
        return Ok(Pattern::Any);
    }
    let trimmed = host.strip_suffix('.').unwrap_or(host);
    if let Some(suffix) = trimmed.strip_prefix('*') {
        let name = suffix.strip_prefix('.').ok_or("`*` stands alone or before a dot")?;
        name_is_valid(name)?;
        return Ok(Pattern::Suffix(suffix));
    }
    if let Some(inner) = trimmed.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("a host has no port")?;
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(Pattern::Exact(trimmed)),
            Err(_) => Err("not an IPv6 address in brackets"),
        };
    }
    name_is_valid(trimmed)?;
    Ok(Pattern::Exact(trimmed))
}

/// Checks a host name: labels of letters, digits, `-` and `_`, none empty.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn name_is_valid(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a host must not be empty");
    }
    if name.len() > HOST_BYTES_MAX {
        return Err("a host has at most 253 bytes");
    }
    let (mut labels, mut length) = (1, 0);
    for byte in name.bytes() {
        match byte {
            b'.' if length == 0 => return Err("an empty label"),
            b'.' => (labels, length) = (labels + 1, 0),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => length += 1,
            b'*' => return Err("`*` stands only as the first label"),
            b':' => return Err("a host has no port"),
            0x80.. => return Err("write names in other scripts in their xn-- form"),
            _ => return Err("a host has letters, digits, `-`, `_` and dots"),
        }
        if length > 63 {
            return Err("a label has at most 63 bytes");
        }
    }
    if length == 0 {
        return Err("an empty label");
    }
    if labels > HOST_LABELS_MAX {
        return Err("a host has at most 63 labels");
    }
    Ok(())
}
