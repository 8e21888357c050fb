//! Every maximum of the protocol.

/// Bytes of the payload of a frame: 32 MiB, some 100 000 routes.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// Bytes of the text of a policy.
pub const POLICY_BYTES_MAX: usize = FRAME_BYTES_MAX - 64 * 1024;

/// Bytes of the body of a request: a report, a join, a renewal.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Bytes of the reason in a report. A longer one is cut.
pub const REASON_BYTES_MAX: usize = 4096;

/// States in one report.
pub const STATES_MAX: usize = 6;

/// Bytes of a node's name, a label, a capability.
pub const NAME_BYTES_MAX: usize = 253;

/// Labels of a sidecar, and capabilities.
pub const NAMES_MAX: usize = 32;

/// Clusters with pushed endpoints that one sidecar has.
pub const CLUSTERS_MAX: usize = 10_000;

/// Endpoints of one cluster: as many as a file may give it.
pub const MEMBERS_MAX: usize = 4096;

/// Keys of requests in one message of samples: as many as a sidecar keeps.
pub const SAMPLE_KEYS_MAX: usize = 1000;

/// Bytes of one key, over all its texts. Requests with more are counted and left out: a part of a
/// path is another path.
pub const SAMPLE_KEY_BYTES_MAX: usize = 768;

/// Names of header fields in one key.
pub const SAMPLE_HEADERS_MAX: usize = 64;

const _: () = assert!(POLICY_BYTES_MAX < FRAME_BYTES_MAX && FRAME_BYTES_MAX <= u32::MAX as usize);
