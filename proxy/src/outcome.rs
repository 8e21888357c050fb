//! What became of an exchange: the one vocabulary of causes, used in answers, logs and metrics.
//!
//! # Invariants
//! - Every way for an exchange to end that is not the upstream's own answer has exactly one cause.
//! - The words of [`Cause::label`] never change meaning: dashboards depend on them.

use std::fmt;

use crate::tls::handshake::Side;
use crate::tls::layer::fault_of;

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client.
    Downstream,
    /// The endpoint, or the way to it.
    Upstream,
    /// This proxy or its configuration.
    Local,
}

macro_rules! causes {
    ($($variant:ident $label:literal $blame:ident $status:literal $text:literal,)*) => {
        /// Why an exchange or connection ended otherwise than it should.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Cause {
            $(#[doc = $text] $variant,)*
        }

        impl Cause {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for metrics, logs and the `ringway-cause` field.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// Who is to blame.
            #[must_use]
            pub fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame,)* }
            }

            /// The status that the proxy answers with, if it still can.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The same in plain words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

causes! {
    RequestMalformed "request_malformed" Downstream 400 "the request is malformed",
    RequestLineTooLong "request_line_too_long" Downstream 414 "the request line is too long",
    RequestHeadTooLarge "request_head_too_large" Downstream 431 "the request head is too large",
    RequestBodyTooLarge "request_body_too_large" Downstream 413 "the request body is larger than the route allows",
    RequestVersion "request_version" Downstream 505 "only HTTP/1.0 and HTTP/1.1 are spoken here",
    RequestCoding "request_coding" Downstream 501 "the transfer coding is not supported",
    RequestExpectation "request_expectation" Downstream 417 "the expectation is not supported",
    ConnectMethod "connect_method" Downstream 405 "CONNECT is not allowed here",
    RequestTimeout "request_timeout" Downstream 408 "the request did not arrive in time",
    ClientClosed "client_closed" Downstream 499 "the client closed before its request was complete",
    ClientReset "client_reset" Downstream 499 "the client reset the connection",
    ClientStalled "client_stalled" Downstream 499 "the client neither read nor wrote for too long",
    ClientTls "client_tls" Downstream 400 "the TLS connection of the client failed",
    ClientTlsTimeout "client_tls_timeout" Downstream 408 "the TLS handshake was not done in time",
    ClientPlaintext "client_plaintext" Downstream 400 "plaintext where only TLS is spoken",
    ServerName "server_name" Downstream 404 "nothing is routed for the server name that the client asks for",
    UnknownProtocol "unknown_protocol" Downstream 400 "the connection speaks no protocol that is served here",
    ProxyHeader "proxy_header" Downstream 400 "the connection did not begin with a valid PROXY header",
    NoRoute "no_route" Local 404 "no route matches the request",
    NoBackend "no_backend" Local 500 "every backend of the rule has weight 0",
    NoEndpoint "no_endpoint" Local 503 "the cluster has no endpoint",
    HeadGrowth "head_growth" Local 431 "the head does not fit with what the route adds to it",
    Overloaded "overloaded" Local 503 "the listener is at its limit of connections",
    Descriptors "descriptors" Local 503 "the proxy is out of file descriptors",
    LocalTls "local_tls" Local 503 "the proxy's own side of a TLS connection failed",
    TunnelIdle "tunnel_idle" Local 504 "neither side of the tunnel sent anything for the idle time",
    Internal "internal" Local 500 "the proxy failed on this request",
    ConnectFailed "connect_failed" Upstream 503 "the connection to the upstream failed",
    ConnectTimeout "connect_timeout" Upstream 503 "the upstream did not accept the connection in time",
    UpstreamTls "upstream_tls" Upstream 503 "the TLS connection with the upstream failed",
    UpstreamTlsTimeout "upstream_tls_timeout" Upstream 503 "the TLS handshake with the upstream was not done in time",
    UpstreamClosed "upstream_closed" Upstream 502 "the upstream closed the connection before it answered",
    UpstreamReset "upstream_reset" Upstream 502 "the upstream reset the connection",
    UpstreamMalformed "upstream_malformed" Upstream 502 "the upstream's response is malformed",
    UpstreamTruncated "upstream_truncated" Upstream 502 "the upstream closed the connection inside the response",
    UpstreamTimeout "upstream_timeout" Upstream 504 "the upstream did not answer in time",
    UpstreamStalled "upstream_stalled" Upstream 504 "the upstream neither read nor wrote for too long",
}

impl Cause {
    /// What `error` of a connection with the client or with the endpoint comes to, if it is none of
    /// TLS: a peer that is gone (`TimedOut`: it answered no probe), or one that has reset it.
    #[must_use]
    pub fn of_io(side: Side, error: &std::io::Error) -> Self {
        match (side, error.kind() == std::io::ErrorKind::TimedOut) {
            (Side::Downstream, false) => Self::ClientReset,
            (Side::Downstream, true) => Self::ClientStalled,
            (Side::Upstream, false) => Self::UpstreamReset,
            (Side::Upstream, true) => Self::UpstreamStalled,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.label())
    }
}

/// A failed exchange: the cause, and what is known of it beyond the word.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The cause.
    pub cause: Cause,
    /// The particular: an address, an error of the system, a parser's complaint.
    pub detail: Option<Box<str>>,
}

impl Failure {
    /// A failure that its cause says all about.
    #[must_use]
    pub fn new(cause: Cause) -> Self {
        Self { cause, detail: None }
    }

    /// A failure with particulars.
    #[must_use]
    pub fn with(cause: Cause, detail: impl fmt::Display) -> Self {
        Self { cause, detail: Some(detail.to_string().into_boxed_str()) }
    }
}

impl Failure {
    /// What an error of a socket means: the fault of TLS if it is one, else [`Cause::of_io`].
    #[must_use]
    pub fn of_io(side: Side, error: &std::io::Error) -> Self {
        match fault_of(error) {
            Some(fault) => side.failure(fault),
            None => Self::with(Cause::of_io(side, error), error),
        }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::new(cause)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(out, "{}: {detail}", self.cause.text()),
            None => out.write_str(self.cause.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_fit_for_a_metric() {
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
            let word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(cause.label().bytes().all(word), "{cause}");
            assert!(!Cause::ALL[..index].iter().any(|other| other.label() == cause.label()));
            assert!((400..600).contains(&cause.status()));
        }
    }
}
