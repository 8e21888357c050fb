//! The maximum of everything that a store holds, chosen so that etcd and Kubernetes can hold it
//! too.

/// Bytes of a key. etcd has no limit of its own; names of Kubernetes objects end at 253.
pub const KEY_BYTES_MAX: usize = 240;
/// Bytes of a value. In base64, as in a Kubernetes Secret, it is 1 MiB, which is the limit there;
/// a request to etcd may have 1.5 MiB.
pub const VALUE_BYTES_MAX: usize = 768 << 10;
/// Entries of a store. One of the common kind, an issued certificate, takes some 250 bytes.
pub const ENTRIES_MAX: u64 = 500_000;
/// Events that are kept for watches that begin in the past; some 100 bytes each.
pub const EVENTS_KEPT_MAX: usize = 1024;
/// Events that wait for one watcher. One that falls behind further is cut off and lists again.
pub const EVENTS_QUEUED_MAX: usize = 2048;
/// Watches at a time.
pub const WATCHES_MAX: usize = 64;
/// Bytes of memory that pages of the local file take.
pub const CACHE_BYTES_MAX: usize = 16 << 20;
/// Bytes of the name of a lease or of its holder.
pub const LEASE_NAME_BYTES_MAX: usize = 128;
/// Seconds that a lease lasts, at least and at most.
pub const LEASE_TTL_S: std::ops::RangeInclusive<u64> = 1..=3600;

const _: () = assert!(EVENTS_QUEUED_MAX > EVENTS_KEPT_MAX);
const _: () = assert!(VALUE_BYTES_MAX / 3 * 4 <= 1 << 20);
const _: () = assert!(LEASE_NAME_BYTES_MAX + "lease/".len() <= KEY_BYTES_MAX);
