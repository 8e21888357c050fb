//! How the program starts, and how it ends.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::http::End;
use crate::support::pair::{Ends, config};
use crate::support::proxy::binary;
use crate::support::{Backend, Client, Origin, Proxy, eventually};

/// Runs the program with a configuration until it ends by itself.
fn run(backend: Backend, text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.yaml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--backend", backend.name(), "--config"]).arg(&file).args(arguments);
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An endpoint that nobody connects to.
fn nowhere() -> std::net::SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

/// Starts python, which forbids `io_uring_setup` to itself and becomes the program.
const FORBID_IO_URING: &str = r#"#!/usr/bin/env python3
import ctypes, os, struct, sys
SETUP = 425
# if the call is io_uring_setup: EPERM, else allow
code = [(0x20, 0, 0, 0), (0x15, 0, 1, SETUP), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
program = b"".join(struct.pack("HBBI", *one) for one in code)
room = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxP", len(code), ctypes.addressof(room))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(fprog), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn forbidden(folder: &Path, arguments: &[&str]) -> Command {
    let script = folder.join("forbid.py");
    fs::write(&script, FORBID_IO_URING).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // The system's own starts at once; one in a user's path may be a script that looks for one.
    let python = ["/usr/bin/python3", "python3"];
    let python = python.into_iter().find(|path| Path::new(path).exists()).unwrap_or("python3");
    let mut command = Command::new(python);
    command.arg(script).arg(binary()).args(arguments);
    command
}

on_both_backends! {
    fn a_taken_port_ends_the_start_with_its_listener_and_address(backend: Backend) {
        // Even from another process that would share it.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        rustix::net::sockopt::set_socket_reuseport(&taken, true).unwrap();
        let text = format!("admin: 127.0.0.1:0\n{}", config(nowhere(), "", ""));
        let output = run(backend, &text.replace("127.0.0.1:0', p", &format!("{address}', p")), &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains("`raw`") && said.contains(&address.to_string()), "{said}");
        // The admin interface is no different.
        let text = format!("admin: {address}\n{}", config(nowhere(), "", ""));
        let output = run(backend, &text, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&address.to_string()), "{}", stderr(&output));
    }

    fn a_wrong_file_ends_the_start_with_line_and_column(backend: Backend) {
        let output = run(backend, "listeners:\n- {name: web, adress: '127.0.0.1:0'}\n", &[]);
        assert_eq!(output.status.code(), Some(78));
        let said = stderr(&output);
        assert!(said.contains("2:15") && said.contains("adress"), "{said}");
        let output = run(backend, "listeners: [", &[]);
        assert_eq!(output.status.code(), Some(78));
    }

    fn a_wrong_flag_is_a_usage_error(backend: Backend) {
        let output = run(backend, "listeners: []\n", &["--worker", "1"]);
        assert_eq!(output.status.code(), Some(64));
        let output = run(backend, "listeners: []\n", &["--workers", "0"]);
        assert_eq!(output.status.code(), Some(64));
    }

    fn the_first_connection_is_accepted_soon_after_exec(backend: Backend) {
        let mut times = Vec::new();
        for _ in 0..5 {
            let free = crate::support::free_address();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("ringway.yaml");
            let respond = format!(
                "admin: 127.0.0.1:0\nlisteners:\n- {{name: web, address: '{free}'}}\nroutes:\n\
                 - {{name: all, rules: [{{respond: {{status: 200}}}}]}}\n"
            );
            fs::write(&file, respond).unwrap();
            let mut command = Command::new(binary());
            command.args(["run", "--workers", "1", "--backend", backend.name(), "--config"]);
            command.arg(&file).stderr(Stdio::null());
            let started = Instant::now();
            let mut child = command.spawn().unwrap();
            let stream = loop {
                match TcpStream::connect(free) {
                    Ok(stream) => break stream,
                    Err(_) => std::thread::sleep(Duration::from_micros(100)),
                }
                assert!(started.elapsed() < Duration::from_secs(10), "it does not listen");
            };
            // The kernel takes connections before the workers do: only an answer counts.
            assert_eq!(Client::over(stream).get("/").status, 200);
            times.push(started.elapsed());
            if times.len() == 1 {
                let pid = child.id();
                let resident = crate::support::process::memory(pid, "Rss");
                println!("{backend:?}: {} KiB resident at the start", resident / 1024);
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        times.sort();
        println!("{backend:?}: exec to first answer {times:?}");
        assert!(times[0] < Duration::from_millis(200), "{times:?}");
    }

    fn a_drain_goes_on_accepting_then_closes_and_ends(backend: Backend) {
        let origin = Origin::echo();
        let drain = "drain: {delay: 600ms, timeout: 20s}\n";
        let mut proxy = Proxy::start(backend, &format!("{drain}{}", origin.config()));
        let web = proxy.address("web");
        let mut idle = proxy.client("web");
        assert_eq!(idle.get("/").header("connection"), None);
        assert_eq!(proxy.admin("/ready").0, 200);
        let started = Instant::now();
        proxy.signal("TERM");
        eventually("not ready at once", || proxy.admin("/ready").0 == 503);
        assert!(started.elapsed() < Duration::from_millis(500));
        assert_eq!(proxy.admin("/live").0, 200);
        let response = proxy.client("web").get("/new");
        assert_eq!(response.status, 200, "new connections are served during the delay");
        assert_eq!(response.header("connection"), Some("close"));
        // One that is in the middle of an exchange when the listeners close.
        let mut slow = proxy.client("web");
        slow.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        eventually("nobody listens after the delay", || TcpStream::connect(web).is_err());
        assert!(started.elapsed() >= Duration::from_millis(550));
        assert_eq!(idle.end(), End::Finished, "idle connections are closed");
        slow.send("world");
        let response = slow.response();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        drop(slow);
        let status = proxy.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(8), "it did not wait for the timeout");
    }

    fn a_drain_is_over_at_its_timeout(backend: Backend) {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let drain = "drain: {delay: 100ms, timeout: 1s}\n";
        let text = format!("{drain}{}", config(origin.local_addr().unwrap(), "", ""));
        let mut proxy = Proxy::start(backend, &text);
        let mut client = proxy.client("raw");
        let _server = origin.accept().unwrap();
        let started = Instant::now();
        proxy.signal("TERM");
        let status = proxy.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0));
        assert!(started.elapsed() >= Duration::from_millis(900));
        assert_ne!(client.stream.read(&mut [0]).ok(), Some(1));
    }

    fn a_second_signal_ends_at_once(backend: Backend) {
        let mut ends = Ends::start(backend);
        let mut pair = ends.connect();
        pair.greet();
        ends.proxy.signal("TERM");
        eventually("it drains", || ends.proxy.admin("/ready").0 == 503);
        let started = Instant::now();
        ends.proxy.signal("TERM");
        ends.proxy.wait(Duration::from_secs(10));
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn where_io_uring_is_forbidden_epoll_is_used_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::echo();
    let command = |arguments: &[&str]| forbidden(folder.path(), arguments);
    let proxy = Proxy::start_by(
        command(&["run", "--log-level", "debug", "--backend", "auto", "--workers", "1"]),
        &origin.config(),
    );
    assert_eq!(proxy.client("web").get("/").status, 200);
    let (status, report) = proxy.admin("/ready");
    assert_eq!(status, 200);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["backend"], "epoll");
    assert_eq!(proxy.metric("ringway_info{backend=\"epoll\"}"), 1.0);
    assert!(proxy.log().iter().any(|line| line.contains("io_uring is refused")));
}

#[test]
fn asked_for_io_uring_by_name_the_start_fails_where_it_is_forbidden() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.yaml");
    fs::write(&file, config(nowhere(), "", "")).unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["run", "--backend", "io_uring", "--config", file];
    let output = forbidden(folder.path(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("io_uring") && said.contains("seccomp"), "{said}");
}
