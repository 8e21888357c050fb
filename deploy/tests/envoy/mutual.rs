//! Mutual TLS: sidecars and Envoys call each other, in each of the four ways.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use super::requests::Outcome;
use super::side::{Origins, Proxy, Running, exchange, free_port};
use super::{certificates, compile};

const SHOPS: [(Proxy, Ipv4Addr); 2] =
    [(Proxy::Ringway, Ipv4Addr::new(127, 0, 0, 4)), (Proxy::Envoy, Ipv4Addr::new(127, 0, 0, 5))];

/// A caller, and whom it calls.
struct Way {
    name: String,
    web: Ipv4Addr,
    _running: Running,
}

struct Mesh {
    origins: Origins,
    ports: [u16; 7],
    ways: Vec<Way>,
    _running: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Mesh {
    fn start() -> Mesh {
        let folder = tempfile::tempdir().expect("a folder");
        certificates(folder.path(), &["web", "shop"]);
        let origins = Origins::default();
        let all: Vec<_> = (1..10).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect();
        let ports = [0; 7].map(|_| free_port(&all));
        let applications = [origins.start("app"), (Ipv4Addr::LOCALHOST, ports[0]).into(), echo()];
        let text = |web: Ipv4Addr, shop: Ipv4Addr| {
            let mut text = include_str!("mutual.yaml").to_owned();
            for (nth, port) in ports.iter().enumerate() {
                text = text.replace(&format!("PORT{nth}"), &port.to_string());
            }
            text = text.replace("WEB:", &format!("{web}:")).replace("SHOP:", &format!("{shop}:"));
            for (name, address) in ["\"ORIGIN\"", "\"BRIDGE\"", "\"ECHO\""].iter().zip(applications)
            {
                text = text.replace(name, &format!("\"{address}\""));
            }
            text
        };
        let start = |proxy: Proxy, name: &str, mesh: &str, workload: &str, at: SocketAddr| {
            let folder = folder.path().join(name);
            let admin = (Ipv4Addr::new(127, 0, 0, 9), free_port(&all)).into();
            compile(mesh, proxy, &folder, admin);
            proxy.start(&folder, workload, at)
        };
        let mut running = Vec::new();
        for (proxy, shop) in SHOPS {
            let name = format!("{proxy:?}-serves");
            let mesh = text(Ipv4Addr::new(127, 0, 0, 8), shop);
            running.push(start(proxy, &name, &mesh, "shop", (shop, ports[1]).into()));
        }
        let mut ways = Vec::new();
        for (nth, caller) in [Proxy::Ringway, Proxy::Envoy].into_iter().enumerate() {
            for (of, (called, shop)) in SHOPS.into_iter().enumerate() {
                let web = Ipv4Addr::new(127, 0, 1, (10 + 2 * nth + of) as u8);
                let name = format!("{caller:?}-{called:?}").to_lowercase();
                let mesh = text(web, shop);
                let running = start(caller, &name, &mesh, "web", (web, ports[5]).into());
                ways.push(Way { name, web, _running: running });
            }
        }
        running.push(bridge(folder.path(), &ports, applications[0], &ways));
        Mesh { origins, ports, ways, _running: running, _folder: folder }
    }

    /// What comes of a GET by which the origin knows `test`.
    fn get(&self, address: impl Into<SocketAddr>, host: &str, test: &str) -> Outcome {
        let head = format!(
            "GET /a/./b?c HTTP/1.1\r\nHost: {host}\r\nX-Test: {test}\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(address.into(), head.as_bytes());
        let answer = answer.unwrap_or_else(|| panic!("no answer: {test}"));
        Outcome::of(&answer, self.origins.seen(test))
    }
}

/// Gives back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut out = stream.try_clone().expect("it is a socket");
                let _ = std::io::copy(&mut &stream, &mut out);
                let _ = out.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

/// A sidecar that makes HTTP/2 of the test's HTTP/1.1, towards each of `ways` by its name, and the
/// other way around before the origin.
fn bridge(folder: &Path, ports: &[u16; 7], origin: SocketAddr, ways: &[Way]) -> Running {
    let near = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 8), ports[0]));
    let mut routes =
        "- {name: far, listeners: [far], rules: [{backends: [{cluster: origin}]}]}\n".to_owned();
    let mut clusters = format!("- {{name: origin, endpoints: [{{address: '{origin}'}}]}}\n");
    for Way { name, web, .. } in ways {
        routes.push_str(&format!(
            "- {{name: {name}, listeners: [near], hosts: [{name}], \
             rules: [{{backends: [{{cluster: {name}}}], rewrite: {{host: calls}}}}]}}\n"
        ));
        clusters.push_str(&format!(
            "- {{name: {name}, protocol: http2, endpoints: [{{address: '{web}:{}'}}]}}\n",
            ports[6]
        ));
    }
    let text = format!(
        "admin: 127.0.0.1:0\nlisteners:\n- {{name: near, address: '{near}'}}\n\
         - {{name: far, address: '127.0.0.1:{}', protocol: http2}}\n\
         routes:\n{routes}clusters:\n{clusters}",
        ports[0]
    );
    let file = folder.join("bridge.yaml");
    std::fs::write(&file, text).expect("written");
    Proxy::Ringway.start_on(&file, near)
}

#[test]
fn sidecars_and_envoys_call_each_other() {
    let mesh = Mesh::start();
    let mut outcomes = Vec::new();
    for Way { name, web, .. } in &mesh.ways {
        let test = |what: &str| format!("{name}-{what}");
        let ask = |host: &str| mesh.get((*web, mesh.ports[5]), host, &test(host));
        assert_eq!(ask("impostor").status, 503, "{name}: it is somebody else");
        let mut pipe = TcpStream::connect((*web, mesh.ports[4])).expect("it listens");
        pipe.write_all(b"bytes").expect("it is open");
        pipe.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut back = Vec::new();
        pipe.read_to_end(&mut back).expect("it ends well");
        assert_eq!(back, b"bytes", "{name}");
        let near = (Ipv4Addr::new(127, 0, 0, 8), mesh.ports[0]);
        outcomes.push((name, ask("secure"), ask("lax"), mesh.get(near, name, &test("calls"))));
    }
    for (name, secure, lax, calls) in &outcomes {
        assert_eq!((secure.status, lax.status, calls.status), (200, 200, 200), "{name}");
        assert!(
            secure.sees("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/default/sa/web")
        );
        let (first, of_secure, of_lax, of_calls) = &outcomes[0];
        assert_eq!(secure, of_secure, "{name} and {first}");
        assert_eq!(lax, of_lax, "{name} and {first}");
        assert_eq!(calls, of_calls, "{name} and {first}");
    }
}

#[test]
fn plaintext_is_served_where_it_is_permitted_and_nowhere_else() {
    let mesh = Mesh::start();
    let lax = SHOPS.map(|(proxy, shop)| {
        let test = format!("{proxy:?}-lax");
        mesh.get((shop, mesh.ports[2]), "lax", &test)
    });
    assert_eq!(lax[0].status, 200);
    assert_eq!(lax[0], lax[1]);
    for (proxy, shop) in SHOPS {
        let answer = exchange(
            (shop, mesh.ports[1]).into(),
            b"GET / HTTP/1.1\r\nHost: secure\r\nX-Test: no\r\nConnection: close\r\n\r\n",
        );
        assert!(answer.is_none_or(|answer| answer.status() == 400), "{proxy:?}");
        assert_eq!(mesh.origins.seen("no"), None, "{proxy:?}");
    }
}
