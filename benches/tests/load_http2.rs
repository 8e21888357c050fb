//! The load over HTTP/2 and as gRPC, against the origin, nginx, nghttpd and peers that misbehave.

// The helpers below are part of the tests, but the lint does not see that.
#![allow(clippy::unwrap_used)]

mod peers;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
};

use peers::{Peer, free_address, load, measured, median, report};

const SHORT: [&str; 4] = ["-s", "1", "--warm-up", "0"];

#[test]
fn every_way_to_ask_is_answered() {
    let origin = Peer::origin(&[]);
    for arguments in [
        &["--http2", "--rate", "500"][..],
        &["--http2", "--rate", "500", "--arrivals", "poisson", "-c", "2", "--streams", "8"],
        &["--http2", "--closed", "-c", "2", "--streams", "32"],
        &["--http2", "--rate", "200", "--requests-per-connection", "1"],
        &[
            "--http2",
            "--rate",
            "500",
            "--requests-per-connection",
            "7",
            "-c",
            "2",
            "--streams",
            "4",
        ],
        &["--http2", "--rate", "100", "--path", "/upload", "--body-bytes", "3000000"],
        &["--http2", "--rate", "100", "--path", "/bytes/3000000", "-c", "2", "--streams", "8"],
        &["--http2", "--rate", "100", "--path", "/trailers/100000"],
        &["--http2", "--rate", "100", "--path", "/slow/50", "-c", "1", "--streams", "32"],
        &["--grpc", "/bench.Bench/Echo", "--rate", "500", "-c", "2", "--streams", "8"],
        &["--grpc", "/bench.Bench/Echo", "--rate", "100", "--body-bytes", "300000"],
        &["--grpc", "/bench.Bench/Bytes300000", "--rate", "100"],
    ] {
        let found = measured(origin.address, &[arguments, &SHORT].concat());
        assert_eq!(found["answered"], found["intended"], "{arguments:?}: {found}");
        assert!(found["answered"].as_u64().unwrap() > 50, "{arguments:?}: {found}");
    }
}

/// One connection with 32 streams to an origin that stands still for 200 ms of every second.
#[test]
fn a_stall_of_a_fifth_of_each_second_is_in_the_percentiles() {
    let origin = Peer::origin(&[]);
    let stalls = origin.stall(8);
    let arguments = ["--http2", "--rate", "2000", "-c", "1", "--streams", "32", "-s", "5"];
    let found = measured(origin.address, &arguments);
    stalls.join().unwrap();
    assert_eq!(found["answered"], 10_000, "{found}");
    let ms = |kind: &str, at: &str| found[kind][at].as_f64().unwrap() / 1e3;
    let (p90, p99) = (ms("latency_us", "p90"), ms("latency_us", "p99"));
    assert!((180.0..260.0).contains(&p99), "the stall is seen: {found}");
    assert!((80.0..160.0).contains(&p90), "by all who waited: {found}");
    assert!(ms("uncorrected_us", "p90") < 40.0, "a closed loop would hide it: {found}");
    assert!(found["waiting_max"].as_u64().unwrap() > 100, "{found}");
}

/// Both keep an origin busy that answers each request after 5 ms, in turn.
#[test]
fn a_closed_loop_reaches_what_h2load_reaches() {
    let origin = Peer::origin(&["--delay", "5ms"]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let arguments = ["--http2", "--closed", "-c", "4", "--streams", "8", "-s", "2"];
        ours.push(measured(origin.address, &arguments)["achieved_rate"].as_f64().unwrap());
        theirs.push(h2load(origin.address, &["-c", "4", "-m", "8", "-D", "2"]));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    assert!(theirs > 3000.0, "{theirs} a second");
    assert!((ours / theirs - 1.0).abs() < 0.1, "{ours} and {theirs} a second");
}

/// Requests a second, of which none failed.
fn h2load(target: SocketAddr, arguments: &[&str]) -> f64 {
    let output =
        Command::new("h2load").args(arguments).arg(format!("http://{target}/")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(" 0 failed, 0 errored, 0 timeout"), "{text}");
    let (_, rest) = text.split_once("finished in ").unwrap();
    let rate = rest.split_once("s, ").unwrap().1.split_once(" req/s").unwrap().0;
    rate.parse().unwrap()
}

/// nginx ends a connection with GOAWAY after a number of requests.
#[test]
fn servers_of_others_are_asked_without_errors() {
    let nginx = Peer::nginx(
        "server { listen LISTEN http2; keepalive_requests 10; return 200 ok; }",
        |_| {},
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "ok").unwrap();
    let address = free_address();
    let mut command = Command::new("nghttpd");
    command.args(["--no-tls", "--address=127.0.0.1", "-d"]).arg(folder.path());
    let nghttpd = Peer::started(command.arg(address.port().to_string()), address, Some(folder));
    for peer in [&nginx, &nghttpd] {
        // One stream: of several, some would be sent before the GOAWAY is seen.
        let common = ["--http2", "--rate", "1000", "-c", "16"];
        let found = measured(peer.address, &[&common[..], &SHORT].concat());
        assert_eq!((&found["answered"], &found["intended"]), (&1000.into(), &1000.into()));
    }
}

/// Calls `answer` with the stream of each request; what comes is read frame by frame.
fn misbehaving(answer: impl Fn(&mut TcpStream, u32) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), std::sync::Arc::clone(&answer));
            std::thread::spawn(move || -> std::io::Result<()> {
                stream.read_exact(&mut [0; 24])?;
                stream.write_all(&frame(4, 0, &[]))?;
                loop {
                    let mut head = [0; 9];
                    stream.read_exact(&mut head)?;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    stream.read_exact(&mut vec![0; length as usize])?;
                    let id = u32::from_be_bytes(head[5..].try_into().unwrap());
                    if head[3] == 1 {
                        answer(&mut stream, id);
                    }
                }
            });
        }
    });
    address
}

/// A frame without flags (RFC 9113 section 4.1).
fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn errors_are_counted_by_kind_and_fail_the_run() {
    let resets = misbehaving(|stream, id| {
        stream.write_all(&frame(3, id, &7u32.to_be_bytes())).unwrap();
    });
    let leaves = misbehaving(|stream, _| {
        let last_and_code = [0u32.to_be_bytes(), 11u32.to_be_bytes()].concat();
        stream.write_all(&frame(7, 0, &last_and_code)).unwrap();
    });
    let closes = misbehaving(|stream, _| stream.shutdown(std::net::Shutdown::Both).unwrap());
    let speaks_http1 = misbehaving(|stream, _| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let origin = Peer::origin(&["--error-rate", "1"]);
    let call = ["--grpc", "/a.B/C"];
    for (target, kind, ways) in [
        (resets, "RST_STREAM REFUSED_STREAM", &["--http2"][..]),
        (leaves, "GOAWAY ENHANCE_YOUR_CALM", &["--http2"]),
        (closes, "closed before the answer", &["--http2"]),
        (speaks_http1, "not HTTP/2: FRAME_SIZE_ERROR", &["--http2"]),
        (origin.address, "status 503", &["--http2"]),
        (origin.address, "grpc-status 14", &call),
    ] {
        let output = load(target, &[ways, &SHORT, &["--rate", "50", "-c", "2"]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(report(&output)["errors"][kind], 50, "{}", report(&output));
    }
}

/// A response to HTTP alone is none to gRPC.
#[test]
fn a_call_whose_status_is_missing_has_failed() {
    let nginx = Peer::nginx("server { listen LISTEN http2; return 200 ok; }", |_| {});
    let output = load(nginx.address, &[&["--grpc", "/a.B/C", "--rate", "50"], &SHORT[..]].concat());
    assert_eq!(report(&output)["errors"]["no grpc-status"], 50, "{}", report(&output));
}
