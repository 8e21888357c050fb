//! Every maximum of this crate, and how they relate.
//!
//! # Invariants
//! - What a file can make grow has its maximum here; reading stops with a problem at the first
//!   thing past it.
//! - Sums that the table keeps in 32 bits cannot overflow: the assertions below say why.
//!
//! # Not here
//! Limits on requests (bytes of a head, number of fields): the proxy rejects those before it asks
//! the table.

use std::time::Duration;

/// Bytes of a configuration file. One-line routes take about 90 bytes each.
pub const FILE_BYTES_MAX: usize = 64 << 20;
/// Nesting of sequences and mappings. The model itself is 9 deep.
pub const NESTING_MAX: usize = 32;
/// Nodes (keys, values, collections) of a file after the expansion of aliases; 16 bytes of memory
/// each while it loads.
pub const NODES_MAX: usize = 4 << 20;
/// Problems reported for one file; a note says how many more there were.
pub const PROBLEMS_MAX: usize = 1000;

/// Listeners of a file.
pub const LISTENERS_MAX: usize = 1024;
/// Trusted proxies of one listener.
pub const TRUSTED_PROXIES_MAX: usize = 1024;
/// Name routes of one listener.
pub const SNI_ROUTES_MAX: usize = 1024;
/// Certificates of one listener.
pub const CERTIFICATES_MAX: usize = 64;
/// Revocation lists of the identity.
pub const REVOCATION_LISTS_MAX: usize = 64;
/// Identities that one cluster may have.
pub const IDENTITIES_MAX: usize = 64;
/// Labels of a sidecar, and bytes of one and of the name of its node.
pub const LABELS_MAX: usize = 32;
/// See [`LABELS_MAX`].
pub const NODE_BYTES_MAX: usize = 253;
/// Routes of a file.
pub const ROUTES_MAX: usize = 1 << 18;
/// Hosts of one route.
pub const HOSTS_MAX: usize = 1024;
/// Rules of one route.
pub const RULES_MAX: usize = 4096;
/// Alternatives of one rule.
pub const MATCHES_MAX: usize = 64;
/// Header conditions, and likewise query conditions, of one match.
pub const CONDITIONS_MAX: usize = 16;
/// Entries of the compiled index: the sum over all routes of hosts times matches.
pub const CANDIDATES_MAX: usize = 2 << 20;
/// Clusters of a file.
pub const CLUSTERS_MAX: usize = 1 << 16;
/// Endpoint names of one cluster.
pub const ENDPOINTS_MAX: usize = 4096;
/// Addresses that one endpoint name may resolve to; more are ignored.
pub const ADDRESSES_MAX: usize = 256;
/// Clusters that one rule divides its requests among.
pub const BACKENDS_MAX: usize = 64;
/// Weight of a backend or an endpoint.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Distinct methods that matches name.
pub const METHODS_MAX: usize = 1024;
/// Header edits of one kind (remove, set, add) in one rule.
pub const EDITS_MAX: usize = 64;

/// Bytes of a name of a listener, route or cluster.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of a host name (RFC 1035 section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Labels of a host name: what a set of 64 bits can hold.
pub const HOST_LABELS_MAX: usize = 63;
/// Bytes of a path or a replacement of one.
pub const PATH_BYTES_MAX: usize = 4096;
/// Segments of a path prefix: what a set of 32 bits can hold.
pub const PREFIX_SEGMENTS_MAX: usize = 31;
/// Bytes of the name of a header field, a query parameter or a method.
pub const TOKEN_BYTES_MAX: usize = 256;
/// Bytes of a value to compare with or to write.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Bytes of an identity (SPIFFE-ID section 2.3), and of the trust domain in it (section 2.1).
pub const SPIFFE_BYTES_MAX: usize = 2048;
/// Bytes of the trust domain of an identity.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Bytes of the name of a file: what Linux opens.
pub const FILE_NAME_BYTES_MAX: usize = 4095;
/// Bytes of a regular expression as written.
pub const REGEX_BYTES_MAX: usize = 4096;
/// Bytes of one regular expression when compiled.
pub const REGEX_COMPILED_BYTES_MAX: usize = 256 << 10;
/// Bytes of the lazily filled cache of one regular expression, for each thread that uses it.
pub const REGEX_CACHE_BYTES_MAX: usize = 256 << 10;
/// Distinct regular expressions of a file.
pub const REGEXES_MAX: usize = 4096;
/// Bytes of the body of a direct response.
pub const RESPOND_BYTES_MAX: usize = 4096;

/// The longest duration of any setting.
pub const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Endpoint slots of the process: what workers size their pools by.
pub const SLOTS_MAX: usize = 1 << 20;

const _: () = assert!(FILE_BYTES_MAX < 1 << 28, "a tree node keeps a length in 28 bits");
const _: () = assert!(NODES_MAX < u32::MAX as usize, "tree nodes are numbered in 32 bits");
const _: () = assert!(ROUTES_MAX * RULES_MAX <= 1 << 30, "rules are numbered in 32 bits");
const _: () = assert!(CANDIDATES_MAX < u32::MAX as usize, "candidates are numbered in 32 bits");
const _: () = assert!(
    BACKENDS_MAX as u64 * (WEIGHT_MAX as u64) < u32::MAX as u64,
    "backend weights add up in 32 bits"
);
const _: () = assert!(
    ENDPOINTS_MAX as u64 * ADDRESSES_MAX as u64 * (WEIGHT_MAX as u64) < u64::MAX >> 20,
    "endpoint weights add up in 64 bits, with room for a multiplication by a load"
);
const _: () = assert!(
    "spiffe://".len() + TRUST_DOMAIN_BYTES_MAX < SPIFFE_BYTES_MAX,
    "an identity has room for a path"
);
const _: () = assert!(SNI_ROUTES_MAX * HOSTS_MAX <= NODES_MAX, "names of a listener are nodes");
const _: () = assert!(PREFIX_SEGMENTS_MAX < 32 && HOST_LABELS_MAX < 64, "kept as sets of bits");
const _: () = assert!(HOST_BYTES_MAX < 256, "host names are folded in a buffer of 256 bytes");
const _: () = assert!(PATH_BYTES_MAX < u16::MAX as usize, "a prefix keeps its length in 16 bits");
const _: () = assert!(METHODS_MAX <= u16::MAX as usize, "methods are numbered in 16 bits");
const _: () = assert!(CONDITIONS_MAX < u8::MAX as usize, "a match counts conditions in 8 bits");
const _: () = assert!(
    DURATION_MAX.as_millis() < u32::MAX as u128,
    "durations are kept as 32-bit milliseconds"
);
