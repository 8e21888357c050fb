//! HTTP/2: what many stalled readers and one long body cost in memory, for endpoints of either
//! version.

use std::io::{Read, Write};
use std::process::Command;

use super::support::h2::{H2Client, read_body, request};
use super::support::{Backend, Origin, Proxy, eventually};

/// What a stalled stream may take of a proxy: what the other side may send ahead, and half as much
/// for what it is.
const STALLED_BYTES_MAX: u64 = 96 << 10;
/// What a body of any length may take: twice what a connection may have under way on both sides.
const LONG_BYTES_MAX: u64 = 16 << 20;
const LONG: u64 = 1 << 30;

/// Answers every request with `length` bytes, for as long as they are taken.
fn source(length: u64) -> Origin {
    Origin::connections(move |mut stream, _| {
        let mut head = [0; 4096];
        while stream.read(&mut head).is_ok_and(|count| count > 0) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            if stream.write_all(head.as_bytes()).is_err() {
                return;
            }
            let piece = vec![b'x'; 1 << 16];
            for _ in 0..length >> 16 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    })
}

/// Takes what it is sent and says how much it was.
fn sink() -> Origin {
    Origin::connections(|mut stream, _| {
        let mut piece = vec![0; 1 << 16];
        let (mut total, mut head) = (0, Vec::new());
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut piece) {
                Ok(count @ 1..) => head.extend_from_slice(&piece[..count]),
                _ => return,
            }
        }
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        total += head.len() - end;
        while (total as u64) < LONG {
            match stream.read(&mut piece) {
                Ok(count @ 1..) => total += count,
                _ => return,
            }
        }
        let text = total.to_string();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let _ = stream.write_all(answer.as_bytes());
    })
}

/// Two proxies in a row: clients speak HTTP/2 with the first, it speaks HTTP/2 with the second,
/// and that one HTTP/1.1 with `origin`.
struct Chain {
    near: Proxy,
    far: Proxy,
}

impl Chain {
    fn start(backend: Backend, origin: &Origin) -> Self {
        let proxy = |address, protocol: &str| {
            Proxy::start(
                backend,
                &format!(
                    "listeners:\n\
                     - {{name: web, address: '127.0.0.1:0', protocol: http2, \
                     http2: {{ping_interval: 1m}}}}\n\
                     routes:\n- {{name: all, rules: [{{backends: [{{cluster: next}}]}}]}}\n\
                     clusters:\n\
                     - {{name: next, protocol: {protocol}, connect_timeout: 20s, \
                     endpoints: [{{address: '{address}'}}]}}\n"
                ),
            )
        };
        let far = proxy(origin.address, "http1");
        let near = proxy(far.address("web"), "http2");
        Self { near, far }
    }

    /// Bytes that each has resident now.
    fn resident(&self) -> [u64; 2] {
        [self.near.resident_bytes(), self.far.resident_bytes()]
    }

    /// The most bytes that each ever had resident.
    fn peak(&self) -> [u64; 2] {
        [self.near.peak_bytes(), self.far.peak_bytes()]
    }
}

fn grown(before: [u64; 2], after: [u64; 2]) -> [u64; 2] {
    [0, 1].map(|side| after[side].saturating_sub(before[side]))
}

on_both_backends! {
    fn a_thousand_stalled_readers_take_what_their_windows_allow(backend: Backend) {
        // Little: the kernel holds what the proxies do not, and has a limit for all connections.
        let origin = source(256 << 10);
        let chain = Chain::start(backend, &origin);
        chain.near.settle();
        let before = chain.resident();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(32 << 10).initial_connection_window_size(32 << 20);
        let mut clients: Vec<H2Client> =
            (0..5).map(|_| H2Client::with(chain.near.address("web"), &mut builder)).collect();
        // One after the other: so many connections at once would be too many for the origin.
        let mut bodies = Vec::new();
        for client in &mut clients {
            for _ in 0..200 {
                let (response, _) = client.begin(request("GET", "/"), true);
                let response = client.run(response).unwrap();
                assert_eq!(response.status(), 200);
                bodies.push(response.into_body());
            }
        }
        // As much as the windows allow comes; then everything stands still.
        for (nth, body) in bodies.iter_mut().enumerate() {
            let mut total = 0;
            while total < 32 << 10 {
                total += clients[nth / 200].run(body.data()).unwrap().unwrap().len();
            }
        }
        assert_eq!(chain.near.metric("ringway_http2_streams_open"), 1000.0);
        let taken = grown(before, chain.resident());
        assert!(taken.iter().all(|bytes| *bytes < 1000 * STALLED_BYTES_MAX), "{taken:?}");
        // The last of them reads on, and nobody else has to.
        let body = bodies.last_mut().unwrap();
        let _ = body.flow_control().release_capacity(32 << 10);
        let read = clients[4].run(read_body(body, 200 << 10)).unwrap();
        assert!(read.len() >= 200 << 10);
        drop(bodies);
        drop(clients);
        for proxy in [&chain.near, &chain.far] {
            eventually("all streams end", || proxy.metric("ringway_http2_streams_open") == 0.0);
        }
        // The allocator is asked to give back what is free once nothing more goes quiet.
        eventually("memory is given back", || {
            grown(before, chain.resident()).iter().all(|bytes| *bytes < 16 << 20)
        });
        println!("{taken:?} taken, {:?} stay", grown(before, chain.resident()));
    }

    fn a_gibibyte_goes_down_one_stream_in_bounded_memory(backend: Backend) {
        let origin = source(LONG);
        let chain = Chain::start(backend, &origin);
        let before = chain.resident();
        let url = format!("http://{}/", chain.near.address("web"));
        let output = Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "--max-time", "300", "-o", "/dev/null"])
            .args(["-w", "%{http_code} %{size_download}", &url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("200 {LONG}"));
        let taken = grown(before, chain.peak());
        assert!(taken.iter().all(|bytes| *bytes < LONG_BYTES_MAX), "{taken:?}");
    }

    fn a_gibibyte_goes_up_one_stream_in_bounded_memory(backend: Backend) {
        let origin = sink();
        let chain = Chain::start(backend, &origin);
        let before = chain.resident();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body");
        // All holes: it takes no room on the disk.
        std::fs::File::create(&file).unwrap().set_len(LONG).unwrap();
        let url = format!("http://{}/", chain.near.address("web"));
        let output = Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "--max-time", "300", "-T"])
            .arg(&file)
            .arg(&url)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), LONG.to_string());
        let taken = grown(before, chain.peak());
        assert!(taken.iter().all(|bytes| *bytes < LONG_BYTES_MAX), "{taken:?}");
    }
}
