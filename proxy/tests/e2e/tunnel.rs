//! TCP tunnels: bytes arrive as they were sent, and nothing leaks, spins or grows.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, sockopt};

use crate::support::http::{Client, End};
use crate::support::origin::read_request;
use crate::support::pair::{
    Ends, PATIENCE, Pair, config, drain, exchange, read_pattern, read_pattern_to_end, reset,
    write_pattern, write_pattern_while,
};
use crate::support::process::{
    connections, leave_descriptors, limit_descriptors, memory, pipe_ends, queued,
};
use crate::support::{Backend, Origin, Proxy, eventually};

const MIB: u64 = 1024 * 1024;
/// Ends of pipes that a worker keeps at most (`limits::PIPES_POOLED`).
const PIPE_ENDS_POOLED: usize = 2 * 64;

/// Writes the pattern of `seed` on a thread of its own.
fn sending(stream: &TcpStream, seed: u64, bytes: u64) -> std::thread::JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        stream.set_write_timeout(Some(Duration::from_secs(40))).unwrap();
        write_pattern(&mut stream, seed, bytes);
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

/// Writes `piece` again and again, until none of it has been taken for half a second. Returns how
/// many bytes were. Others may read from the stream meanwhile.
fn fill(stream: &TcpStream, piece: usize) -> u64 {
    let piece = vec![3u8; piece];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let (mut bytes, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_millis(500) {
        match rustix::net::send(stream, &piece, flags) {
            Ok(count) => {
                bytes += count as u64;
                last = Instant::now();
            }
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
    bytes
}

fn round_trip(pair: &mut Pair) -> Duration {
    let started = Instant::now();
    pair.greet();
    started.elapsed()
}

on_both_backends! {
    fn sixty_four_mebibytes_go_both_ways_at_once(backend: Backend) {
        let ends = Ends::start(backend);
        let mut pair = ends.connect();
        let forth = sending(&pair.client, 1, 64 * MIB);
        let back = sending(&pair.server, 2, 64 * MIB);
        let mut client = pair.client.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            read_pattern(&mut client, 2, 64 * MIB);
            drain(&mut client)
        });
        read_pattern(&mut pair.server, 1, 64 * MIB);
        assert_eq!(drain(&mut pair.server), (0, End::Finished));
        assert_eq!(reading.join().unwrap(), (0, End::Finished));
        forth.join().unwrap();
        back.join().unwrap();
        eventually("the tunnel has ended", || ends.proxy.metric("ringway_tunnels_total") == 1.0);
        assert_eq!(ends.proxy.metric("ringway_failures_total"), 0.0, "it ended well");
    }

    fn a_server_that_speaks_first_is_heard(backend: Backend) {
        let ends = Ends::start(backend);
        let mut pair = ends.connect();
        let Pair { client, server } = &mut pair;
        exchange(server, client, b"220 ready\r\n");
        exchange(client, server, b"HELO\r\n");
    }

    /// Where the system paces, a connection within this host is taken out of that.
    fn connections_on_this_host_are_not_paced(backend: Backend) {
        let ends = Ends::start(backend);
        let mut pair = ends.connect();
        pair.greet();
        let system = sockopt::tcp_congestion(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let expected = if system.starts_with("bbr") { "reno" } else { &system };
        let both = [pair.client.local_addr().unwrap(), pair.server.local_addr().unwrap()];
        let mut seen = 0;
        for (fd, _, peer) in connections(ends.proxy.pid()) {
            if both.contains(&peer) {
                assert_eq!(sockopt::tcp_congestion(&fd).unwrap(), expected, "to {peer}");
                seen += 1;
            }
        }
        assert_eq!(seen, 2, "downstream and upstream");
    }

    fn single_bytes_arrive_one_by_one(backend: Backend) {
        let ends = Ends::start(backend);
        let Pair { mut client, mut server } = ends.connect();
        for byte in 0..=255 {
            exchange(&mut client, &mut server, &[byte]);
            exchange(&mut server, &mut client, &[255 - byte]);
        }
    }

    fn a_silent_tunnel_ends_after_its_idle_time(backend: Backend) {
        for (listener, cluster) in [("", "idle_timeout: 1s"), ("idle_timeout: 1s", "")] {
            let ends = Ends::start_with(backend, listener, cluster);
            let mut pair = ends.connect();
            pair.greet();
            let started = Instant::now();
            // Neither side is told that all is well: this is no end of the transfer.
            assert_eq!(drain(&mut pair.client).1, End::Reset);
            assert_eq!(drain(&mut pair.server).1, End::Reset);
            let took = started.elapsed();
            assert!((800..4000).contains(&took.as_millis()), "{took:?}");
        }
    }

    fn a_half_closed_silent_tunnel_ends_after_its_idle_time(backend: Backend) {
        let ends = Ends::start_with(backend, "", "idle_timeout: 1s");
        let mut pair = ends.connect();
        pair.greet();
        pair.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut pair.server), (0, End::Finished));
        let started = Instant::now();
        assert_eq!(drain(&mut pair.client).1, End::Reset);
        assert!(started.elapsed() < Duration::from_secs(6));
    }

    fn a_tunnel_with_one_active_direction_is_not_idle(backend: Backend) {
        let ends = Ends::start_with(backend, "", "idle_timeout: 2s");
        let mut pair = ends.connect().swap();
        pair.greet();
        for _ in 0..15 {
            exchange(&mut pair.client, &mut pair.server, b"x");
            std::thread::sleep(Duration::from_millis(200));
        }
        pair.greet();
    }

    fn a_stalled_direction_lives_while_the_other_is_active(backend: Backend) {
        let ends = Ends::start_with(backend, "", "idle_timeout: 5s");
        // In small pieces, so that it is copied, and in large ones, so that it is spliced.
        for piece in [700, 64 * 1024] {
            let Pair { client, mut server } = ends.connect();
            server.set_read_timeout(Some(4 * PATIENCE)).unwrap();
            let (active, mut hearing) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                // Active from the first byte to the last: the kernel takes bytes from the client
                // for a while after the proxy has stopped, and what it could not deliver in the
                // stall it may send again only seconds after the stall has ended.
                let beats = scope.spawn(|| heartbeat(active, &done));
                let heard = scope.spawn(|| drain(&mut hearing));
                let bytes = fill(&client, piece);
                // Longer than the idle time, which is longer than a busy host stands still.
                std::thread::sleep(Duration::from_secs(8));
                client.shutdown(Shutdown::Write).unwrap();
                let came = drain(&mut server);
                done.store(true, Ordering::Relaxed);
                assert_eq!(came, (bytes, End::Finished), "pieces of {piece}");
                let beats = beats.join().unwrap();
                server.shutdown(Shutdown::Write).unwrap();
                assert_eq!(heard.join().unwrap(), (beats, End::Finished));
            });
        }
    }

    fn both_sockets_have_the_options_of_a_connection(backend: Backend) {
        let ends = Ends::start(backend);
        let mut pair = ends.connect();
        pair.greet();
        let client = pair.client.local_addr().unwrap();
        let server = pair.server.local_addr().unwrap();
        let all = connections(ends.proxy.pid());
        for side in [client, server] {
            let (fd, ..) = all.iter().find(|(_, _, peer)| *peer == side).expect("its socket");
            assert!(sockopt::tcp_nodelay(fd).unwrap());
            assert!(sockopt::socket_keepalive(fd).unwrap());
            assert_eq!(sockopt::tcp_keepidle(fd).unwrap(), Duration::from_secs(10));
            assert_eq!(sockopt::tcp_keepintvl(fd).unwrap(), Duration::from_secs(10));
            assert_eq!(sockopt::tcp_keepcnt(fd).unwrap(), 2);
            // It would end peers that do not read for a while (`silence`).
            assert_eq!(sockopt::tcp_user_timeout(fd).unwrap(), 0);
        }
    }

    fn a_client_is_reset_at_once_when_nobody_listens(backend: Backend) {
        let free = crate::support::free_address();
        let proxy = Proxy::start(backend, &config(free, "", ""));
        let mut client = proxy.client("raw");
        let started = Instant::now();
        assert_eq!(client.end(), End::Reset);
        assert!(started.elapsed() < Duration::from_secs(2));
        let failed = "ringway_failures_total{cause=\"connect_failed\"}";
        eventually("the cause is counted", || proxy.metric(failed) == 1.0);
    }

    fn an_endpoint_may_be_a_name(backend: Backend) {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = origin.local_addr().unwrap().port();
        let text = config(origin.local_addr().unwrap(), "", "");
        let text = text.replace(&format!("127.0.0.1:{port}"), &format!("localhost:{port}"));
        let proxy = Proxy::start(backend, &text);
        let mut client = proxy.client("raw").stream;
        let (mut server, _) = origin.accept().unwrap();
        exchange(&mut client, &mut server, b"by name");
        exchange(&mut server, &mut client, b"indeed");
    }

    fn a_proxy_header_that_came_is_sent_on_in_either_version(backend: Backend) {
        for (version, expected) in [("v1", V1.to_vec()), ("v2", V2.to_vec())] {
            let ends = Ends::start_with(
                backend,
                "accept_proxy_protocol: true",
                &format!("send_proxy_protocol: {version}"),
            );
            for header in [V1.to_vec(), V2.to_vec()] {
                let mut client = ends.proxy.client("raw");
                client.dribble(&header).send(b"payload");
                let (mut server, _) = ends.listener.accept().unwrap();
                let mut got = vec![0; expected.len() + 7];
                server.read_exact(&mut got).unwrap();
                assert_eq!(got, [&expected[..], b"payload"].concat(), "{version}");
            }
        }
    }

    fn a_proxy_header_of_our_own_names_the_client_and_the_address_it_called(backend: Backend) {
        let ends = Ends::start_with(backend, "", "send_proxy_protocol: v1");
        let Pair { mut client, mut server } = ends.connect();
        let (from, to) = (client.local_addr().unwrap(), ends.proxy.address("raw"));
        let expected = format!(
            "PROXY TCP4 {} {} {} {}\r\nhello",
            from.ip(),
            to.ip(),
            from.port(),
            to.port()
        );
        client.write_all(b"hello").unwrap();
        let mut got = vec![0; expected.len()];
        server.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), expected);
        exchange(&mut server, &mut client, b"welcome");
    }

    fn a_connection_without_the_proxy_header_reaches_nobody(backend: Backend) {
        let ends = Ends::start_with(backend, "accept_proxy_protocol: true", "");
        let mut client = ends.proxy.client("raw");
        client.send(b"GET / HTTP/1.1\r\n\r\n");
        assert_ne!(client.end(), End::Open);
        let refused = "ringway_failures_total{cause=\"proxy_header\"}";
        eventually("it is counted", || ends.proxy.metric(refused) == 1.0);
        ends.listener.set_nonblocking(true).unwrap();
        assert_eq!(ends.listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn small_messages_are_copied_and_bulk_is_spliced(backend: Backend) {
        let ends = Ends::start(backend);
        let spliced = || ends.proxy.metric("ringway_splice_bytes_total");
        let copied = || ends.proxy.metric("ringway_copy_bytes_total");
        let mut pair = ends.connect();
        for _ in 0..100 {
            pair.greet();
        }
        assert_eq!((spliced(), copied()), (0.0, 800.0));
        let bulk = sending(&pair.client, 5, 16 * MIB);
        read_pattern(&mut pair.server, 5, 16 * MIB);
        bulk.join().unwrap();
        eventually("the bulk is counted", || spliced() + copied() == 800.0 + 16.0 * MIB as f64);
        assert!(spliced() > 15.0 * MIB as f64, "{} of it were spliced", spliced());
    }

    fn a_tunnel_that_talks_in_small_pieces_after_a_bulk_is_copied_again(backend: Backend) {
        let ends = Ends::start(backend);
        let Pair { mut client, mut server } = ends.connect();
        std::thread::scope(|scope| {
            scope.spawn(|| client.write_all(&vec![0; 4 * MIB as usize]).unwrap());
            server.read_exact(&mut vec![0; 4 * MIB as usize]).unwrap();
        });
        let spliced = || ends.proxy.metric("ringway_splice_bytes_total");
        assert!(spliced() > 0.0);
        eventually("small pieces are copied", || {
            let before = spliced();
            for _ in 0..20 {
                exchange(&mut client, &mut server, b"small again");
                // Without this the next piece may come before the proxy has looked for it.
                std::thread::sleep(Duration::from_millis(3));
            }
            spliced() == before
        });
    }

    fn no_pipe_is_left_behind_by_two_hundred_tunnels(backend: Backend) {
        let ends = Ends::start(backend);
        let before = pipe_ends(ends.proxy.pid());
        for round in 0..2 {
            let mut batch = Vec::new();
            for number in 0..100u64 {
                let mut pair = ends.connect();
                batch.push(std::thread::spawn(move || {
                    let bulk = sending(&pair.client, number, MIB);
                    if number % 4 == 0 {
                        // Broken with bytes on the way.
                        pair.server.read_exact(&mut [0; 100_000]).unwrap();
                        reset(&pair.server);
                        let _ = bulk.join();
                        return;
                    }
                    read_pattern(&mut pair.server, number, MIB);
                    bulk.join().unwrap();
                }));
            }
            let results: Vec<_> = batch.into_iter().map(std::thread::JoinHandle::join).collect();
            assert!(results.iter().all(Result::is_ok));
            let ended = || ends.proxy.metric("ringway_tunnels_total");
            eventually("all have ended", || ended() == f64::from(100 * (round + 1)));
            let after = pipe_ends(ends.proxy.pid());
            assert!(after <= before + PIPE_ENDS_POOLED, "{before} before, {after} after");
        }
    }

    fn silent_spliced_tunnels_hold_no_pipe(backend: Backend) {
        let ends = Ends::start(backend);
        let before = pipe_ends(ends.proxy.pid());
        let mut pairs = Vec::new();
        for _ in 0..80 {
            let mut pair = ends.connect();
            pair.client.write_all(&[1; 200_000]).unwrap();
            pair.server.read_exact(&mut [0; 200_000]).unwrap();
            pairs.push(pair);
        }
        let held = pipe_ends(ends.proxy.pid()) - before;
        assert!(held <= 20, "one after the other, they need few pipes: {held} ends");
        assert!(ends.proxy.metric("ringway_splice_bytes_total") > 0.0);
        for pair in &mut pairs {
            pair.greet();
        }
    }

    fn a_tunnel_goes_on_by_copying_when_there_is_no_descriptor_for_a_pipe(backend: Backend) {
        let ends = Ends::start(backend);
        let mut pair = ends.connect();
        pair.greet();
        ends.proxy.settle();
        leave_descriptors(ends.proxy.pid(), 0);
        let bulk = sending(&pair.client, 9, 16 * MIB);
        read_pattern(&mut pair.server, 9, 16 * MIB);
        bulk.join().unwrap();
        limit_descriptors(ends.proxy.pid(), 10_000);
        assert_eq!(ends.proxy.metric("ringway_splice_bytes_total"), 0.0);
        assert!(ends.proxy.metric("ringway_copy_bytes_total") >= 16.0 * MIB as f64);
        let bulk = sending(&pair.server, 9, 16 * MIB);
        read_pattern(&mut pair.client, 9, 16 * MIB);
        bulk.join().unwrap();
        assert!(ends.proxy.metric("ringway_splice_bytes_total") > 0.0, "pipes are back");
    }

    fn a_stalled_tunnel_costs_no_processor_and_delays_nobody(backend: Backend) {
        let ends = Ends::start(backend);
        let mut stalled = ends.connect();
        let taken = fill(&stalled.client, 64 * 1024);
        let mut other = ends.connect();
        other.greet();
        let (cpu, started) = (ends.proxy.cpu_time(), Instant::now());
        let mut slowest = Duration::ZERO;
        while started.elapsed() < Duration::from_secs(3) {
            slowest = slowest.max(round_trip(&mut other));
            std::thread::sleep(Duration::from_millis(100));
        }
        let share = (ends.proxy.cpu_time() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
        println!("{backend:?}: {:.2} % while stalled, slowest {slowest:?}", 100.0 * share);
        assert!(share < 0.05, "{share}");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        assert!(ends.proxy.metric("ringway_splice_bytes_total") > 0.0);
        held_is_bounded(&ends, &stalled, taken);
        stalled.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut stalled.server), (taken, End::Finished));
    }

    fn a_bulk_transfer_leaves_room_for_others(backend: Backend) {
        let ends = Ends::start(backend);
        let mut bulk = ends.connect();
        let mut other = ends.connect();
        other.greet();
        let mut sender = bulk.client.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let piece = vec![0; MIB as usize];
            (0..1024).for_each(|_| sender.write_all(&piece).unwrap());
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let reading = std::thread::spawn(move || drain(&mut bulk.server));
        let mut slowest = Duration::ZERO;
        let mut rounds = 0;
        while !reading.is_finished() {
            slowest = slowest.max(round_trip(&mut other));
            rounds += 1;
        }
        assert_eq!(reading.join().unwrap(), (1024 * MIB, End::Finished));
        sending.join().unwrap();
        println!("{backend:?}: {rounds} round trips beside 1 GiB, slowest {slowest:?}");
        assert!(rounds > 20);
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    }

    fn a_hundred_stalled_tunnels_keep_memory_small_and_then_finish(backend: Backend) {
        let ends = Ends::start(backend);
        // So that the sockets hold little, and what is held up shows.
        sockopt::set_socket_recv_buffer_size(&ends.listener, 64 * 1024).unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let mut senders = Vec::new();
        let mut servers = Vec::new();
        for seed in 0..100 {
            let Pair { mut client, server } = ends.connect();
            sockopt::set_socket_send_buffer_size(&client, 128 * 1024).unwrap();
            client.set_write_timeout(Some(4 * PATIENCE)).unwrap();
            let enough = Arc::clone(&enough);
            senders.push(std::thread::spawn(move || {
                write_pattern_while(&mut client, seed, || !enough.load(Ordering::Relaxed))
            }));
            servers.push(server);
        }
        std::thread::sleep(Duration::from_secs(2));
        let resident = memory(ends.proxy.pid(), "Rss");
        println!("{backend:?}: {} KiB resident with 100 stalled tunnels", resident / 1024);
        assert!(resident < 64 * MIB, "{resident}");
        enough.store(true, Ordering::Relaxed);
        let readers = servers.into_iter().zip(0..).map(|(mut server, seed)| {
            std::thread::spawn(move || {
                server.set_read_timeout(Some(4 * PATIENCE)).unwrap();
                read_pattern_to_end(&mut server, seed)
            })
        });
        let readers: Vec<_> = readers.collect();
        for (sender, reader) in senders.into_iter().zip(readers) {
            assert_eq!(sender.join().unwrap(), reader.join().unwrap(), "bytes sent and received");
        }
    }

    fn a_websocket_upgrade_becomes_a_tunnel(backend: Backend) {
        let origin = Origin::connections(|mut stream, _| {
            let mut reader = Client::over(stream.try_clone().unwrap());
            read_request(&mut reader).unwrap();
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\n\r\nfirst";
            stream.write_all(switch.as_bytes()).unwrap();
            let mut got = [0; 4];
            stream.read_exact(&mut got).unwrap();
            stream.write_all(&got).unwrap();
            reset(&stream);
        });
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert_eq!(client.head().0, 101);
        assert_eq!(client.take(5), b"first");
        client.send("echo");
        assert_eq!(client.end(), End::Reset, "as the origin ended it");
    }
}

/// Version 1 and version 2 of the same header.
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x12\x67\x01\xbb";

/// Writes one byte every 100 ms until it is done, for two minutes at most. Returns how many were
/// taken.
fn heartbeat(mut stream: TcpStream, done: &AtomicBool) -> u64 {
    let mut beats = 0;
    while beats < 1200 && !done.load(Ordering::Relaxed) && stream.write_all(b"x").is_ok() {
        beats += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    beats
}

/// What the proxy has taken and not passed on is at most a pipe's worth.
fn held_is_bounded(ends: &Ends, pair: &Pair, taken: u64) {
    let client = pair.client.local_addr().unwrap();
    let server = pair.server.local_addr().unwrap();
    let inside = connections(ends.proxy.pid());
    let side = |peer| {
        let (_, local, peer) = inside.iter().find(|(_, _, other)| *other == peer).unwrap();
        (queued(*local, *peer), queued(*peer, *local))
    };
    let ((_, down_received), (client_sent, _)) = side(client);
    let ((up_sent, _), (_, server_received)) = side(server);
    let in_sockets = down_received + client_sent + up_sent + server_received;
    let held = taken.saturating_sub(in_sockets);
    println!("{taken} bytes taken, {in_sockets} in sockets, {held} in the proxy");
    assert!(held <= 256 * 1024, "{held} bytes are held");
}
