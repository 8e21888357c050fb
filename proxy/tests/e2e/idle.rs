//! What idle connections cost, after each of them has carried a response of 16 KiB.
//!
//! The bounds of the issue hold for a release build: `RINGWAY_BIN` names it. A debug build has
//! larger futures, so it gets a wider bound here.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::epoll;

use crate::support::process::memory;
use crate::support::{Backend, Client, Proxy, eventually};

const CONNECTIONS: usize = 2000;
const BODY_BYTES: usize = 16 * 1024;
/// Bytes of user memory for each idle connection, at most.
const BYTES_MAX: u64 = if cfg!(debug_assertions) { 4096 } else { 1024 };

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

/// Resident memory of the proxy beyond `before`, once it has come to rest, over all connections.
fn bytes_each(proxy: &Proxy, before: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(2500));
    let after = memory(proxy.pid(), "Pss_Dirty").max(memory(proxy.pid(), "Private_Dirty"));
    after.saturating_sub(before) / CONNECTIONS as u64
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
        let each = bytes_each(&proxy, before);
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
        let each = bytes_each(&proxy, before);
        println!("{backend:?}: {each} bytes for each idle client and its pooled upstream");
        assert!(each <= 2 * BYTES_MAX, "{each}");
        for client in &mut clients {
            client.send(REQUEST);
        }
        clients.iter_mut().for_each(answer);
        assert_eq!(pooled() as usize, CONNECTIONS, "they were used again");
    }

    fn an_idle_tunnel_costs_little_and_still_carries(backend: Backend) {
        let _alone = alone();
        let proxy = Proxy::start(backend, &config(origin(1)));
        let before = resident(&proxy);
        let mut clients = connect(&proxy, "raw");
        for client in &mut clients {
            answer(client.send(REQUEST));
        }
        let each = bytes_each(&proxy, before);
        println!("{backend:?}: {each} bytes for each idle tunnel, two sockets");
        assert!(each <= 4 * BYTES_MAX, "{each}");
        for client in &mut clients {
            answer(client.send(REQUEST));
        }
    }
}
