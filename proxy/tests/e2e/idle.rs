//! What idle connections cost, after each of them has carried a response of 16 KiB.
//!
//! What a connection keeps while it is idle is the same in debug and release builds, so the bounds
//! of the issue hold for both.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::support::http::End;
use crate::support::process::memory;
use crate::support::{Backend, Client, Proxy, eventually};

const CONNECTIONS: usize = 2000;
const BODY_BYTES: usize = 16 * 1024;
/// Bytes of user memory for each idle connection, at most.
const BYTES_MAX: u64 = 1024;

/// An origin of one thread that answers every request with 16 KiB and keeps its connections.
/// It answers when `together` requests are waiting, so that as many connections are needed.
fn origin(together: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let watch = |stream: &dyn std::os::fd::AsFd, key: u64| {
            let data = epoll::EventData::new_u64(key);
            epoll::add(&events, stream.as_fd(), data, epoll::EventFlags::IN).unwrap();
        };
        watch(&listener, 0);
        let mut streams: HashMap<u64, TcpStream> = HashMap::new();
        let mut waiting = Vec::new();
        let mut ready = Vec::with_capacity(256);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        let response = [head.into_bytes(), vec![b'x'; BODY_BYTES]].concat();
        loop {
            ready.clear();
            epoll::wait(&events, rustix::buffer::spare_capacity(&mut ready), None).unwrap();
            for event in &ready {
                let key = event.data.u64();
                if key == 0 {
                    let (stream, _) = listener.accept().unwrap();
                    let key = streams.len() as u64 + 1;
                    watch(&stream, key);
                    streams.insert(key, stream);
                } else if matches!(streams[&key].try_clone().unwrap().read(&mut [0; 4096]), Ok(1..))
                {
                    waiting.push(key);
                } else {
                    let _ = epoll::delete(&events, &streams[&key]);
                }
            }
            if waiting.len() >= together {
                for key in waiting.drain(..) {
                    let _ = streams.get_mut(&key).unwrap().write_all(&response);
                }
            }
        }
    });
    address
}

fn config(origin: SocketAddr) -> String {
    format!(
        "listeners:\n\
         - {{name: web, address: '127.0.0.1:0'}}\n\
         - {{name: raw, address: '127.0.0.1:0', protocol: tcp, cluster: origin}}\n\
         routes:\n\
         - {{name: all, rules: [{{backends: [{{cluster: origin}}]}}]}}\n\
         clusters:\n\
         - {{name: origin, endpoints: [{{address: '{origin}'}}], \
             pool: {{idle_timeout: 60s, idle_max: 10000}}}}\n"
    )
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n";

fn connect(proxy: &Proxy, listener: &str) -> Vec<Client> {
    (0..CONNECTIONS).map(|_| proxy.client(listener)).collect()
}

fn answer(client: &mut Client) {
    let response = client.response();
    assert_eq!((response.status, response.body.len()), (200, BODY_BYTES));
}

/// Memory of the proxy beyond `before` over all connections, once it has come down to `most` or to
/// rest.
fn bytes_each(proxy: &Proxy, before: u64, most: u64) -> u64 {
    let each = || resident(proxy).saturating_sub(before) / CONNECTIONS as u64;
    let end = Instant::now() + Duration::from_secs(10);
    std::thread::sleep(Duration::from_secs(2));
    while each() > most && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    // Nothing is on its way up or down any more.
    std::thread::sleep(Duration::from_millis(500));
    each()
}

/// One after the other: together they need more descriptors than a process may have.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn resident(proxy: &Proxy) -> u64 {
    memory(proxy.pid(), "Private_Dirty")
}

on_both_backends! {
    fn an_idle_client_costs_little_and_is_still_served(backend: Backend) {
        let _alone = alone();
        let proxy = Proxy::start(backend, &config(origin(1)));
        // What the first requests need stays: it is not the connections'.
        let mut first = proxy.client("web");
        for _ in 0..10 {
            answer(first.send(REQUEST));
        }
        let before = resident(&proxy);
        let mut clients = connect(&proxy, "web");
        for client in &mut clients {
            answer(client.send(REQUEST));
        }
        let each = bytes_each(&proxy, before, BYTES_MAX);
        println!("{backend:?}: {each} bytes for each idle client");
        assert!(each <= BYTES_MAX, "{each}");
        for client in &mut clients {
            answer(client.send(REQUEST));
        }
    }

    fn idle_clients_and_pooled_upstreams_cost_little_after_a_burst(backend: Backend) {
        let _alone = alone();
        let proxy = Proxy::start(backend, &config(origin(CONNECTIONS)));
        let before = resident(&proxy);
        let mut clients = connect(&proxy, "web");
        for client in &mut clients {
            client.send(REQUEST);
        }
        clients.iter_mut().for_each(answer);
        let pooled = || proxy.metric("ringway_upstream_idle_connections");
        eventually("all upstreams are idle", || pooled() as usize == CONNECTIONS);
        let each = bytes_each(&proxy, before, 2 * BYTES_MAX);
        println!("{backend:?}: {each} bytes for each idle client and its pooled upstream");
        assert!(each <= 2 * BYTES_MAX, "{each}");
        for client in &mut clients {
            client.send(REQUEST);
        }
        clients.iter_mut().for_each(answer);
        // An upstream goes back to the pool after the client has its response.
        eventually("they are idle again", || pooled() as usize == CONNECTIONS);
        let reused = proxy.metric("ringway_upstream_reused_total") as usize;
        assert!(reused >= CONNECTIONS, "they were used again: {reused}");
    }

    fn an_idle_tunnel_costs_little_and_still_carries(backend: Backend) {
        let _alone = alone();
        let proxy = Proxy::start(backend, &config(origin(1)));
        let before = resident(&proxy);
        let mut clients = connect(&proxy, "raw");
        for client in &mut clients {
            answer(client.send(REQUEST));
        }
        let each = bytes_each(&proxy, before, 6 * BYTES_MAX);
        println!("{backend:?}: {each} bytes for each idle tunnel, two sockets");
        assert!(each <= 6 * BYTES_MAX, "{each}");
        for client in &mut clients {
            answer(client.send(REQUEST));
        }
    }

    fn a_parked_client_is_served_closed_and_timed_out_like_any_other(backend: Backend) {
        let text = config(origin(1)).replace("name: web,", "name: web, idle_timeout: 3s,");
        let mut proxy = Proxy::start(backend, &format!("drain: {{delay: 0s}}\n{text}"));
        let open = || proxy.metric("ringway_downstream_connections");
        let mut clients: Vec<Client> = (0..4).map(|_| proxy.client("web")).collect();
        clients.iter_mut().for_each(|client| answer(client.send(REQUEST)));
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(open(), 4.0, "they are parked and count");
        // One comes back in pieces, one leaves, one breaks, and one stays silent.
        let [mut back, leaves, breaks, mut silent] = clients.try_into().ok().unwrap();
        back.send(&REQUEST[..7]);
        drop(leaves);
        breaks.reset();
        eventually("those who left are gone", || open() == 2.0);
        answer(back.send(&REQUEST[7..]));
        let started = Instant::now();
        assert_eq!(silent.end(), End::Finished, "its idle time is over");
        assert!(started.elapsed() < Duration::from_secs(8));
        answer(back.send(REQUEST));
        std::thread::sleep(Duration::from_millis(1500));
        proxy.signal("TERM");
        assert_eq!(back.end(), End::Finished, "a drain closes who is parked");
        assert_eq!(proxy.wait(Duration::from_secs(10)).code(), Some(0));
    }
}
