//! HTTP/2 under mixed streams that are given up at random: nothing is left behind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;

use super::support::h2::{Answer, read_all, read_body, request, send_all};
use super::support::process::descriptors;
use super::support::{Backend, Origin, Proxy, eventually};

/// How long it goes on; `make soak` asks for an hour.
fn duration() -> Duration {
    let seconds = std::env::var("RINGWAY_STREAMS_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(6))
}

/// `/small`, `/big/N` (N bytes), `/slow/N` (after N milliseconds), `/up` (says how much came).
fn origin() -> Origin {
    Origin::connections(|mut stream, _| while answer(&mut stream).is_some() {})
}

fn answer(stream: &mut TcpStream) -> Option<()> {
    let mut piece = vec![0; 1 << 16];
    let mut seen = Vec::new();
    let head = loop {
        if let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut piece) {
            Ok(count @ 1..) => seen.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    };
    let text = String::from_utf8_lossy(&seen[..head]).into_owned();
    let mut words = text.split(' ').nth(1)?.split('/').skip(1);
    let (what, number) = (words.next()?, words.next().and_then(|word| word.parse().ok()));
    let number: usize = number.unwrap_or(0);
    let body = match what {
        "big" => vec![b'x'; number],
        "slow" => {
            std::thread::sleep(Duration::from_millis(number as u64));
            b"ok".to_vec()
        }
        "up" => {
            let mut body = seen.split_off(head);
            while !body.ends_with(b"\r\n0\r\n\r\n") && body != b"0\r\n\r\n" {
                match stream.read(&mut piece) {
                    Ok(count @ 1..) => body.extend_from_slice(&piece[..count]),
                    _ => return None,
                }
            }
            b"ok".to_vec()
        }
        _ => b"ok".to_vec(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.into_bytes(), body].concat()).ok()
}

/// A small generator: the order of things differs from stream to stream, and not from run to run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// One exchange, whole or given up somewhere.
async fn exchange(send: SendRequest<Bytes>, dice: &mut Dice) -> Result<(), String> {
    let text = |error: h2::Error| error.to_string();
    let mut send = send.ready().await.map_err(text)?;
    let mut begin = |method: &str, path: &str, ended: bool| {
        send.send_request(request(method, path).body(()).unwrap(), ended).map_err(text)
    };
    match dice.below(8) {
        0 | 1 => {
            let answer = read_all(begin("GET", "/small", true)?.0).await.map_err(text)?;
            return expected(&answer, 2);
        }
        2 => {
            let length = dice.below(300_000);
            let answer =
                read_all(begin("GET", &format!("/big/{length}"), true)?.0).await.map_err(text)?;
            return expected(&answer, length as usize);
        }
        3 => {
            let length = dice.below(300_000);
            let (response, stream) = begin("POST", "/up", false)?;
            let body = Bytes::from(vec![b'y'; length as usize]);
            let (sent, answer) = tokio::join!(send_all(stream, body, None), read_all(response));
            sent.map_err(text)?;
            return expected(&answer.map_err(text)?, 2);
        }
        4 => {
            let (response, _) = begin("GET", "/big/1000000", true)?;
            let mut body = response.await.map_err(text)?.into_body();
            read_body(&mut body, dice.below(100_000) as usize).await.map_err(text)?;
        }
        5 => {
            let (response, _) = begin("GET", "/slow/30", true)?;
            let patience = Duration::from_millis(dice.below(40));
            let _ = tokio::time::timeout(patience, response).await;
        }
        6 => {
            let (_response, mut stream) = begin("POST", "/up", false)?;
            stream.send_data(Bytes::from_static(b"some"), false).map_err(text)?;
            tokio::time::sleep(Duration::from_millis(dice.below(5))).await;
        }
        _ => drop(begin("GET", "/small", true)?),
    }
    Ok(())
}

/// An answer is whole, and what was asked for.
fn expected(answer: &Answer, length: usize) -> Result<(), String> {
    if (answer.status, answer.body.len()) == (200, length) {
        return Ok(());
    }
    Err(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

/// Connections one after the other until `end`, each with eight streams at once. Half of them are
/// cut with their streams. Returns the exchanges that went well, and what went wrong.
async fn client(address: SocketAddr, seed: u64, end: Instant) -> (u64, Vec<String>) {
    let mut dice = Dice(seed);
    let (mut done, mut wrong) = (0, Vec::new());
    while Instant::now() < end {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        let until = end.min(Instant::now() + Duration::from_millis(200 + dice.below(2000)));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (send, mut dice) = (send.clone(), Dice(dice.below(u64::MAX) | 1));
                tokio::spawn(async move {
                    let (mut done, mut wrong) = (0, Vec::new());
                    while Instant::now() < until && wrong.is_empty() {
                        match exchange(send.clone(), &mut dice).await {
                            Ok(()) => done += 1,
                            Err(error) => wrong.push(error),
                        }
                    }
                    (done, wrong)
                })
            })
            .collect();
        if dice.below(2) == 0 {
            for worker in workers {
                let (count, errors) = worker.await.unwrap();
                done += count;
                wrong.extend(errors);
            }
        } else {
            tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
            driving.abort();
            workers.iter().for_each(tokio::task::JoinHandle::abort);
        }
        driving.abort();
    }
    (done, wrong)
}

fn soak(backend: Backend) {
    let origin = origin();
    let config = |address: SocketAddr, protocol: &str| {
        format!(
            "listeners:\n- {{name: web, address: '127.0.0.1:0', protocol: http2}}\n\
             routes:\n- {{name: all, rules: [{{backends: [{{cluster: next}}]}}]}}\n\
             clusters:\n- {{name: next, protocol: {protocol}, pool: {{idle_timeout: 1s}}, \
             endpoints: [{{address: '{address}'}}]}}\n"
        )
    };
    let far = Proxy::start_quiet(backend, &config(origin.address, "http1"));
    let near = Proxy::start_quiet(backend, &config(far.address("web"), "http2"));
    for proxy in [&near, &far] {
        proxy.settle();
    }
    let before = [&near, &far].map(|proxy| descriptors(proxy.pid()).len());
    let address = near.address("web");
    let end = Instant::now() + duration();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (done, wrong) = runtime.block_on(async {
        let clients: Vec<_> =
            (1..=4).map(|seed| tokio::spawn(client(address, seed * 7919, end))).collect();
        let (mut done, mut wrong) = (0, Vec::new());
        for client in clients {
            let (count, errors) = client.await.unwrap();
            done += count;
            wrong.extend(errors);
        }
        (done, wrong)
    });
    drop(runtime);
    assert!(wrong.is_empty(), "{} went wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(done > 100, "{done} exchanges");
    for (proxy, before) in [&near, &far].into_iter().zip(before) {
        let is = |name: &str| proxy.metric(name);
        eventually("streams end", || is("ringway_http2_streams_open") == 0.0);
        eventually("connections end", || {
            is("ringway_downstream_connections") == 0.0
                && is("ringway_upstream_opened_total") == is("ringway_upstream_closed_total")
        });
        eventually("descriptors are closed", || descriptors(proxy.pid()).len() <= before + 1);
        assert_eq!(is("ringway_panics_total"), 0.0);
        let taken = proxy.resident_bytes();
        println!("{done} exchanges, {} streams, {taken} B", is("ringway_http2_streams_total"));
        assert!(taken < 64 << 20, "{taken} bytes resident");
    }
}

on_both_backends! {
    fn streams_that_are_given_up_at_random_leave_nothing(backend: Backend) {
        soak(backend);
    }
}
