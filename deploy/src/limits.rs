//! The maximum of everything that sidecars and operators can make the pusher hold.
//!
//! Each has a test at it and one past it.

/// Sidecars that are known at a time, connected or not; about 1 KiB each, 64 KiB at worst.
pub const SIDECARS_MAX: usize = 20_000;
/// Milliseconds after which a sidecar that is away is forgotten.
pub const FORGET_AFTER_MS: u64 = 3_600_000;
/// Bytes of an identity, which is a SPIFFE ID (SPIFFE-ID section 2.3).
pub const IDENTITY_BYTES_MAX: usize = 2048;
/// Bytes of a node's name, which is a DNS name (RFC 1035 section 2.3.4).
pub const NODE_BYTES_MAX: usize = 253;
/// Entries of one report: what was staged, what runs, what failed, and as many again.
pub const REPORT_ENTRIES_MAX: usize = 8;
/// Bytes of a reason that a sidecar gives; the rest is cut off.
pub const REASON_BYTES_MAX: usize = 512;
/// Labels of a sidecar.
pub const LABELS_MAX: usize = 16;
/// Capabilities of a sidecar.
pub const CAPABILITIES_MAX: usize = 64;
/// Bytes of a label's name and of its value, of a capability, and of a version.
pub const WORD_BYTES_MAX: usize = 128;
/// Failures that a summary spells out.
pub const FAILURES_SHOWN_MAX: usize = 50;
/// The highest generation: what a number of JSON still holds exactly.
pub const GENERATION_MAX: u64 = 1 << 53;

/// Releases in the history; the oldest goes first, the last good one never.
pub const RELEASES_KEPT_MAX: usize = 100;
/// Classes of one release.
pub const CLASSES_MAX: usize = 10_000;
/// Bytes of the name of who releases.
pub const AUTHOR_BYTES_MAX: usize = 256;
/// Bytes of the message of a release.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Percentages of one rollout.
pub const PERCENTS_MAX: usize = 16;
/// Milliseconds of each wait of a rollout: a day.
pub const WAIT_MS_MAX: u64 = 86_400_000;

const _: () = assert!(FAILURES_SHOWN_MAX <= SIDECARS_MAX);
const _: () = assert!(RELEASES_KEPT_MAX >= 2, "a rollback needs something to go back to");
