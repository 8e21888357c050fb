//! The open-loop generator against origins whose delays are known.

// The helpers below are part of the tests, but the lint does not see that.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringway-bench");
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Calls `answer` for every request of a kept connection; the request is all that comes at once.
fn origin(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            std::thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut room = [0; 4096];
                while stream.read(&mut room).is_ok_and(|count| count > 0) {
                    answer(&mut stream);
                }
            });
        }
    });
    address
}

fn load(target: SocketAddr, arguments: &[&str]) -> Output {
    let target = target.to_string();
    Command::new(PROGRAM)
        .args(["load", "--json", "--target", &target])
        .args(arguments)
        .output()
        .unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// What the process says at the end is left to each test: a busy machine makes any generator late.
fn measured(target: SocketAddr, arguments: &[&str]) -> serde_json::Value {
    let output = load(target, &[arguments, &["--lateness-max", "1s"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    report(&output)
}

/// An origin that answers nobody for the first 200 ms of every second.
#[test]
fn a_stall_of_a_fifth_of_each_second_is_in_the_percentiles() {
    let start = Instant::now();
    let target = origin(move |stream| {
        let into_second = start.elapsed().subsec_millis();
        if into_second < 200 {
            std::thread::sleep(Duration::from_millis(u64::from(200 - into_second)));
        }
        stream.write_all(OK).unwrap();
    });
    for rate in ["1000", "5000"] {
        let found = measured(target, &["--rate", rate, "-c", "32", "-s", "5"]);
        let asked: f64 = rate.parse().unwrap();
        assert_eq!(found["answered"], asked as u64 * 5, "{found}");
        // The window may end within a stall, whose answers are waited for.
        let seconds = found["seconds"].as_f64().unwrap();
        assert!((5.0..5.5).contains(&seconds), "the rate is kept: {found}");
        // A fifth of the requests fall into a stall and wait 100 ms on average. The connections are
        // all waiting soon, so a closed loop sees each stall 32 times and no more.
        let p99_ms = found["latency_us"]["p99"].as_f64().unwrap() / 1e3;
        assert!((180.0..260.0).contains(&p99_ms), "the stall is seen: {found}");
        let p90_ms = found["latency_us"]["p90"].as_f64().unwrap() / 1e3;
        assert!((80.0..160.0).contains(&p90_ms), "by all who waited: {found}");
        let uncorrected_ms = found["uncorrected_us"]["p90"].as_f64().unwrap() / 1e3;
        assert!(uncorrected_ms < 40.0, "a closed loop would hide it: {found}");
        assert!(found["waiting_max"].as_u64().unwrap() > 100, "{found}");
    }
}

/// Delays of 200 to 1190 ms in an order of their own, each as often as the others, measured by the
/// origin itself: on a busy machine no sleep is exact.
#[test]
fn percentiles_are_those_of_a_known_distribution_of_delays() {
    let delays_ns: Arc<Mutex<Vec<u64>>> = Arc::default();
    let kept = Arc::clone(&delays_ns);
    let number = AtomicUsize::new(0);
    let target = origin(move |stream| {
        let number = number.fetch_add(1, Ordering::Relaxed) as u64;
        // 37 and 100 have no common factor: every hundred requests have every delay once.
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(200 + (number * 37) % 100 * 10));
        kept.lock().unwrap().push(start.elapsed().as_nanos() as u64);
        stream.write_all(OK).unwrap();
    });
    let found = measured(target, &["--rate", "100", "-c", "256", "-s", "10", "--warm-up", "0"]);
    assert_eq!(found["answered"], 1000, "{found}");
    let mut delays_ns = delays_ns.lock().unwrap().clone();
    delays_ns.sort_unstable();
    for (name, rank) in [("p50", 500), ("p75", 750), ("p90", 900), ("p99", 990)] {
        let expected_us = delays_ns[rank - 1] as f64 / 1e3;
        let got_us = found["latency_us"][name].as_f64().unwrap();
        let off = got_us / expected_us - 1.0;
        assert!(off.abs() < 0.01, "{name}: {got_us} us, not {expected_us}, in {found}");
    }
}

/// Two generators that keep the same origin as busy as it can be.
#[test]
fn a_closed_loop_reaches_what_wrk_reaches() {
    let target = origin(|stream| {
        std::thread::sleep(Duration::from_millis(5));
        stream.write_all(OK).unwrap();
    });
    let found = measured(target, &["--closed", "-c", "16", "-s", "3"]);
    let ours = found["achieved_rate"].as_f64().unwrap();
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", "16", "-d", "3", &format!("http://{target}/")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap();
    let theirs: f64 = line.trim().parse().unwrap();
    assert!((ours / theirs - 1.0).abs() < 0.1, "{ours} and {theirs} a second");
}

#[test]
fn every_way_to_ask_is_answered() {
    let mut child = Command::new(PROGRAM)
        .args(["origin", "--listen", "127.0.0.1:0", "--tcp-bytes", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut address = || -> SocketAddr {
        let line = lines.next().unwrap().unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (http, tcp) = (address(), address());
    for (target, arguments) in [
        (http, &["--rate", "500"][..]),
        (http, &["--rate", "500", "--arrivals", "poisson"]),
        (http, &["--closed", "-c", "4"]),
        (http, &["--rate", "200", "--requests-per-connection", "1"]),
        (http, &["--rate", "200", "--requests-per-connection", "7"]),
        (http, &["--rate", "100", "--path", "/upload", "--body-bytes", "100000"]),
        (http, &["--rate", "100", "--path", "/bytes/1000000"]),
        (http, &["--rate", "100", "--path", "/chunked/100000"]),
        (tcp, &["--rate", "100", "--tcp-bytes", "1000000"]),
    ] {
        let found = measured(target, &[arguments, &["-s", "1", "--warm-up", "0"]].concat());
        assert_eq!(found["answered"], found["intended"], "{arguments:?}: {found}");
        assert!(found["answered"].as_u64().unwrap() > 50, "{arguments:?}: {found}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_requests_of_a_file_are_sent_in_turn() {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&heads);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut room = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            kept.lock().unwrap().push(String::from_utf8_lossy(&room[..count]).into_owned());
            stream.write_all(OK).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests");
    std::fs::write(&file, "a.test /1\nb.test /2?x\na.test /3\n").unwrap();
    let file = file.to_str().unwrap();
    measured(target, &["--rate", "5", "-c", "1", "-s", "1", "--warm-up", "0", "--requests", file]);
    let expected = [("a.test", "/1"), ("b.test", "/2?x"), ("a.test", "/3")];
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 5);
    for (head, (host, path)) in heads.iter().zip(expected.iter().cycle()) {
        assert_eq!(*head, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

#[test]
fn errors_are_counted_by_kind_and_fail_the_run() {
    let broken = origin(|stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failing =
        origin(|stream| stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").unwrap());
    let arguments = ["--rate", "100", "-s", "1", "--warm-up", "0", "--lateness-max", "1s"];
    for (target, kind, more) in [
        (broken, "closed before the answer", &[][..]),
        (failing, "status 503", &[]),
        (refused, "connection refused", &["--requests-per-connection", "1"]),
    ] {
        let output = load(target, &[&arguments, more].concat());
        assert_eq!(output.status.code(), Some(1));
        let found = report(&output);
        assert_eq!(found["errors"][kind], 100, "{found}");
    }
    // Nobody there at the beginning is an error at once.
    let output = load(refused, &arguments);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("connect to 127.0.0.1"));
}

#[test]
fn heads_and_bodies_have_the_size_that_is_asked_for() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut input = Vec::new();
            let head = loop {
                if let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                    break end + 4;
                }
                let mut room = [0; 65_536];
                match stream.read(&mut room).unwrap_or(0) {
                    0 => break 0,
                    count => input.extend_from_slice(&room[..count]),
                }
            };
            if head > 0 {
                let mut rest = vec![0; 5000 - (input.len() - head)];
                stream.read_exact(&mut rest).unwrap();
                seen.lock().unwrap().push(head);
                stream.write_all(OK).unwrap();
            }
        }
    });
    let common = ["--rate", "20", "-s", "1", "--warm-up", "0", "-c", "1", "--body-bytes", "5000"];
    for filler in ["0", "20000"] {
        let more = ["--requests-per-connection", "1", "--header-bytes", filler];
        let found = measured(target, &[&common[..], &more].concat());
        assert_eq!(found["answered"], 20, "{found}");
    }
    let sizes = sizes.lock().unwrap();
    let [without, with] = [sizes[0], sizes[20]];
    assert!(sizes[..20].iter().all(|&size| size == without));
    assert_eq!(with, without + "X-Filler: \r\n".len() + 20_000);
}

#[test]
fn a_generator_that_is_late_fails_its_run() {
    let target = origin(|stream| stream.write_all(OK).unwrap());
    let output = load(target, &["--rate", "2000", "-s", "1", "--lateness-max", "1us"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the generator was late"));
    assert_eq!(report(&output)["bottleneck"], true);
}

#[test]
fn the_interval_log_holds_every_request() {
    let target = origin(|stream| stream.write_all(OK).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("load.hlog");
    measured(target, &["--rate", "300", "-s", "3", "--hlog", file.to_str().unwrap()]);
    let text = std::fs::read(&file).unwrap();
    let log = hdrhistogram::serialization::interval_log::IntervalLogIterator::new(&text);
    let mut deserializer = hdrhistogram::serialization::Deserializer::new();
    let mut counts = Vec::new();
    for entry in log {
        let hdrhistogram::serialization::interval_log::LogEntry::Interval(interval) =
            entry.unwrap()
        else {
            continue;
        };
        let bytes = base64_of(interval.encoded_histogram());
        let histogram: hdrhistogram::Histogram<u64> =
            deserializer.deserialize(&mut &bytes[..]).unwrap();
        counts.push(histogram.len());
    }
    assert_eq!(counts, [300, 300, 300]);
}

/// Decodes base64 (RFC 4648 section 4).
fn base64_of(text: &str) -> Vec<u8> {
    let digits = text.bytes().take_while(|&byte| byte != b'=').map(|byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    });
    let digits: Vec<u8> = digits.collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0u32, |bits, &digit| bits << 6 | u32::from(digit))
            << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}
