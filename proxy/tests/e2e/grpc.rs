//! gRPC with the library that most of its users have: grpcio, as client and as server.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::peers::tools;
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
    fn start() -> Self {
        let mut command = python("server.py");
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
        let server = Server::start();
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
        }
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
