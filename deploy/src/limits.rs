//! The maximum of everything that files, sidecars and operators can make the pusher hold.
//!
//! Each has a test at it and one past it.

use std::time::Duration;

/// Files of a folder.
pub const FILES_MAX: usize = 4096;
/// Bytes of all files of a folder together.
pub const FOLDER_BYTES_MAX: usize = 64 << 20;
/// Objects of a folder: services, sets of endpoints, routes and workloads.
pub const OBJECTS_MAX: usize = 1 << 16;
/// Diagnostics reported at once; a last one says how many more there were.
pub const DIAGNOSTICS_MAX: usize = 1000;

/// Ports of one service.
pub const PORTS_MAX: usize = 64;
/// What one workload serves.
pub const SERVES_MAX: usize = 256;
/// What one workload imports.
pub const IMPORTS_MAX: usize = 4096;
/// Bytes of a name (RFC 1123 section 2.1).
pub const LABEL_BYTES_MAX: usize = 63;

/// Worst-case memory of the tables of one sidecar.
pub const TABLE_BYTES_MAX: usize = 256 << 20;
/// Workers that the worst case counts caches of regular expressions for.
pub const WORKERS_COUNTED: usize = 8;

/// Fewer objects than this may always go without a question.
pub const GONE_MIN: usize = 5;
/// And so may this share of them, in percent.
pub const GONE_PERCENT: usize = 20;
/// How long the endpoints of a service are kept after they have all vanished.
pub const STALE_KEPT: Duration = Duration::from_secs(30);

const _: () = assert!(
    FOLDER_BYTES_MAX <= ringway_router::limits::FILE_BYTES_MAX,
    "every file that a folder may have can be read"
);
const _: () = assert!(
    SERVES_MAX < ringway_router::limits::LISTENERS_MAX,
    "what a workload serves fits in a file, with a listener for what it calls"
);

/// Sidecars that are known at a time, connected or not; about 1 KiB each, 64 KiB at worst.
pub const SIDECARS_MAX: usize = 20_000;
/// Those of one identity.
pub const NODES_MAX: usize = SIDECARS_MAX / 2;
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
