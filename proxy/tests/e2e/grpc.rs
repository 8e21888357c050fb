//! gRPC with the library that most of its users have: grpcio, as client and as server.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::peers::tools;
use crate::support::proxy::binary;
use crate::support::{Backend, Proxy, free_address};

fn python(script: &str) -> Command {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/grpc");
    let mut command = Command::new("python3");
    command.arg(tests.join(script)).env("PYTHONPATH", tools().join("python"));
    command
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = python("server.py");
        command.args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("the port of the server (is grpcio installed?)");
        Self { child, address: ([127, 0, 0, 1], port).into() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(address: SocketAddr, protocol: &str) -> String {
    format!(
        "listeners:\n\
         - {{name: grpc, address: '127.0.0.1:0', protocol: {protocol}{}}}\n\
         routes:\n\
         - {{name: test, rules: [{{matches: [{{path: {{prefix: /test.Test/}}}}], \
         backends: [{{cluster: server}}]}}]}}\n\
         clusters:\n\
         - {{name: server, protocol: http2, connect_timeout: 1s, \
         endpoints: [{{address: '{address}'}}]}}\n",
        if protocol == "auto" { ", cluster: server" } else { "" }
    )
}

on_both_backends! {
    fn calls_of_every_kind_go_through(backend: Backend) {
        let server = Server::start(&[]);
        for protocol in ["http2", "auto"] {
            let proxy = Proxy::start(backend, &config(server.address, protocol));
            let mut client = python("client.py");
            let output = client.arg(proxy.address("grpc").to_string()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{protocol}: {said}");
            assert!(proxy.metric("ringway_upstream_opened_total") <= 8.0, "connections are shared");
            crate::support::eventually("no stream is left", || {
                proxy.metric("ringway_http2_streams_open") == 0.0
            });
            assert_eq!(proxy.metric("ringway_panics_total"), 0.0);
            let calls = |status: &str| {
                let name = "ringway_route_grpc_calls_total";
                proxy.metric(&format!("{name}{{route=\"test\",status=\"{status}\""))
            };
            assert!(calls("OK") > 500.0, "{}", calls("OK"));
            assert_eq!(calls("FAILED_PRECONDITION"), 1.0);
            assert_eq!(calls("ABORTED"), 1.0);
            assert_eq!(calls("CANCELLED") + calls("DEADLINE_EXCEEDED"), 6.0, "5 and 1");
            assert_eq!(calls("none"), 0.0);
        }
    }

    fn a_server_whose_connections_leave_all_the_time_loses_no_call(backend: Backend) {
        let server = Server::start(&["300"]);
        let proxy = Proxy::start(backend, &config(server.address, "http2"));
        let mut client = python("steady.py");
        let output = client.args([&proxy.address("grpc").to_string(), "3"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(proxy.metric("ringway_upstream_opened_total") >= 4.0, "connections were replaced");
        assert_eq!(proxy.metric("ringway_failures_total"), 0.0);
    }

    fn a_server_that_is_killed_ends_its_streams(backend: Backend) {
        let server = Server::start(&[]);
        let proxy = Proxy::start(backend, &config(server.address, "http2"));
        let mut client = python("watch.py");
        client.arg(proxy.address("grpc").to_string()).stdout(Stdio::piped());
        let mut client = client.spawn().unwrap();
        let mut said = BufReader::new(client.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "begun");
        drop(server);
        let ended = said.next().unwrap().unwrap();
        assert!(ended.starts_with("StatusCode.UNAVAILABLE ringway: the upstream closed"), "{ended}");
        client.wait().unwrap();
        proxy.counts("ringway_failures_total{cause=\"upstream_truncated\"", 1.0);
    }

    fn health_is_asked_for_through_the_proxy(backend: Backend) {
        let server = Server::start(&[]);
        let text = config(server.address, "http2").replace("/test.Test/", "/");
        let proxy = Proxy::start(backend, &text);
        let ask = |more: &[&str]| {
            let mut command = Command::new(binary());
            let command = command.arg("health").arg(proxy.address("grpc").to_string()).args(more);
            let output = command.output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(said).unwrap().trim().to_owned())
        };
        assert_eq!(ask(&[]), (Some(0), "SERVING".to_owned()));
        assert_eq!(ask(&["--service", "ill"]), (Some(1), "NOT_SERVING".to_owned()));
        assert_eq!(ask(&["--service", "none"]), (Some(1), "SERVICE_UNKNOWN".to_owned()));
        drop(server);
        let (code, said) = ask(&["--timeout-ms", "3000"]);
        assert_eq!(code, Some(1));
        assert!(said.contains("the call ended with UNAVAILABLE"), "{said}");
    }

    fn a_server_that_is_down_is_unavailable_and_named(backend: Backend) {
        let proxy = Proxy::start(backend, &config(free_address(), "http2"));
        let call = "import grpc, sys\n\
                    call = grpc.insecure_channel(sys.argv[1]).unary_unary('/test.Test/Unary')\n\
                    try:\n  call(b'', timeout=10)\n\
                    except grpc.RpcError as error: print(error.code(), error.details())";
        let mut command = Command::new("python3");
        command.args(["-c", call]).arg(proxy.address("grpc").to_string());
        command.env("PYTHONPATH", tools().join("python"));
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(said.starts_with("StatusCode.UNAVAILABLE ringway: the connection"), "{said}");
        proxy.counts("ringway_failures_total{cause=\"connect_failed\"", 1.0);
    }
}
