//! More connections than there is room for, and connections spread over the workers.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::http::End;
use crate::support::pair::{Ends, config};
use crate::support::process::{leave_descriptors, limit_descriptors};
use crate::support::{Backend, Client, Origin, Proxy, eventually};

on_both_backends! {
    fn out_of_descriptors_accepting_rests_and_then_goes_on(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let mut first = proxy.client("web");
        assert_eq!(first.get("/").status, 200);
        proxy.settle();
        leave_descriptors(proxy.pid(), 4);
        // The kernel takes them in; four of them the proxy can take, and the admin one not.
        let mut waiting: Vec<Client> = (0..50).map(|_| proxy.client("web")).collect();
        std::thread::sleep(Duration::from_millis(300));
        let (cpu, started) = (proxy.cpu_time(), Instant::now());
        std::thread::sleep(Duration::from_secs(1));
        let share = (proxy.cpu_time() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
        println!("{backend:?}: {:.2} % while out of descriptors", 100.0 * share);
        assert!(share < 0.10, "{share}");
        assert_eq!(first.get("/still").status, 200, "who is in is served");
        // Those who are in leave, and make room for those who wait, one after the other.
        limit_descriptors(proxy.pid(), 10_000);
        for client in &mut waiting {
            assert_eq!(client.get("/at-last").status, 200);
        }
        assert!(proxy.metric("ringway_accept_pauses_total") >= 3.0);
        let log = proxy.log();
        let said = |text: &str| log.iter().filter(|line| line.contains(text)).count();
        assert_eq!((said("accepting pauses"), said("accepting goes on")), (1, 1), "said once");
    }

    fn room_made_by_a_client_that_leaves_is_used(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let mut first = proxy.client("web");
        assert_eq!(first.get("/").status, 200);
        proxy.settle();
        leave_descriptors(proxy.pid(), 0);
        let mut second = proxy.client("web");
        second.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(200));
        drop(first);
        assert_eq!(second.response().status, 200);
    }

    /// On epoll nothing that the proxy does for such a client has to wait.
    fn a_client_that_pipelines_without_end_does_not_keep_others_waiting(backend: Backend) {
        let proxy = Proxy::start(
            backend,
            "listeners: [{name: web, address: '127.0.0.1:0'}]\n\
             routes: [{name: all, rules: [{respond: {status: 200, body: fine}}]}]\n",
        );
        let mut other = proxy.client("web");
        assert_eq!(other.get("/").text(), "fine");
        // Threads of their own, which end with the proxy however this test ends.
        let mut greedy = proxy.client("web").stream;
        let mut answers = greedy.try_clone().unwrap();
        std::thread::spawn(move || {
            let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
            while greedy.write_all(requests.as_bytes()).is_ok() {}
        });
        std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        let exchanges = || proxy.metric("ringway_route_requests_total");
        eventually("it is at it", || exchanges() > 10_000.0);
        let before = exchanges();
        for _ in 0..20 {
            assert_eq!(other.get("/").text(), "fine");
        }
        let meanwhile = exchanges() - before;
        assert!(meanwhile < 20_000.0, "{meanwhile} of the other's while 20 were waited for");
    }

    fn past_max_connections_http_is_answered_503(backend: Backend) {
        let origin = Origin::echo();
        let text = origin.config().replace("name: web,", "name: web, max_connections: 3,");
        let proxy = Proxy::start(backend, &text);
        let mut inside: Vec<Client> = (0..3).map(|_| proxy.client("web")).collect();
        inside.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        let mut outside = proxy.client("web");
        let response = outside.get("/");
        assert_eq!(response.status, 503);
        assert_eq!(response.header("ringway-cause"), Some("overloaded"));
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(outside.end(), End::Finished);
        inside.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        inside.pop();
        eventually("there is room again", || proxy.client("web").get("/").status == 200);
    }

    fn past_max_connections_a_tunnel_is_reset(backend: Backend) {
        let ends = Ends::start_with(backend, "max_connections: 2", "");
        let mut inside = [ends.connect(), ends.connect()];
        inside.iter_mut().for_each(crate::support::pair::Pair::greet);
        assert_eq!(ends.proxy.client("raw").end(), End::Reset);
        inside.iter_mut().for_each(crate::support::pair::Pair::greet);
        let overloaded = "ringway_failures_total{cause=\"overloaded\"}";
        ends.proxy.counts(overloaded, 1.0);
        let [first, second] = inside;
        drop(first);
        eventually("there is room again", || {
            ends.proxy.metric("ringway_downstream_connections") == 1.0
        });
        ends.connect().greet();
        drop(second);
    }

    fn two_workers_share_sixty_four_connections(backend: Backend) {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&origin, 1024).unwrap();
        let text = config(origin.local_addr().unwrap(), "", "");
        let proxy = Proxy::start_with(backend, &text, &["--workers", "2"]);
        let clients: Vec<TcpStream> =
            (0..64).map(|_| TcpStream::connect(proxy.address("raw")).unwrap()).collect();
        let of = |worker: usize| {
            proxy.metric(&format!("ringway_worker_connections{{worker=\"{worker}\"}}"))
        };
        eventually("all are in", || of(0) + of(1) == 64.0);
        println!("{backend:?}: {} and {} connections", of(0), of(1));
        assert!(of(0).min(of(1)) >= 64.0 / 3.0, "{} and {}", of(0), of(1));
        // Both sides: a tunnel whose client has finished waits for its endpoint.
        drop((clients, origin));
        eventually("all are gone", || of(0) + of(1) == 0.0);
    }
}
