//! How HTTP/2 is spoken, with clients or with endpoints: the model, its reading and its checks.

use std::time::Duration;

use serde::Serialize;

use super::canonical::milliseconds;
use super::check::{At, Checker};
use super::decode::{Reader, set};
use super::{scalars, schema};
use crate::source::Node;

const KIB: u32 = 1024;
/// Limits of windows (RFC 9113 section 6.9.1 allows 2^31 - 1; here a stream cannot ask for more
/// memory than a sidecar has).
const WINDOWS: (u32, u32) = (KIB, 64 * KIB * KIB);
/// The window of a connection cannot be made smaller than it is at first (RFC 9113 section 6.9.2).
const CONNECTION_WINDOWS: (u32, u32) = (65_535, 1024 * KIB * KIB);
/// Largest window (RFC 9113 section 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Limits of frames (RFC 9113 section 4.2 allows 2^24 - 1 at most).
const FRAMES: (u32, u32) = (16 * KIB, KIB * KIB);
/// Limits of header lists: more is refused for HTTP/1.1, too.
const HEADER_LISTS: (u32, u32) = (KIB, 64 * KIB);
/// Streams at once.
const STREAMS: (u32, u32) = (1, 10_000);

/// Limits of one HTTP/2 connection. All have defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Http2Config {
    /// Requests at once on a connection: of a listener, what clients are told; of a cluster, after
    /// how many another connection is opened, if the endpoint has not said less. Default 250. A
    /// stream in use takes about 6 KiB, and what its windows let wait.
    pub max_concurrent_streams: u32,
    /// Bytes of one stream that the other side may send before somebody takes them. Default
    /// 64 KiB, 1 KiB to 64 MiB. Raising it makes one transfer faster over a long way (as many bytes
    /// for each round trip), and lets each stalled stream hold that much memory.
    pub stream_window: u32,
    /// And of all streams of a connection: the memory that a peer can fill. Default: room for the
    /// windows of all streams, so that stalled ones never hold up the others. At least 65535 bytes
    /// and `stream_window`, at most 1 GiB. Lowering it bounds memory at that price.
    pub connection_window: Option<u32>,
    /// Longest frame that is taken. Default 16 KiB, at most 1 MiB.
    pub max_frame_size: u32,
    /// Longest header list that is taken, 32 bytes for each field counted in (RFC 9113 section
    /// 6.5.2). Default and at most 64 KiB.
    pub max_header_list_size: u32,
    /// Silence after which the other side is asked by PING whether it is there. Default 10 s, at
    /// least 1 s. Raising it finds dead peers later.
    #[serde(serialize_with = "milliseconds")]
    pub ping_interval: Duration,
    /// How long it may take to answer before the connection is given up. Default 3 s, at least
    /// 100 ms.
    #[serde(serialize_with = "milliseconds")]
    pub ping_timeout: Duration,
}

impl Http2Config {
    /// What holds where the file says nothing.
    pub const DEFAULT: Self = Self {
        max_concurrent_streams: 250,
        stream_window: 64 * KIB,
        connection_window: None,
        max_frame_size: 16 * KIB,
        max_header_list_size: 64 * KIB,
        ping_interval: Duration::from_secs(10),
        ping_timeout: Duration::from_secs(3),
    };

    /// Bytes that a peer may send ahead on all streams of a connection.
    #[must_use]
    pub fn connection_bytes(&self) -> u32 {
        let all = self.max_concurrent_streams.saturating_mul(self.stream_window);
        self.connection_window.unwrap_or(all.clamp(CONNECTION_WINDOWS.0, WINDOW_MAX))
    }
}

impl Default for Http2Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

pub(super) fn decode<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Http2Config {
    let mut http2 = Http2Config::default();
    r.object(node, &schema::HTTP2, |r, name, node| match name {
        "max_concurrent_streams" => {
            set(&mut http2.max_concurrent_streams, r.number(node, u32::MAX));
        }
        "stream_window" => set(&mut http2.stream_window, bytes(r, node)),
        "connection_window" => http2.connection_window = bytes(r, node),
        "max_frame_size" => set(&mut http2.max_frame_size, bytes(r, node)),
        "max_header_list_size" => set(&mut http2.max_header_list_size, bytes(r, node)),
        "ping_interval" => set(&mut http2.ping_interval, r.timeout(node)),
        _ => set(&mut http2.ping_timeout, r.timeout(node)),
    });
    http2
}

/// A size; one that is far too large for any of them stays too large.
fn bytes<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<u32> {
    r.scalar(node, scalars::bytes).map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// Checks the limits of the object at `at`, whose connections speak HTTP/2 if `speaks`.
pub(super) fn check(c: &mut Checker<'_, '_>, at: &At<'_>, http2: &Http2Config, speaks: bool) {
    let at = at.field("http2");
    if !speaks && *http2 != Http2Config::DEFAULT {
        let hint = "set `protocol: http2`, or leave `http2` out".to_owned();
        c.refuse_with(&at, "HTTP/2 is not spoken here".to_owned(), hint);
    }
    within(c, &at.field("max_concurrent_streams"), http2.max_concurrent_streams, STREAMS, "");
    within(c, &at.field("stream_window"), http2.stream_window, WINDOWS, " bytes");
    if let Some(window) = http2.connection_window {
        let least = http2.stream_window.clamp(CONNECTION_WINDOWS.0, CONNECTION_WINDOWS.1);
        let field = at.field("connection_window");
        within(c, &field, window, (least, CONNECTION_WINDOWS.1), " bytes");
    }
    within(c, &at.field("max_frame_size"), http2.max_frame_size, FRAMES, " bytes");
    let field = at.field("max_header_list_size");
    within(c, &field, http2.max_header_list_size, HEADER_LISTS, " bytes");
    let pings = [
        ("ping_interval", http2.ping_interval, Duration::from_secs(1), "1 s"),
        ("ping_timeout", http2.ping_timeout, Duration::from_millis(100), "100 ms"),
    ];
    for (name, value, least, text) in pings {
        let at = at.field(name);
        c.duration(&at, value);
        if value < least {
            c.refuse(&at, format!("must be at least {text}"));
        }
    }
}

fn within(c: &mut Checker<'_, '_>, at: &At<'_>, value: u32, (least, most): (u32, u32), unit: &str) {
    if value < least || value > most {
        c.refuse(at, format!("must be from {least} to {most}{unit}"));
    }
}
