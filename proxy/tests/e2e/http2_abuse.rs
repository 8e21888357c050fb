//! HTTP/2 clients that mean harm: each is cut, with its reason and a count, and nobody else notices.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::support::h2::{self as frames, H2Client, RawH2, get, request};
use super::support::{Backend, Origin, Proxy, eventually};

const ENHANCE_YOUR_CALM: u32 = 11;
/// What an attack may add to the memory of a proxy.
const GROWTH_BYTES_MAX: u64 = 32 << 20;
/// PRIORITY, and a type that no RFC knows.
const PRIORITY: u8 = 2;
const UNKNOWN: u8 = 0xbb;

fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

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
             - {{name: origin, endpoints: [{{address: '{}'}}]}}\n",
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
        let mut client = H2Client::connect(proxy.address("web"));
        let mut old = proxy.client("one");
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) || tries.load(Ordering::SeqCst) == 0 {
            let asked = Instant::now();
            assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
            times.push(asked.elapsed());
            let asked = Instant::now();
            assert_eq!(old.get("/").status, 200);
            times.push(asked.elapsed());
            assert!(!attacker.is_finished(), "the attack has failed");
            assert!(begun.elapsed() < Duration::from_secs(30), "the attack never ends");
        }
        drop(guard);
        let codes = attacker.join().unwrap();
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let tries = tries.load(Ordering::SeqCst);
        let text = format!("{} requests: median {median:?}, worst {worst:?}", times.len());
        println!("{text}; {tries} attacks, {codes:?}");
        assert!(median < Duration::from_millis(50) && worst < Duration::from_secs(1), "{text}");
        Seen { tries, codes }
    })
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

/// That the proxy never had much more memory than `before`.
fn bounded(proxy: &Proxy, before: u64) {
    let growth = proxy.peak_bytes().saturating_sub(before);
    println!("grown by {growth} bytes");
    assert!(growth < GROWTH_BYTES_MAX, "{growth}");
}

fn echo() -> Origin {
    Origin::http(|_, _| ok(b"x"))
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
        calmed(&proxy, "excess", |raw| {
            let mut fields = get("/", &[]);
            fields[0].1 = "POST";
            raw.head(1, false, &fields)?;
            flood(raw, 5000, |_| (frames::DATA, 0, 1, Vec::new()))
        });
        calmed(&proxy, "excess", |raw| {
            raw.send(frames::HEADERS, 0, 1, &frames::block(&get("/", &[])))?;
            flood(raw, 5000, |_| (frames::CONTINUATION, 0, 1, Vec::new()))
        });
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
            ("a window too large", head, Some(overflow)),
            ("malformed heads", frames::block(&odd), None),
        ];
        for (name, head, update) in provocations {
            println!("{name}");
            calmed(&proxy, "provoked_reset", |raw| {
                // Most of the streams are refused, as too many are open: those provoke nothing.
                flood(raw, 40_000, |number| match &update {
                    Some(update) if number % 2 == 1 => {
                        (frames::WINDOW_UPDATE, 0, number, update.clone())
                    }
                    Some(_) => (frames::HEADERS, ended, number + 1, head.clone()),
                    None => (frames::HEADERS, ended, 2 * number + 1, head.clone()),
                })
            });
        }
    }

    fn windows_that_open_without_end_are_cut(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        // The first stream keeps the connection from being idle; the windows never overflow.
        calmed(&proxy, "window_update", |raw| {
            flood(raw, 1_100_000, |_| (frames::WINDOW_UPDATE, 0, 0, vec![0, 0, 0, 1]))
        });
    }

    fn a_window_that_never_opens_ends_its_streams(backend: Backend) {
        let origin = Origin::http(|_, _| ok(&[b'x'; 100_000]));
        let proxy = proxy(backend, &origin);
        let before = proxy.resident_bytes();
        let mut raw = RawH2::connect(proxy.address("web"));
        raw.send(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).unwrap();
        for id in (1..200).step_by(2) {
            raw.head(id, true, &get("/", &[])).unwrap();
        }
        let mut reset = 0;
        while reset < 100 {
            let frame = raw.next().expect("every stream is reset");
            match frame.kind {
                frames::RST_STREAM => reset += 1,
                frames::PING if frame.flags == 0 => {
                    raw.send(frames::PING, 1, 0, &frame.payload).unwrap();
                }
                frames::DATA => panic!("no window was given"),
                _ => {}
            }
        }
        eventually("the streams end", || proxy.metric("ringway_http2_streams_open") == 0.0);
        assert_eq!(proxy.metric("ringway_failures_total{cause=\"client_stalled\""), 100.0);
        bounded(&proxy, before);
        assert_eq!(proxy.client("one").get("/").status, 200);
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
        let mut raw = RawH2::connect(proxy.address("web"));
        raw.head(0x7fff_ffff, true, &get("/", &[])).unwrap();
        let answer = raw.next_of(frames::HEADERS).expect("the last stream is served");
        assert_eq!(answer.stream, 0x7fff_ffff);
        raw.head(1, true, &get("/", &[])).unwrap();
        let goaway = raw.next_of(frames::GOAWAY).expect("there is none after it");
        assert!(matches!(frames::code(&goaway), 1 | 5), "{goaway:?}");
        let mut client = H2Client::connect(proxy.address("web"));
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
    }

    fn what_breaks_the_protocol_ends_the_connection_with_its_code(backend: Backend) {
        let origin = echo();
        let proxy = proxy(backend, &origin);
        const PROTOCOL: u32 = 1;
        const FLOW: u32 = 3;
        const CLOSED: u32 = 5;
        const SIZE: u32 = 6;
        const COMPRESSION: u32 = 9;
        type Breach = (&'static str, &'static [u32], fn(&mut RawH2) -> std::io::Result<()>);
        let breaches: [Breach; 11] = [
            ("RST_STREAM of an idle stream", &[PROTOCOL], |raw| {
                raw.send(frames::RST_STREAM, 0, 9, &[0, 0, 0, 8])
            }),
            ("DATA of an idle stream", &[PROTOCOL, CLOSED], |raw| {
                raw.send(frames::DATA, 0, 9, b"x")
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
            ("HPACK that is none", &[COMPRESSION, PROTOCOL], |raw| {
                raw.send(frames::HEADERS, frames::END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff])
            }),
        ];
        for (name, codes, breach) in breaches {
            let mut raw = RawH2::connect(proxy.address("web"));
            breach(&mut raw).unwrap();
            let goaway = raw.next_of(frames::GOAWAY).unwrap_or_else(|| panic!("{name}: no GOAWAY"));
            assert!(codes.contains(&frames::code(&goaway)), "{name}: {goaway:?}");
            assert!(raw.next().is_none(), "{name}: nothing comes after it");
        }
        let mut client = H2Client::connect(proxy.address("web"));
        assert_eq!(client.ask(request("GET", "/"), None).unwrap().status, 200);
        assert_eq!(proxy.metric("ringway_panics_total"), 0.0);
    }
}
