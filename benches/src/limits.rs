//! Every maximum of the bench programs, and how they relate.

use std::time::Duration;

/// Longest request head that the origin reads; larger is answered with 431.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields in one request head; more is answered with 431.
pub(crate) const HEADERS_MAX: usize = 128;
/// Largest body that a path such as `/bytes/N` or the raw TCP origin delivers (1 TiB).
pub(crate) const BODY_BYTES_MAX: u64 = 1 << 40;
/// Largest body of `--body-bytes` that is kept ready in memory; larger ones are streamed.
pub(crate) const READY_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Longest pause of `/slow/MS` and `--delay`.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(600);
/// Answers gathered for pipelined requests before they are sent.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// First size of a connection's read buffer; it grows up to `HEAD_BYTES_MAX` for one long head.
pub(crate) const INPUT_BYTES: usize = 8 * 1024;
/// Connections waiting to be accepted.
pub(crate) const BACKLOG: i32 = 4096;
/// Pause after an accept that failed for want of descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Threads of a closed-loop body client, one per connection.
pub(crate) const CONNECTIONS_MAX: u32 = 512;
/// A load connection that hears nothing for so long counts as failed.
pub(crate) const LOAD_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Requests of an open loop that wait for a connection. A rate that the target does not take fills
/// this in minutes; going on would only grow.
pub(crate) const LOAD_WAITING_MAX: usize = 1 << 22;
/// Connections of an open loop.
pub(crate) const LOAD_CONNECTIONS_MAX: u32 = 16_384;
/// Request body of an open loop: it is kept ready in memory.
pub(crate) const LOAD_BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time for a started proxy to answer its first request, a table of 100 000 routes included.
pub(crate) const READY_MAX: Duration = Duration::from_secs(20);
/// Time between a polite and a hard end of a started process.
pub(crate) const END_GRACE: Duration = Duration::from_millis(1500);
/// Bytes of a failed program's output that an error repeats.
pub(crate) const LAST_WORDS_BYTES: u64 = 2048;
/// Scenarios in one report.
pub(crate) const DETAILS_MAX: usize = 128;
/// One scenario's samples and curves, as a file.
pub(crate) const DETAIL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bars beside each other in one panel of a plot, gaps counted as bars; more begin another panel.
pub(crate) const PANEL_BARS_MAX: usize = 26;
/// Points of one latency curve; of more, evenly chosen ones are drawn.
pub(crate) const CURVE_POINTS_MAX: usize = 400;

const _: () = assert!(INPUT_BYTES < HEAD_BYTES_MAX);
const _: () = assert!(READY_BODY_BYTES_MAX <= OUTPUT_BYTES_MAX as u64);
const _: () = assert!(READY_BODY_BYTES_MAX < BODY_BYTES_MAX);

/// Streams of one HTTP/2 connection of the load.
pub(crate) const HTTP2_STREAMS_MAX: u32 = 4096;
/// What a peer may send on one HTTP/2 stream before it is told that the bytes were taken.
pub(crate) const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all streams of a connection together; the most that a connection holds.
pub(crate) const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest HTTP/2 frame that is taken.
pub(crate) const HTTP2_FRAME_BYTES: u32 = 64 * 1024;
/// What a connection of the load reads from its socket at once if it has TLS; kept with it.
pub(crate) const TLS_READ_BYTES: usize = 32 * 1024;
/// Tickets of TLS 1.3 that the load keeps, the newest; one is used up by each connection.
pub(crate) const TICKETS_MAX: usize = 4096;
/// For how long the load takes a chain of certificates that it has verified, and signatures.
pub(crate) const VERIFIED_EVERY: Duration = Duration::from_millis(10);
/// HTTP/2 frames gathered before they are sent.
pub(crate) const WIRE_BYTES_MAX: usize = 256 * 1024;

const _: () = assert!(HTTP2_STREAM_WINDOW_BYTES <= HTTP2_CONNECTION_WINDOW_BYTES);
