//! Bodies of known length that come in bulk and then do not: what has come is passed on, and who
//! waits next on the connection waits for any byte.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::support::http::Client;
use crate::support::{Backend, Origin, Proxy};

/// What comes at once.
const BULK: usize = 300 << 10;
/// What comes after it, one piece for each that the client has.
const PIECE: usize = 1000;
const PIECES: usize = 50;
/// The rest, at once again.
const BODY: usize = 1 << 20;

/// Answers `/bulk` with bulk, then with a piece for each token, then with the rest, and any other
/// path with a short body, byte by byte. Bodies of requests are not read.
fn origin() -> (Origin, mpsc::Sender<()>) {
    let (sender, tokens) = mpsc::channel();
    let tokens = Mutex::new(tokens);
    let origin = Origin::connections(move |stream, _| {
        let mut reader = Client::over(stream);
        loop {
            let (line, _) = reader.head_of_request();
            if line.is_empty() {
                return;
            }
            if !line.contains("/bulk") {
                reader.dribble("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort");
                continue;
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
            reader.send(head).send(vec![b'b'; BULK]);
            let mut left = BODY - BULK;
            for () in tokens.lock().unwrap().iter().take(PIECES) {
                reader.send(vec![b'p'; PIECE]);
                left -= PIECE;
            }
            reader.send(vec![b'r'; left]);
        }
    });
    (origin, sender)
}

/// Reads the answer to `/bulk`, asking for one piece after the other.
fn receive(client: &mut Client, tokens: &mpsc::Sender<()>) {
    assert_eq!(client.head().0, 200);
    assert!(client.take(BULK).iter().all(|&byte| byte == b'b'));
    for _ in 0..PIECES {
        tokens.send(()).unwrap();
        assert_eq!(client.take(PIECE), [b'p'; PIECE]);
    }
    let rest = client.take(BODY - BULK - PIECES * PIECE);
    assert!(rest.iter().all(|&byte| byte == b'r'));
}

on_both_backends! {
    fn a_body_that_turns_slow_is_passed_on_as_it_comes(backend: Backend) {
        let (origin, tokens) = origin();
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("GET /bulk HTTP/1.1\r\nHost: a\r\n\r\n");
        receive(&mut client, &tokens);
    }

    fn the_answer_after_a_bulk_one_is_read_from_its_first_byte(backend: Backend) {
        let (origin, tokens) = origin();
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for _ in 0..3 {
            client.send("GET /bulk HTTP/1.1\r\nHost: a\r\n\r\n");
            receive(&mut client, &tokens);
            assert_eq!(client.get("/").text(), "short");
        }
        assert_eq!(origin.accepted(), 1);
    }

    fn an_upload_that_moves_does_not_hold_its_answer_back(backend: Backend) {
        let (origin, tokens) = origin();
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        client.send("POST /bulk HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
        let answered = Arc::new(AtomicBool::new(false));
        let mut upload = client.stream.try_clone().unwrap();
        let sending = std::thread::spawn({
            let answered = Arc::clone(&answered);
            move || {
                while !answered.load(Ordering::Relaxed) && upload.write_all(&[b'u'; 1000]).is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        });
        receive(&mut client, &tokens);
        answered.store(true, Ordering::Relaxed);
        sending.join().unwrap();
    }
}
