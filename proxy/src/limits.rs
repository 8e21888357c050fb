//! Every maximum of the data plane, and how they relate.
//!
//! A limit rejects, and is named in the answer or the log line that it causes. What is a choice
//! of the operator is in the configuration; what is here bounds memory and work in any case.

use std::time::Duration;

/// Size of the block that a connection reads into: a usual head and a small body in one piece.
pub const SMALL_BLOCK_BYTES: usize = 16 * 1024;
/// Size of the block for long heads and for bodies that are copied.
pub const LARGE_BLOCK_BYTES: usize = 128 * 1024;
/// Small blocks that a worker keeps when no connection needs them (2 MiB).
pub const SMALL_BLOCKS_POOLED: usize = 128;
/// And how many once connections go quiet (256 KiB).
pub const SMALL_BLOCKS_KEPT: usize = 16;
/// Large blocks that a worker keeps once connections go quiet (128 KiB).
pub const LARGE_BLOCKS_KEPT: usize = 1;
/// Large blocks that a worker keeps (1 MiB).
pub const LARGE_BLOCKS_POOLED: usize = 8;

/// Largest state of an active connection that lives on a mapping of its own.
pub const ACTIVE_BYTES_MAX: usize = 16 * 1024;
/// Mappings for active connections that a worker keeps (128 KiB with 4 KiB each).
pub const ACTIVE_MAPPINGS_POOLED: usize = 32;

/// Longest request line, `414` beyond (RFC 9112 section 3 asks for at least 8000).
pub const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;
/// Longest head, request or response; `431` or `502` beyond.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields of one head or trailer section.
pub const HEAD_FIELDS_MAX: usize = 128;
/// What the proxy itself may add to a head: forwarding fields, edits of the route.
pub const HEAD_GROWTH_BYTES_MAX: usize = 48 * 1024;
/// Longest line that opens a chunk: size and extensions.
pub const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of chunk extensions in one body, together.
pub const CHUNK_EXTENSIONS_BYTES_MAX: u64 = 16 * 1024;
/// Longest trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Interim (1xx) answers before the final one.
pub const INTERIM_RESPONSES_MAX: u32 = 16;
/// Empty lines forgiven before a request line (RFC 9112 section 2.2 asks for at least one).
pub const LEADING_EMPTY_LINES_MAX: usize = 4;

/// Bodies with at least this much left move by `splice(2)`, smaller ones through a block. Measured
/// over loopback, where all of a body is there at once: level with 48 KiB left, 9 % cheaper with
/// 80, 13 % with 112, 17 % with 240. Bytes that trickle in are cheaper to copy, so not earlier.
pub const SPLICE_BYTES_MIN: u64 = 64 * 1024;
/// Size asked for each pipe.
pub const PIPE_BYTES: usize = 512 * 1024;
/// What is put into a pipe at once, and so what a direction may hold, unless the sink is known to
/// have room for more.
pub const PIPE_CAUTIOUS_BYTES: u64 = 256 * 1024;
/// Empty pipes that a worker keeps.
pub const PIPES_POOLED: usize = 64;
/// Bytes moved through one pipe before the other tasks of the worker have their turn.
pub const SPLICE_TURN_BYTES: usize = 2 * PIPE_BYTES;

/// Bytes between two waits from which a run of known length is taken to come in bulk, and is woken
/// for more at once the next time.
pub const GATHER_BURST_BYTES_MIN: u64 = 32 * 1024;
/// How long it waits for that much before it takes what has come, give or take a
/// [`DEADLINE_GRAIN`].
pub const GATHER_TIME: Duration = Duration::from_millis(5);

/// Receives and sends of one task before the other tasks of the worker have their turn.
pub const TURN_OPERATIONS: u32 = 32;

/// Bytes between two waits below which a spliced tunnel counts as talking in small pieces.
pub const SPLICE_BURST_BYTES_MIN: u64 = 4 * 1024;
/// Such bursts in a row after which it goes back to copying.
pub const SPLICE_SMALL_BURSTS_MAX: u32 = 8;
/// How often a tunnel that waits for one side looks whether the other has broken, when no
/// operation on that one would tell.
pub const FAR_SIDE_LOOK: Duration = Duration::from_secs(1);

/// How long the end of a response of HTTP/2 without a body may follow its head.
pub const EMPTY_END_TIME: Duration = Duration::from_millis(100);

/// After an early or error answer: how long input is still taken and thrown away.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// And how much of it. Closing with input unread sends RST, which can overtake the answer.
pub const LINGER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A connection silent for this long gives its block back and waits for readiness.
pub const QUIET_TIME: Duration = Duration::from_secs(1);
/// How long an exchange waits for its upstream before it starts to watch the client for a reset.
pub const ABORT_WATCH_DELAY: Duration = Duration::from_secs(1);
/// Grain of all deadlines.
pub const DEADLINE_GRAIN: Duration = Duration::from_millis(5);

/// Parked connections woken per turn.
pub const PARKED_WOKEN_PER_TURN: usize = 64;
/// Rest between two looks for parked connections that are due.
pub const PARKED_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many connections go quiet before free memory is given back to the system.
pub const PARKED_BEFORE_TRIM: usize = 256;
/// Streams that a connection has had at once for its going quiet to count, as so many connections.
pub const STREAMS_BEFORE_TRIM: usize = 32;
/// And so long it waits for more of them.
pub const TRIM_DELAY: Duration = Duration::from_millis(500);

/// Bytes that are read to find out what a client speaks.
pub const DETECTED_BYTES_MAX: usize = SMALL_BLOCK_BYTES;
/// Longest first word that may be a method of HTTP, when that is to be found out.
pub const METHOD_BYTES_DETECTED_MAX: usize = 32;
/// Silence of a client after which its server may be the one who speaks first: connected to ahead.
/// Clients of HTTP send with the handshake of TCP or soon after.
pub const SPEAKS_FIRST_PATIENCE: Duration = Duration::from_millis(20);

/// TLS handshakes that a worker has under way at once on either side; more wait within their
/// deadline. About 20 KiB each.
pub const HANDSHAKES_MAX: usize = 2048;
/// Time that a worker takes for steps of handshakes before everybody else has a turn: three full
/// handshakes with X25519 and a P-256 key.
pub const HANDSHAKE_TURN: Duration = Duration::from_micros(200);
/// How long a peer that owes a message of a handshake keeps its place from those who wait for one.
/// It is longer than a round trip around the earth, and what it takes to keep others waiting is
/// [`HANDSHAKES_MAX`] new connections in that time.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);
/// Silence after which the client of a permissive TCP listener is taken to wait for the server, in
/// plaintext.
pub const PERMISSIVE_SILENCE: Duration = Duration::from_secs(1);
/// Bytes of a handshake that are held while its messages are incomplete.
pub const HANDSHAKE_BYTES_MAX: usize = LARGE_BLOCK_BYTES;
/// How long the last words of a TLS connection may take.
pub const GOODBYE_TIME: Duration = Duration::from_secs(2);
/// Longest file of certificates, keys or revocations.
pub const CREDENTIAL_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Addresses whose plaintext connections are counted one by one, for each worker; what is beyond
/// shares one count.
pub const PLAINTEXT_PEERS_MAX: usize = 256;
/// Endpoints whose TLS sessions a worker keeps apart.
pub const SESSION_CACHES_MAX: usize = 1024;

/// Bytes of frames that gather while a send is away; one frame more at most.
pub const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// How long the client of an HTTP/2 connection may take nothing of what is sent.
pub const HTTP2_SEND_STALL: Duration = Duration::from_secs(30);
/// Longest wait of an HTTP/2 connection for input: it ends by PING, age and idle time.
pub const HTTP2_SILENCE: Duration = Duration::from_secs(3600);
/// What waits to be sent on one stream.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that we have reset and remember for a second, about 0.5 KiB each: what still comes for
/// them is ignored. For more of them it is answered with another reset.
pub const HTTP2_RESETS_MAX: usize = 1000;
/// Streams that the client reset before they were looked at (CVE-2023-44487); more end it, too.
pub const HTTP2_PENDING_RESETS_MAX: usize = 50;
/// Pieces of memory for streams that a worker keeps (512 KiB with 4 KiB each).
pub const STREAM_PLACES_POOLED: usize = 128;
/// What small DATA frames of an endpoint that wait for their clients may cost, as the h2 crate
/// counts it: 256 bytes less the length, for each. A quarter of a million of them, some 32 MiB.
pub const HTTP2_SMALL_FRAMES_BUDGET: usize = 64 << 20;
/// Times that a request is sent once more because an endpoint did nothing with it.
pub const HTTP2_REPEATS_MAX: u32 = 2;
/// Bytes of a body, and frames of it, that are held in case the request has to be sent once more.
pub const REPLAYED_BYTES_MAX: usize = 16 * 1024;
/// See [`REPLAYED_BYTES_MAX`].
pub const REPLAYED_FRAMES_MAX: usize = 8;
/// How often a connection that is to end is looked at.
pub const HTTP2_LOOK: Duration = Duration::from_secs(1);
/// PING, SETTINGS, PRIORITY and unknown frames of a peer in 10 s.
pub const CONTROL_FRAMES_MAX: u32 = 1000;
/// Frames without a byte that end nothing, in 10 s. The 100 empty DATA frames that the h2 crate
/// allows over the life of a connection are none of them: `flood` takes these out.
pub const EMPTY_FRAMES_MAX: u32 = 1000;
/// RST_STREAM in 10 s, or three for each four requests: a client that gives up a hundred requests
/// each second, for long, and nearly all that it makes.
pub const RESET_FRAMES_MAX: u32 = 1000;
/// Streams that we have to reset for what their client did, in 10 s (CVE-2025-8671).
pub const PROVOKED_RESETS_MAX: u32 = 1000;
/// Streams that we refuse because too many are open, in 10 s. A client that has not seen our
/// SETTINGS yet may begin what it has at once; each costs a list of fields and 13 bytes.
pub const REFUSED_STREAMS_MAX: u32 = 2000;
/// WINDOW_UPDATE in 10 s: one for each KiB of 1 Gbit/s.
pub const WINDOW_FRAMES_MAX: u32 = 1_000_000;

/// Connections taken per turn of an accept loop.
pub const ACCEPTS_PER_TURN: usize = 16;
/// Length of a listener's queue in the kernel.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Rest after the process ran out of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Messages that may wait for a worker.
pub const MAILBOX_MESSAGES_MAX: usize = 1024;

/// Idle upstream connections of one worker, over all endpoints.
pub const POOLED_UPSTREAMS_MAX: usize = 10_000;

/// First probe of TCP keepalive after silence, and the interval of the next ones.
pub const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
/// Probes without an answer after which the peer is gone: after 30 s.
pub const KEEPALIVE_PROBES: u32 = 2;
/// A peer that owes acknowledgements and has sent none for so long is gone.
pub const SILENCE_TIME: Duration = Duration::from_secs(30);
/// How often a worker looks for such peers.
pub const SILENCE_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Deadlines gone through in one look, before everybody else has a turn: some 50 us.
pub const SILENCE_LOOK_ENTRIES: usize = 256;

/// Entries of a ring: a sidecar is small.
pub const RING_ENTRIES: u32 = 512;
/// Completion entries, so that a burst never overflows.
pub const RING_COMPLETIONS: u32 = 4 * RING_ENTRIES;

/// Routes, clusters and listeners with series of their own; what is beyond shares one.
pub const SERIES_MAX: usize = 1 << 17;

/// Bytes of a file in the state folder of a sidecar that a pusher tells what to do.
pub const STATE_FILE_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(SMALL_BLOCKS_KEPT <= SMALL_BLOCKS_POOLED);
const _: () = assert!(LARGE_BLOCKS_KEPT <= LARGE_BLOCKS_POOLED);
const _: () = assert!(HEAD_BYTES_MAX + HEAD_GROWTH_BYTES_MAX <= LARGE_BLOCK_BYTES);
const _: () = assert!(REQUEST_LINE_BYTES_MAX <= HEAD_BYTES_MAX);
const _: () = assert!(TRAILER_BYTES_MAX + CHUNK_LINE_BYTES_MAX <= SMALL_BLOCK_BYTES);
const _: () = assert!(SPLICE_BYTES_MIN as usize >= SMALL_BLOCK_BYTES);
const _: () = assert!(SPLICE_TURN_BYTES.is_multiple_of(PIPE_BYTES));
const _: () = assert!(PIPE_CAUTIOUS_BYTES <= PIPE_BYTES as u64);
const _: () = assert!(PIPE_BYTES <= i32::MAX as usize, "a low-water mark is an int");
const _: () = assert!(HEAD_FIELDS_MAX <= 128, "a head's dropped fields are a u128");
