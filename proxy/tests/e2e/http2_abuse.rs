//! HTTP/2 clients that mean harm: each is cut, with a reason and a count, and nobody else notices.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::support::h2::{self as frames, H2Client, RawH2, get, request};
use super::support::origin::ok;
use super::support::{Backend, Origin, Proxy, eventually};

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Connections that broke the protocol, as failures and as connections.
const MALFORMED: [&str; 2] = [
    "ringway_failures_total{cause=\"request_malformed\"}",
    "ringway_http2_connections_ended_total{reason=\"protocol_error\"}",
];
/// What an attack may add to the memory of a proxy.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
/// PRIORITY, and a type that no RFC knows.
const PRIORITY: u8 = 2;
const UNKNOWN: u8 = 0xbb;
/// A flag of DATA.
const PADDED: u8 = 8;

/// A proxy with a listener for each version, both of which lead to `origin`.
fn proxy(backend: Backend, origin: &Origin) -> Proxy {
    Proxy::start(
        backend,
        &format!(
            "listeners:\n\
             - {{name: web, address: '127.0.0.1:0', protocol: http2}}\n\
             - {{name: one, address: '127.0.0.1:0'}}\n\
             routes:\n\
             - {{name: all, rules: [{{backends: [{{cluster: origin}}], idle_timeout: 1s}}]}}\n\
             clusters:\n\
             - {{name: origin, connect_timeout: 20s, endpoints: [{{address: '{}'}}]}}\n",
            origin.address
        ),
    )
}

/// What came of an attack.
#[derive(Debug)]
struct Seen {
    /// Connections on which it was tried.
    tries: usize,
    /// The codes of the GOAWAY that ended them, each once.
    codes: BTreeSet<u32>,
}

/// Ends the attack, also when a request of somebody else has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs `attack` on one connection after the other, while others ask over either version. Their
/// requests must succeed, and must not take long.
fn unharmed(proxy: &Proxy, attack: impl Fn(&mut RawH2) -> std::io::Result<()> + Sync) -> Seen {
    let mut client = H2Client::connect(proxy.address("web"));
    let mut old = proxy.client("one");
    let mut ask = || {
        let asked = Instant::now();
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
        let new = asked.elapsed();
        assert_eq!(old.get("/").status, 200);
        [new, asked.elapsed() - new]
    };
    let quiet = median(&mut (0..20).flat_map(|_| ask()).collect::<Vec<_>>());
    let stop = AtomicBool::new(false);
    let tries = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut codes = BTreeSet::new();
            while !stop.load(Ordering::SeqCst) {
                let mut raw = RawH2::connect(proxy.address("web"));
                let patience = Some(Duration::from_secs(5));
                raw.stream.set_write_timeout(patience).unwrap();
                raw.stream.set_read_timeout(patience).unwrap();
                let _ = attack(&mut raw);
                tries.fetch_add(1, Ordering::SeqCst);
                let _ = raw.stream.shutdown(std::net::Shutdown::Write);
                codes.extend(raw.next_of(frames::GOAWAY).map(|frame| frames::code(&frame)));
            }
            codes
        });
        let guard = Stop(&stop);
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) || tries.load(Ordering::SeqCst) == 0 {
            times.extend(ask());
            assert!(!attacker.is_finished(), "the attack has failed");
            assert!(begun.elapsed() < Duration::from_secs(30), "the attack never ends");
        }
        drop(guard);
        let codes = attacker.join().unwrap();
        let (median, worst) = (median(&mut times), times[times.len() - 1]);
        let tries = tries.load(Ordering::SeqCst);
        let text = format!(
            "{} requests: median {median:?}, worst {worst:?}, without the attack {quiet:?}",
            times.len()
        );
        println!("{text}; {tries} attacks, {codes:?}");
        // What a busy host makes of it is not the attack's doing.
        assert!(median < Duration::from_millis(50).max(20 * quiet), "{text}");
        assert!(worst < Duration::from_secs(1).max(200 * quiet), "{text}");
        Seen { tries, codes }
    })
}

/// Sorts `times`.
fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// [`unharmed`], and that every connection of the attack ended with ENHANCE_YOUR_CALM and was
/// counted once, under `reason`.
fn calmed(
    proxy: &Proxy,
    reason: &str,
    attack: impl Fn(&mut RawH2) -> std::io::Result<()> + Sync,
) -> Seen {
    let all = "ringway_http2_connections_ended_total";
    let name = format!("{all}{{reason=\"{reason}\"}}");
    let (before, before_all) = (proxy.metric(&name), proxy.metric(all));
    let seen = unharmed(proxy, attack);
    assert_eq!(seen.codes, BTreeSet::from([ENHANCE_YOUR_CALM]), "{seen:?}");
    proxy.counts(&name, before + seen.tries as f64);
    assert_eq!(proxy.metric(all), before_all + seen.tries as f64, "under no other reason");
    seen
}

/// `count` times what `frame` makes of a number, sent in large pieces.
fn flood(
    raw: &mut RawH2,
    count: u32,
    frame: impl Fn(u32) -> (u8, u8, u32, Vec<u8>),
) -> std::io::Result<()> {
    let mut burst = Vec::new();
    for number in 0..count {
        let (kind, flags, id, payload) = frame(number);
        burst.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        burst.extend_from_slice(&[kind, flags]);
        burst.extend_from_slice(&id.to_be_bytes());
        burst.extend_from_slice(&payload);
        if burst.len() > 1 << 16 {
            raw.stream.write_all(&burst)?;
            burst.clear();
        }
    }
    raw.stream.write_all(&burst)
}

/// [`flood`] of `count` in rounds of 150 frames, each but the last of which is read to its end
/// before the next comes: few streams are open at once.
fn flood_in_rounds(
    raw: &mut RawH2,
    count: u32,
    frame: impl Fn(u32) -> (u8, u8, u32, Vec<u8>),
) -> std::io::Result<()> {
    for begin in (0..count).step_by(150) {
        if begin > 0 {
            assert!(answers_ping(raw), "after {begin} frames");
        }
        flood(raw, 150, |number| frame(begin + number))?;
    }
    Ok(())
}

/// That the proxy never had much more memory than `before`.
fn bounded(proxy: &Proxy, before: u64) {
    let growth = proxy.peak_bytes().saturating_sub(before);
    println!("grown by {growth} bytes");
    assert!(growth < GROWTH_BYTES_MAX, "{growth}");
}

/// An origin that answers everything but what is asked of `/never`.
fn echo() -> Origin {
    Origin::http(|head, _| if head.contains(" /never ") { Vec::new() } else { ok(b"x") })
}

/// Asks on stream 1 and reads the answer to its end, after which the stream is closed.
fn closed_stream(raw: &mut RawH2) -> std::io::Result<()> {
    raw.head(1, true, &get("/", &[]))?;
    while let Some(frame) = raw.next() {
        if frame.kind == frames::DATA && frame.flags & frames::END_STREAM != 0 {
            return Ok(());
        }
    }
    panic!("the stream is answered");
}

/// Whether the connection still does what it is asked to.
fn answers_ping(raw: &mut RawH2) -> bool {
    raw.send(frames::PING, 0, 0, b"the same").unwrap();
    raw.next_of(frames::PING).is_some_and(|frame| frame.flags == 1 && frame.payload == b"the same")
}

/// Sends `preface` instead of one, and returns what comes until the connection ends.
fn answer_to(preface: &[u8], address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(preface).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the connection ends");
    }
    answer
}

/// What ends a connection, and the codes that may be the reason.
type Breach = (&'static str, &'static [u32], fn(&mut RawH2) -> std::io::Result<()>);

/// That `count` connections were ended for a breach of the protocol, and none for an excess.
fn breached(proxy: &Proxy, count: usize) {
    for name in MALFORMED {
        proxy.counts(name, count as f64);
    }
    assert_eq!(proxy.metric("ringway_http2_connections_ended_total"), count as f64);
}

/// That each of `breaches` ends its connection with its code and is counted, over and over, and
/// that nobody else notices.
fn broken(proxy: &Proxy, breaches: &[Breach]) {
    let seen = unharmed(proxy, |raw| {
        for (name, codes, breach) in breaches {
            let mut raw = RawH2::connect(raw.stream.peer_addr()?);
            breach(&mut raw)?;
            let goaway = raw.next_of(frames::GOAWAY).unwrap_or_else(|| panic!("{name}: no GOAWAY"));
            assert!(codes.contains(&frames::code(&goaway)), "{name}: {goaway:?}");
            assert!(raw.next().is_none(), "{name}: nothing comes after it");
        }
        Ok(())
    });
    breached(proxy, seen.tries * breaches.len());
}

on_both_backends! {
    fn control_frames_without_end_are_cut(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        let floods: [(&str, u8, &[u8]); 4] = [
            ("SETTINGS", frames::SETTINGS, b""),
            ("PING", frames::PING, &[7; 8]),
            ("PRIORITY", PRIORITY, &[0, 0, 0, 0, 9]),
            ("unknown", UNKNOWN, b"abc"),
        ];
        for (name, kind, payload) in floods {
            // PRIORITY is of a stream, the others of the connection.
            let id = u32::from(kind == PRIORITY);
            println!("{name}");
            calmed(&proxy, "control", |raw| {
                flood(raw, 20_000, |_| (kind, 0, id, payload.to_vec()))
            });
        }
        bounded(&proxy, before);
    }

    fn frames_that_say_nothing_are_cut(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        let mut fields = get("/", &[]);
        fields[0].1 = "POST";
        calmed(&proxy, "empty", |raw| {
            raw.head(1, false, &fields)?;
            flood(raw, 5000, |_| (frames::DATA, 0, 1, Vec::new()))
        });
        bounded(&proxy, before);
        // Padding alone is no end of anything either, but takes of the window.
        calmed(&proxy, "excess", |raw| {
            raw.head(1, false, &fields)?;
            flood(raw, 5000, |_| (frames::DATA, PADDED, 1, vec![0]))
        });
        calmed(&proxy, "excess", |raw| {
            raw.send(frames::HEADERS, 0, 1, &frames::block(&get("/", &[])))?;
            // Fewer than would be a flood by their number.
            flood(raw, 900, |_| (frames::CONTINUATION, 0, 1, Vec::new()))
        });
    }

    fn a_long_life_may_have_many_frames_that_say_nothing(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let mut fields = get("/", &[]);
        fields[0].1 = "POST";
        let mut raw = RawH2::connect(proxy.address("web"));
        for id in [1, 3, 5] {
            raw.head(id, false, &fields).unwrap();
            flood(&mut raw, 200, |_| (frames::DATA, 0, id, Vec::new())).unwrap();
            raw.send(frames::DATA, 0, id, b"ab").unwrap();
            // A header comes in two pieces, of which the first may be that of any frame.
            for half in [&[0, 0, 0, 0][..], &[0, 0, 0, 0, id as u8]] {
                raw.stream.write_all(half).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            raw.send(frames::DATA, frames::END_STREAM, id, b"c").unwrap();
            assert_eq!(raw.next_of(frames::HEADERS).expect("an answer").stream, id);
            assert_eq!(raw.next_of(frames::DATA).expect("its body").payload, b"x");
        }
        assert!(answers_ping(&mut raw), "h2 ends a connection after 100 of them");
        assert_eq!(proxy.metric("ringway_http2_connections_ended_total"), 0.0);
    }

    fn a_head_without_end_is_cut(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        calmed(&proxy, "excess", |raw| {
            raw.send(frames::HEADERS, 0, 1, &frames::block(&get("/", &[])))?;
            let field = frames::block(&[("x-some-name", "and a value of some length")]);
            flood(raw, 100_000, |_| (frames::CONTINUATION, 0, 1, field.clone()))
        });
        bounded(&proxy, before);
    }

    fn fields_that_unfold_to_megabytes_are_refused_in_bounded_memory(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        // One field of 4000 bytes is put into the table, and named 8000 times: 32 MB.
        let mut block = frames::block(&get("/", &[]));
        block.extend_from_slice(&[0x40, 1, b'x', 0x7f]);
        let length = 4000 - 127;
        block.extend_from_slice(&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
        // None of the digits of an X-Request-Id, which are in every head.
        block.extend(vec![b'z'; 4000]);
        block.extend(vec![0xbe; 8000]);
        calmed(&proxy, "excess", |raw| {
            let flags = frames::END_HEADERS | frames::END_STREAM;
            flood(raw, 20, |number| (frames::HEADERS, flags, 2 * number + 1, block.clone()))
        });
        let reached = origin.heads().iter().any(|head| head.contains("zzzz"));
        assert!(!reached, "none of them reaches the origin");
        bounded(&proxy, before);
    }

    fn streams_that_make_us_reset_them_are_cut(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let head = frames::block(&get("/", &[]));
        let ended = frames::END_HEADERS | frames::END_STREAM;
        let mut odd = get("/", &[]);
        odd.push(("connection", "close"));
        let overflow = 0x7fff_ffff_u32.to_be_bytes().to_vec();
        // A window beyond what there is, for a stream that is served; and heads that are malformed.
        let provocations = [
            ("a window too large", head, Some(overflow), 2050),
            ("malformed heads", frames::block(&odd), None, 1050),
        ];
        for (name, head, update, count) in provocations {
            println!("{name}");
            calmed(&proxy, "provoked_reset", |raw| {
                flood_in_rounds(raw, count, |number| match &update {
                    Some(update) if number % 2 == 1 => {
                        (frames::WINDOW_UPDATE, 0, number, update.clone())
                    }
                    Some(_) => (frames::HEADERS, ended, number + 1, head.clone()),
                    None => (frames::HEADERS, ended, 2 * number + 1, head.clone()),
                })
            });
        }
    }

    fn streams_beyond_the_limit_are_refused_until_they_are_a_flood(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        // It is answered by the proxy itself, with words that say why.
        let head = frames::block(&get("/%00", &[]));
        let ended = frames::END_HEADERS | frames::END_STREAM;
        calmed(&proxy, "refused_stream", |raw| {
            // Without a window none of them ends: 250 are open.
            raw.send(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])?;
            flood(raw, 1000, |number| (frames::HEADERS, ended, 2 * number + 1, head.clone()))?;
            for _ in 0..750 {
                let reset = raw.next_of(frames::RST_STREAM).expect("it is refused");
                assert_eq!(frames::code(&reset), REFUSED);
            }
            assert!(answers_ping(raw), "a client may not have seen the limit");
            flood(raw, 5000, |number| (frames::HEADERS, ended, 2 * number + 2001, head.clone()))
        });
        bounded(&proxy, before);
    }

    fn bodies_of_another_length_than_their_heads_say_are_cut(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let mut fields = get("/short", &[("content-length", "5")]);
        fields[0].1 = "POST";
        let head = frames::block(&fields);
        calmed(&proxy, "provoked_reset", |raw| {
            flood_in_rounds(raw, 2050, |number| match number % 2 {
                0 => (frames::HEADERS, frames::END_HEADERS, number + 1, head.clone()),
                _ => (frames::DATA, frames::END_STREAM, number, b"1234".to_vec()),
            })
        });
    }

    fn data_of_a_closed_stream_is_refused_and_then_ignored(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        unharmed(&proxy, |raw| {
            closed_stream(raw)?;
            flood(raw, 1000, |_| (frames::DATA, 0, 1, b"x".to_vec()))?;
            raw.send(frames::PING, 0, 0, b"the same")?;
            let mut resets = Vec::new();
            loop {
                let frame = raw.next().expect("the connection stays");
                match frame.kind {
                    frames::RST_STREAM => resets.push((frame.stream, frames::code(&frame))),
                    frames::PING if frame.flags == 1 => break,
                    _ => {}
                }
            }
            // What has been reset is remembered for a second.
            assert!((1..=10).contains(&resets.len()), "{resets:?}");
            assert!(resets.iter().all(|reset| *reset == (1, CLOSED)), "{resets:?}");
            Ok(())
        });
        assert_eq!(proxy.metric("ringway_http2_connections_ended_total"), 0.0);
    }

    fn rapid_resets_end_the_connection_and_leave_others_alone(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let head = frames::block(&get("/reset", &[]));
        let ended = frames::END_HEADERS | frames::END_STREAM;
        let seen = calmed(&proxy, "excess", |raw| {
            flood(raw, 2000, |number| match number % 2 {
                0 => (frames::HEADERS, ended, number + 1, head.clone()),
                _ => (frames::RST_STREAM, 0, number, vec![0, 0, 0, 8]),
            })
        });
        let reached = origin.heads().iter().filter(|head| head.contains("/reset")).count();
        // No more than those whose reset came in another piece than their head.
        assert!(reached < 5 * seen.tries, "{reached} of {} attacks", seen.tries);
    }

    fn resets_of_a_closed_stream_are_borne_until_they_are_a_flood(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        calmed(&proxy, "reset", |raw| {
            closed_stream(raw)?;
            flood(raw, 100, |_| (frames::RST_STREAM, 0, 1, vec![0, 0, 0, 8]))?;
            assert!(answers_ping(raw), "a reset may come late (RFC 9113 section 5.1)");
            raw.head(3, true, &get("/", &[]))?;
            assert!(raw.next_of(frames::HEADERS).is_some(), "and the next stream is served");
            flood(raw, 5000, |_| (frames::RST_STREAM, 0, 1, vec![0, 0, 0, 8]))
        });
    }

    fn windows_that_open_without_end_are_cut(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        // The first stream keeps the connection from being idle; the windows never overflow. A busy
        // host may be too slow to flood anybody, for a while.
        calmed(&proxy, "window_update", |raw| {
            flood(raw, 20_000_000, |_| (frames::WINDOW_UPDATE, 0, 0, vec![0, 0, 0, 1]))
        });
    }

    fn a_window_that_never_opens_ends_its_streams(backend: Backend) {
        let origin = Origin::http(|_, _| ok(&[b'x'; 100_000]));
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        let seen = unharmed(&proxy, |raw| {
            let begun = Instant::now();
            raw.send(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])?;
            for id in (1..200).step_by(2) {
                raw.head(id, true, &get("/", &[]))?;
            }
            let mut reset = BTreeSet::new();
            while reset.len() < 100 {
                let frame = raw.next().expect("every stream is reset, and the connection stays");
                match frame.kind {
                    frames::RST_STREAM => {
                        assert!(begun.elapsed() > Duration::from_millis(900), "not before its time");
                        assert!(reset.insert(frame.stream), "once");
                    }
                    frames::DATA => panic!("no window was given"),
                    _ => {}
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            assert!(answers_ping(raw), "the connection is not to blame");
            Ok(())
        });
        eventually("the streams end", || proxy.metric("ringway_http2_streams_open") == 0.0);
        let stalled = "ringway_failures_total{cause=\"client_stalled\"}";
        assert_eq!(proxy.metric(stalled), 100.0 * seen.tries as f64);
        bounded(&proxy, before);
    }

    fn pings_whose_answers_nobody_reads_are_cut_in_bounded_memory(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        // So many connections stay open on this side, and what comes on them is not read.
        let open = Mutex::new(VecDeque::new());
        let seen = unharmed(&proxy, |_| {
            let mut raw = RawH2::connect(proxy.address("web"));
            rustix::net::sockopt::set_socket_recv_buffer_size(&raw.stream, 4096)?;
            let sent = flood(&mut raw, 20_000, |_| (frames::PING, 0, 0, vec![7; 8]));
            let mut open = open.lock().unwrap();
            open.push_back(raw);
            if open.len() > 150 {
                open.pop_front();
            }
            sent
        });
        let ended = "ringway_http2_connections_ended_total";
        proxy.counts(&format!("{ended}{{reason=\"control\"}}"), seen.tries as f64);
        bounded(&proxy, before);
        eventually("they are given up", || proxy.metric("ringway_downstream_connections") == 0.0);
    }

    fn a_client_that_reads_no_answers_fills_nothing(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        let mut raw = RawH2::connect(proxy.address("web"));
        raw.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // Below what counts as a flood, and each with an answer.
        for round in 0..2000 {
            let sent = raw.head(round * 2 + 1, true, &get("/", &[]));
            if sent.is_err() {
                break;
            }
        }
        assert_eq!(proxy.client("one").get("/").status, 200);
        bounded(&proxy, before);
    }

    fn streams_that_have_run_out_end_their_connection_only(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let seen = unharmed(&proxy, |raw| {
            raw.head(0x7fff_ffff, true, &get("/", &[]))?;
            let answer = raw.next_of(frames::HEADERS).expect("the last stream is served");
            assert_eq!(answer.stream, 0x7fff_ffff);
            assert!(answers_ping(raw), "nothing is wrong yet");
            raw.head(1, true, &get("/again", &[]))
        });
        assert!(!seen.codes.is_empty(), "every next one ends the connection");
        assert!(seen.codes.iter().all(|code| [PROTOCOL, CLOSED].contains(code)), "{seen:?}");
        breached(&proxy, seen.tries);
        assert!(!origin.heads().iter().any(|head| head.contains("/again")));
    }

    fn what_breaks_the_protocol_ends_the_connection_with_its_code(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        broken(&proxy, &[
            ("RST_STREAM of an idle stream", &[PROTOCOL], |raw| {
                raw.send(frames::RST_STREAM, 0, 9, &[0, 0, 0, 8])
            }),
            ("DATA of an idle stream", &[PROTOCOL, CLOSED], |raw| {
                raw.send(frames::DATA, 0, 9, b"x")
            }),
            ("empty DATA of an idle stream", &[PROTOCOL, CLOSED], |raw| {
                raw.send(frames::DATA, 0, 9, b"")
            }),
            ("empty DATA of the connection", &[PROTOCOL], |raw| raw.send(frames::DATA, 0, 0, b"")),
            ("empty DATA between those of a head", &[PROTOCOL], |raw| {
                raw.send(frames::HEADERS, 0, 1, &frames::block(&get("/", &[])))?;
                raw.send(frames::DATA, 0, 1, b"")
            }),
            ("a stream with an even number", &[PROTOCOL], |raw| raw.head(2, true, &get("/", &[]))),
            ("CONTINUATION of nothing", &[PROTOCOL], |raw| {
                raw.send(frames::CONTINUATION, frames::END_HEADERS, 1, b"")
            }),
            ("HEADERS between those of a head", &[PROTOCOL], |raw| {
                raw.send(frames::HEADERS, 0, 1, &frames::block(&get("/", &[])))?;
                raw.send(frames::PING, 0, 0, &[0; 8])
            }),
            ("a frame that is too long", &[SIZE], |raw| {
                raw.send(frames::DATA, 0, 1, &vec![0; 16_385])
            }),
            ("SETTINGS of five bytes", &[SIZE, PROTOCOL], |raw| raw.send(frames::SETTINGS, 0, 0, &[0; 5])),
            ("a window that opens by nothing", &[PROTOCOL], |raw| {
                raw.head(1, true, &get("/", &[]))?;
                raw.send(frames::WINDOW_UPDATE, 0, 1, &[0; 4])
            }),
            ("PING of seven bytes", &[SIZE, PROTOCOL], |raw| raw.send(frames::PING, 0, 0, &[0; 7])),
            ("a window of the connection that overflows", &[FLOW], |raw| {
                raw.send(frames::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())
            }),
            // RFC 9113 section 4.3 wants COMPRESSION_ERROR; the h2 crate says PROTOCOL_ERROR.
            ("HPACK that is none", &[COMPRESSION, PROTOCOL], |raw| {
                raw.send(frames::HEADERS, frames::END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff])
            }),
            ("a table of HPACK beyond its limit", &[COMPRESSION, PROTOCOL], |raw| {
                // 65536 bytes, where 4096 are allowed.
                let mut block = vec![0x3f, 0xe1, 0xff, 0x03];
                block.extend(frames::block(&get("/", &[])));
                raw.send(frames::HEADERS, frames::END_HEADERS, 1, &block)
            }),
        ]);
        assert_eq!(proxy.metric("ringway_panics_total"), 0.0);
    }

    fn what_comes_for_a_stream_that_has_ended_ends_the_connection(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        // A stream error would do (RFC 9113 section 5.1); more than that is allowed (5.4.1).
        broken(&proxy, &[
            ("DATA after the end of a request", &[PROTOCOL, CLOSED], |raw| {
                raw.head(1, true, &get("/never", &[]))?;
                raw.send(frames::DATA, 0, 1, b"x")
            }),
            ("HEADERS after the end of a request", &[PROTOCOL, CLOSED], |raw| {
                raw.head(1, true, &get("/never", &[]))?;
                raw.head(1, true, &[("x-more", "fields")])
            }),
            ("HEADERS of a closed stream", &[PROTOCOL, CLOSED], |raw| {
                closed_stream(raw)?;
                raw.head(1, true, &get("/", &[]))
            }),
        ]);
    }

    fn a_table_of_hpack_within_its_limit_is_no_abuse(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let mut raw = RawH2::connect(proxy.address("web"));
        // 4096 bytes, and all that is the same but for one.
        let mut block = vec![0x3f, 0xe1, 0x1f];
        block.extend(frames::block(&get("/", &[])));
        let flags = frames::END_HEADERS | frames::END_STREAM;
        raw.send(frames::HEADERS, flags, 1, &block).unwrap();
        assert_eq!(raw.next_of(frames::HEADERS).expect("an answer").stream, 1);
        let mut raw = RawH2::connect(proxy.address("web"));
        block[1] = 0xe2;
        raw.send(frames::HEADERS, flags, 1, &block).unwrap();
        assert!(raw.next_of(frames::GOAWAY).is_some(), "4097 bytes");
    }

    fn a_client_that_does_not_begin_with_settings_is_not_served(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let head = frames::block(&get("/never", &[]));
        let ended = frames::END_HEADERS | frames::END_STREAM;
        let firsts: [(u8, u8, u32, &[u8]); 5] = [
            (frames::HEADERS, ended, 1, &head),
            (frames::PING, 0, 0, &[7; 8]),
            (frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            // Not the SETTINGS that it owes.
            (frames::SETTINGS, 1, 0, b""),
            (UNKNOWN, 0, 0, b"abc"),
        ];
        let seen = unharmed(&proxy, |raw| {
            for (kind, flags, id, payload) in firsts {
                let mut raw = RawH2::without_settings(raw.stream.peer_addr()?);
                raw.send(kind, flags, id, payload)?;
                raw.send(frames::SETTINGS, 0, 0, b"")?;
                raw.head(3, true, &get("/never", &[]))?;
                let goaway = raw.next_of(frames::GOAWAY).expect("it is told");
                assert_eq!(frames::code(&goaway), PROTOCOL, "{kind}");
                assert!(raw.next().is_none(), "nothing comes after it");
            }
            Ok(())
        });
        breached(&proxy, seen.tries * firsts.len());
        assert!(!origin.heads().iter().any(|head| head.contains("/never")));
    }

    fn what_is_no_preface_is_closed(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        let prefaces: [&[u8]; 4] = [
            b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX\0\0\0\x04\0\0\0\0\0",
            b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 the beginning of a handshake of TLS",
        ];
        let seen = unharmed(&proxy, |raw| {
            for preface in prefaces {
                let answer = answer_to(preface, raw.stream.peer_addr()?);
                assert!(!answer.starts_with(b"HTTP/1"), "{answer:?}");
            }
            Ok(())
        });
        breached(&proxy, seen.tries * prefaces.len());
        assert!(!origin.heads().iter().any(|head| head.contains("/never")));
    }
}
