//! SPIFFE IDs, as the SPIFFE-ID specification writes them.
//!
//! `spiffe://<trust domain>/<path>`, compared byte by byte. Nothing is normalised: an id that would
//! need it is refused, so that one workload has one spelling (SPIFFE-ID section 2).
//!
//! # Not here
//! That a workload has a path, and a certificate exactly one id (`verify`, X509-SVID section 2).

use std::fmt;
use std::str::FromStr;

use crate::limits::{SPIFFE_ID_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX};

const SCHEME: &str = "spiffe://";

/// A SPIFFE ID that follows the specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Box<str>,
    /// Where the trust domain ends; `SCHEME.len() < domain_end <= text.len()`.
    domain_end: u16,
}

/// What is wrong with a text that should be a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeFault {
    /// The scheme is not `spiffe`, in lower case.
    #[error("it does not begin with spiffe://")]
    Scheme,
    /// Nothing between `spiffe://` and the first slash.
    #[error("it has no trust domain")]
    NoTrustDomain,
    /// Longer than 255 bytes.
    #[error("its trust domain is longer than {TRUST_DOMAIN_BYTES_MAX} bytes")]
    TrustDomainTooLong,
    /// Something else than lower-case letters, digits, `.`, `-` and `_`; a port or user information
    /// is among that.
    #[error("its trust domain has something else than a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// Two slashes in a row.
    #[error("its path has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("its path has the segment '.' or '..'")]
    DotSegment,
    /// A slash at the end.
    #[error("it ends with a slash")]
    TrailingSlash,
    /// Something else than letters, digits, `.`, `-` and `_`; percent-encoding, queries and
    /// fragments are among that.
    #[error("its path has something else than a-z, A-Z, 0-9, '.', '-' and '_'")]
    Path,
    /// Longer than 2048 bytes.
    #[error("it is longer than {SPIFFE_ID_BYTES_MAX} bytes")]
    TooLong,
}

impl SpiffeId {
    /// Reads an id (SPIFFE-ID section 2).
    ///
    /// # Errors
    /// What makes the text something else.
    pub fn parse(text: &str) -> Result<SpiffeId, SpiffeFault> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeFault::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeFault::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(domain)?;
        check_path(path)?;
        Ok(SpiffeId { text: text.into(), domain_end: (SCHEME.len() + domain.len()) as u16 })
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands between `spiffe://` and the path.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..usize::from(self.domain_end)]
    }

    /// The path with its leading slash; empty for the id of a trust domain.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.domain_end)..]
    }
}

/// SPIFFE-ID section 2.1.
fn check_trust_domain(domain: &str) -> Result<(), SpiffeFault> {
    if domain.is_empty() {
        return Err(SpiffeFault::NoTrustDomain);
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if !domain.bytes().all(allowed) {
        return Err(SpiffeFault::TrustDomain);
    }
    if domain.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(SpiffeFault::TrustDomainTooLong);
    }
    Ok(())
}

/// SPIFFE-ID section 2.2. `path` is empty or begins with a slash.
fn check_path(path: &str) -> Result<(), SpiffeFault> {
    let Some(segments) = path.strip_prefix('/') else { return Ok(()) };
    if path.ends_with('/') {
        return Err(SpiffeFault::TrailingSlash);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    for segment in segments.split('/') {
        match segment {
            "" => return Err(SpiffeFault::EmptySegment),
            "." | ".." => return Err(SpiffeFault::DotSegment),
            segment if !segment.bytes().all(allowed) => return Err(SpiffeFault::Path),
            _ => {}
        }
    }
    Ok(())
}

impl FromStr for SpiffeId {
    type Err = SpiffeFault;

    fn from_str(text: &str) -> Result<SpiffeId, SpiffeFault> {
        SpiffeId::parse(text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
