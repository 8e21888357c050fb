//! Any request through any pairing of versions arrives as what it was, minus what the RFCs say must
//! go, and so does its response.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::support::h2::{H2Client, send_all};
use super::support::h2_origin::{H2Origin, answer};
use super::support::http::Response;
use super::support::{Backend, Client, Origin, Proxy};

/// A message as it is sent, and as it should arrive: fields in their order by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Message {
    /// The method, or the status.
    start: String,
    authority: String,
    /// Path and query.
    target: String,
    fields: Vec<(String, String)>,
    cookies: Vec<String>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

/// Fields that stand for themselves, in the order of their names; equal names in their own order.
fn ordered(fields: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let own = ["f-", "set-cookie", "accept", "user-agent"];
    let named = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
    let mut fields: Vec<_> = fields.map(named).collect();
    fields.retain(|(name, _)| own.iter().any(|prefix| name.starts_with(prefix)));
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn of_map(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).unwrap();
    ordered(map.iter().map(|(name, value)| (name.to_string(), text(value))))
}

fn to_map(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = "f-[a-d!#$%&'*+.^_`|~0-9-]{0,6}|accept|user-agent";
    let value = "[!-~]([ -~]{0,40}[!-~])?|";
    prop::collection::vec((name, value), 0..8).prop_map(|fields| ordered(fields.into_iter()))
}

fn trailers() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("f-[a-d]{1,4}", "[!-~]{1,20}"), 0..3)
        .prop_map(|fields| ordered(fields.into_iter()))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(0), 1usize..100, 1000usize..20_000, 60_000usize..200_000];
    (length, any::<u8>())
        .prop_map(|(length, first)| (0..length).map(|at| (at % 251) as u8 ^ first).collect())
}

fn requests() -> impl Strategy<Value = Message> {
    let start = prop_oneof![
        Just("GET"),
        Just("POST"),
        Just("PUT"),
        Just("DELETE"),
        Just("PATCH"),
        Just("OPTIONS"),
        Just("REPORT"),
        Just("X-ODD.1"),
    ];
    let target =
        "(/[a-zA-Z0-9_~!$&'()*+,;=:@-]{1,12}){1,4}/?(\\?[a-zA-Z0-9/?:@!$&'()*+,;=._~%-]{0,20})?";
    let cookies = prop::collection::vec("[a-z]{1,5}=[!#-+--:<-\\[\\]-~]{0,12}", 0..4);
    let authority = "[a-z]{1,10}(\\.[a-z]{1,5}){0,2}(:[1-9][0-9]{1,3})?";
    (start, authority, target, fields(), cookies, body(), trailers()).prop_map(
        |(start, authority, target, fields, cookies, body, trailers)| {
            let bodiless = matches!(start, "GET" | "DELETE" | "OPTIONS");
            let body = if bodiless { Vec::new() } else { body };
            let trailers = if body.is_empty() { Vec::new() } else { trailers };
            let (start, cookies) = (start.to_owned(), cookies);
            Message { start, authority, target, fields, cookies, body, trailers }
        },
    )
}

fn responses() -> impl Strategy<Value = Message> {
    let start = prop_oneof![Just("200"), Just("201"), Just("404"), Just("503"), Just("299")];
    let cookies = prop::collection::vec("[a-z]{1,5}=[a-z]{1,9}; path=/", 0..3);
    (start, fields(), cookies, body(), trailers()).prop_map(
        |(start, fields, cookies, body, trailers)| {
            let cookies = cookies.into_iter().map(|cookie| ("set-cookie".to_owned(), cookie));
            let trailers = if body.is_empty() { Vec::new() } else { trailers };
            let fields = ordered(fields.into_iter().chain(cookies));
            Message { start: start.to_owned(), fields, body, trailers, ..Message::default() }
        },
    )
}

/// What the origin answers next, and what has arrived there.
#[derive(Default)]
struct Stage {
    answer: Message,
    arrived: Option<Message>,
}

type Shared = Arc<Mutex<Stage>>;

/// Cookies as one field has them.
fn joined(cookies: &[String]) -> Vec<String> {
    if cookies.is_empty() { Vec::new() } else { vec![cookies.join("; ")] }
}

fn http1_origin(stage: &Shared) -> (Origin, SocketAddr) {
    let stage = Arc::clone(stage);
    let origin = Origin::connections(move |stream, _| {
        let mut reader = Client::over(stream);
        loop {
            let mut head = [0u8; 1];
            if !matches!(reader.stream.peek(&mut head), Ok(1)) {
                return;
            }
            let (line, text) = reader.head_of_request();
            let fields = text.lines().filter_map(|line| line.split_once(": "));
            let fields: Vec<(String, String)> =
                fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let of = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| &field.1);
            let mut got =
                Response { status: 0, headers: Vec::new(), body: Vec::new(), trailers: Vec::new() };
            if of("transfer-encoding").is_some() {
                reader.chunks(&mut got);
            } else if let Some(length) = of("content-length") {
                got.body = reader.take(length.parse().unwrap());
            }
            let mut words = line.split(' ');
            let arrived = Message {
                start: words.next().unwrap().to_owned(),
                authority: of("host").unwrap().clone(),
                target: words.next().unwrap().to_owned(),
                cookies: of("cookie").cloned().into_iter().collect(),
                fields: ordered(fields.clone().into_iter()),
                body: got.body,
                trailers: ordered(got.trailers.into_iter()),
            };
            let answer = {
                let mut stage = stage.lock().unwrap();
                stage.arrived = Some(arrived);
                stage.answer.clone()
            };
            if reader.stream.write_all(&http1(&answer, "", true)).is_err() {
                return;
            }
        }
    });
    let address = origin.address;
    (origin, address)
}

/// A message as HTTP/1.1 writes it, with what only one hop may see. Trailers make it chunked.
fn http1(message: &Message, more: &str, is_response: bool) -> Vec<u8> {
    let mut text = if is_response {
        format!("HTTP/1.1 {} Fine\r\nConnection: x-hop\r\nX-Hop: 1\r\n", message.start)
    } else {
        let Message { start, target, authority, .. } = message;
        format!("{start} {target} HTTP/1.1\r\nHost: {authority}\r\n{more}")
    };
    for (name, value) in &message.fields {
        text += &format!("{name}: {value}\r\n");
    }
    for cookie in joined(&message.cookies) {
        text += &format!("Cookie: {cookie}\r\n");
    }
    let body = &message.body;
    if message.trailers.is_empty() {
        if is_response || !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        return [text.as_bytes(), b"\r\n", body].concat();
    }
    text += "Transfer-Encoding: chunked\r\n\r\n";
    let mut bytes = text.into_bytes();
    for chunk in body.chunks(7001) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend([chunk, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n");
    for (name, value) in &message.trailers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

fn http2_origin(stage: &Shared) -> (H2Origin, SocketAddr) {
    let stage = Arc::clone(stage);
    let origin = H2Origin::http(h2::server::Builder::new(), move |(request, respond), desk| {
        let stage = Arc::clone(&stage);
        Box::pin(async move {
            let Some(got) = desk.receive(request).await else { return };
            let cookies = got.fields.get_all("cookie").iter();
            let arrived = Message {
                start: got.method,
                authority: got.authority,
                target: got.target,
                cookies: cookies.map(|value| value.to_str().unwrap().to_owned()).collect(),
                fields: of_map(&got.fields),
                body: got.body,
                trailers: of_map(&got.trailers),
            };
            for gone in ["connection", "x-hop", "transfer-encoding", "host", "upgrade"] {
                assert!(!got.fields.contains_key(gone), "{gone} crossed");
            }
            let message = {
                let mut stage = stage.lock().unwrap();
                stage.arrived = Some(arrived);
                stage.answer.clone()
            };
            let trailers = Some(to_map(&message.trailers)).filter(|map| !map.is_empty());
            answer_with(respond, &message, trailers).await;
        })
    });
    let address = origin.address;
    (origin, address)
}

async fn answer_with(
    respond: h2::server::SendResponse<Bytes>,
    message: &Message,
    trailers: Option<HeaderMap>,
) {
    let status = message.start.parse().unwrap();
    answer(respond, status, to_map(&message.fields), message.body.clone().into(), trailers).await;
}

/// Sends `request` over HTTP/1.1 and returns the response.
fn ask_http1(client: &mut Client, request: &Message) -> Message {
    let more = "Connection: x-hop, TE\r\nTE: trailers\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n";
    let bytes = http1(request, more, false);
    for piece in bytes.chunks(9973) {
        client.stream.write_all(piece).unwrap();
    }
    let response = client.response_to(&request.start);
    assert!(response.header("x-hop").is_none() && response.header("connection").is_none());
    Message {
        start: response.status.to_string(),
        fields: ordered(response.headers.into_iter()),
        body: response.body,
        trailers: ordered(response.trailers.into_iter()),
        ..Message::default()
    }
}

/// Sends `request` over HTTP/2 and returns the response.
fn ask_http2(client: &mut H2Client, request: &Message) -> Message {
    let uri = format!("http://{}{}", request.authority, request.target);
    let mut builder = http::Request::builder().method(request.start.as_str()).uri(uri);
    let headers = builder.headers_mut().unwrap();
    headers.extend(to_map(&request.fields));
    for cookie in &request.cookies {
        headers.append("cookie", HeaderValue::from_str(cookie).unwrap());
    }
    headers.insert("te", HeaderValue::from_static("trailers"));
    let ended = request.body.is_empty();
    let (response, stream) = client.begin(builder, ended);
    let trailers = Some(to_map(&request.trailers)).filter(|map| !map.is_empty());
    let body = Bytes::from(request.body.clone());
    let answer = client.run(async move {
        if !ended {
            tokio::spawn(send_all(stream, body, trailers));
        }
        super::support::h2::read_all(response).await.unwrap()
    });
    assert!(!answer.fields.contains_key("x-hop") && !answer.fields.contains_key("connection"));
    Message {
        start: answer.status.to_string(),
        fields: of_map(&answer.fields),
        body: answer.body,
        trailers: of_map(&answer.trailers.unwrap_or_default()),
        ..Message::default()
    }
}

/// Sends 60 requests to the origin at `address`, over the version that `ask` speaks.
fn pairing(stage: &Shared, ask: impl FnMut(&Message) -> Message) {
    let ask = std::cell::RefCell::new(ask);
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let config = Config { rng_seed: RngSeed::Fixed(4711), max_shrink_iters: 0, ..config };
    let result = TestRunner::new(config).run(&(requests(), responses()), |(request, response)| {
        stage.lock().unwrap().answer = response.clone();
        let answered = (ask.borrow_mut())(&request);
        let mut arrived = stage.lock().unwrap().arrived.take().expect("it arrived");
        arrived.cookies = joined(&arrived.cookies);
        let expected = Message { cookies: joined(&request.cookies), ..request };
        for (got, sent) in [(arrived, expected), (answered, response)] {
            let (length, expected) = (got.body.len(), sent.body.len());
            prop_assert!(got.body == sent.body, "{length} bytes of {expected}: {}", sent.start);
            let head = |message: Message| Message { body: Vec::new(), ..message };
            prop_assert_eq!(head(got), head(sent));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{}", error.to_string().chars().take(4000).collect::<String>());
    }
}

fn config(address: SocketAddr, protocol: &str) -> String {
    format!(
        "listeners:\n\
         - {{name: one, address: '127.0.0.1:0'}}\n\
         - {{name: two, address: '127.0.0.1:0', protocol: http2}}\n\
         routes:\n- {{name: all, rules: [{{backends: [{{cluster: origin}}]}}]}}\n\
         clusters:\n\
         - {{name: origin, protocol: {protocol}, endpoints: [{{address: '{address}'}}]}}\n"
    )
}

on_both_backends! {
    fn http_1_to_http_1_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http1_origin(&stage);
        let proxy = Proxy::start(backend, &config(address, "http1"));
        let mut client = proxy.client("one");
        pairing(&stage, |request| ask_http1(&mut client, request));
    }

    fn http_1_to_http_2_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http2_origin(&stage);
        let proxy = Proxy::start(backend, &config(address, "http2"));
        let mut client = proxy.client("one");
        pairing(&stage, |request| ask_http1(&mut client, request));
    }

    fn http_2_to_http_1_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http1_origin(&stage);
        let proxy = Proxy::start(backend, &config(address, "http1"));
        let mut client = H2Client::connect(proxy.address("two"));
        pairing(&stage, |request| ask_http2(&mut client, request));
    }

    fn http_2_to_http_2_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http2_origin(&stage);
        let proxy = Proxy::start(backend, &config(address, "http2"));
        let mut client = H2Client::connect(proxy.address("two"));
        pairing(&stage, |request| ask_http2(&mut client, request));
    }
}
