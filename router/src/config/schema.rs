//! The fields that each kind of object has, and those that are known but not supported yet.
//!
//! # Invariants
//! - `fields` are exactly the names that `decode` reads; a test holds both together.
//! - A name in `unsupported` is refused as such until the change that enforces it moves it to
//!   `fields`.

/// The fields of one kind of object.
#[derive(Debug)]
pub struct Schema {
    /// What it is called in problems, with its article.
    pub what: &'static str,
    /// What is read, at most 64.
    pub fields: &'static [&'static str],
    /// What is refused by name, as not supported by this version.
    pub unsupported: &'static [&'static str],
}

const fn schema(
    what: &'static str,
    fields: &'static [&'static str],
    unsupported: &'static [&'static str],
) -> Schema {
    Schema { what, fields, unsupported }
}

pub(super) const CONFIG: Schema = schema(
    "the file",
    &["identity", "admin", "drain", "control", "listeners", "routes", "clusters"],
    &["policies", "limits", "telemetry"],
);
pub(super) const IDENTITY: Schema =
    schema("an identity", &["certificate", "key", "trust_bundle", "revocation_lists"], &[]);
pub(super) const CONTROL: Schema = schema(
    "control",
    &["address", "bundle_hash", "token_file", "state_dir", "node", "labels", "samples"],
    &[],
);
pub(super) const DRAIN: Schema = schema("drain", &["delay", "timeout"], &[]);
pub(super) const LISTENER: Schema = schema(
    "a listener",
    &[
        "name",
        "address",
        "protocol",
        "cluster",
        "sni",
        "mtls",
        "tls",
        "accept_proxy_protocol",
        "trusted_proxies",
        "head_timeout",
        "idle_timeout",
        "max_connections",
        "max_connection_age",
        "http2",
    ],
    &["direction", "transparent"],
);
pub(super) const HTTP2: Schema = schema(
    "the limits of HTTP/2",
    &[
        "max_concurrent_streams",
        "stream_window",
        "connection_window",
        "max_frame_size",
        "max_header_list_size",
        "ping_interval",
        "ping_timeout",
    ],
    &[],
);
pub(super) const LISTENER_TLS: Schema = schema(
    "the TLS of a listener",
    &["certificates", "min_version", "resumption", "handshake_timeout"],
    &["alpn", "client_ca", "ciphers"],
);
pub(super) const PAIR: Schema =
    schema("a certificate", &["certificate", "key", "ocsp_response"], &[]);
pub(super) const SNI: Schema = schema("a name route", &["hosts", "cluster"], &[]);
pub(super) const ROUTE: Schema =
    schema("a route", &["name", "listeners", "hosts", "rules"], &["policies"]);
pub(super) const RULE: Schema = schema(
    "a rule",
    &[
        "matches",
        "backends",
        "rewrite",
        "redirect",
        "respond",
        "request_headers",
        "response_headers",
        "timeout",
        "idle_timeout",
        "max_request_body",
    ],
    &["retry", "mirror", "faults", "rate_limit", "cors"],
);
pub(super) const MATCH: Schema =
    schema("a match", &["path", "method", "headers", "query", "identity"], &["grpc"]);
pub(super) const PATH: Schema = schema("a path condition", &["exact", "prefix", "regex"], &[]);
pub(super) const CONDITION: Schema =
    schema("a condition", &["name", "exact", "regex", "present"], &["invert"]);
pub(super) const BACKEND: Schema = schema("a backend", &["cluster", "weight"], &[]);
pub(super) const REWRITE: Schema = schema("a rewrite", &["host", "path"], &[]);
pub(super) const REPLACE: Schema = schema("a new path", &["full", "prefix"], &[]);
pub(super) const REDIRECT: Schema =
    schema("a redirect", &["scheme", "host", "port", "path", "status"], &[]);
pub(super) const RESPOND: Schema =
    schema("a direct response", &["status", "body", "content_type", "headers"], &[]);
pub(super) const EDITS: Schema = schema("header edits", &["remove", "set", "add"], &[]);
pub(super) const CLUSTER: Schema = schema(
    "a cluster",
    &[
        "name",
        "endpoints",
        "discovery",
        "balance",
        "connect_timeout",
        "idle_timeout",
        "pool",
        "protocol",
        "http2",
        "send_proxy_protocol",
        "identity",
        "tls",
    ],
    &["breaker", "probes", "slow_start", "retry_budget", "limits"],
);
pub(super) const CLUSTER_TLS: Schema = schema(
    "the TLS of a cluster",
    &["server_name", "trust_bundle", "certificate", "key", "min_version", "resumption"],
    &["alpn", "ciphers"],
);
pub(super) const POOL: Schema = schema("a pool", &["idle_timeout", "idle_max"], &[]);
pub(super) const ENDPOINT: Schema =
    schema("an endpoint", &["address", "weight"], &["zone", "identity"]);

/// Fields that must have a value where they stand: nothing behind them looks like something and
/// would mean plaintext, everybody, or more roots than meant.
pub(super) const NEVER_EMPTY: &[&str] =
    &["identity", "control", "mtls", "tls", "trust_bundle", "revocation_lists", "certificates"];

impl Schema {
    /// The field that `name` is probably meant to be: the nearest within a third of its length.
    pub(super) fn nearest(&self, name: &str) -> Option<&'static str> {
        nearest(name, self.fields)
    }
}

/// The nearest of `known` by edit distance, if it is at most a third of `name` away.
pub fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    if name.len() > 64 {
        return None;
    }
    let name = name.replace('-', "_").to_lowercase();
    let far = (name.chars().count() / 3).max(1);
    let distances = known.iter().map(|known| (distance(&name, known), *known));
    let (least, best) = distances.min_by_key(|(distance, _)| *distance)?;
    let starts = name.len() >= 3 && (best.starts_with(&name) || name.starts_with(best));
    (least <= far || starts).then_some(best)
}

/// Levenshtein distance with swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
                }
            };
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}
