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
use super::support::proxy::both_versions;
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

impl Message {
    fn without_body(self) -> Self {
        Self { body: Vec::new(), trailers: Vec::new(), ..self }
    }
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
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = "f-[a-d!#$%&'*+.^_`|~0-9-]{0,6}|accept|user-agent";
    // Bytes above 0x7f are opaque to everybody on the way (RFC 9110 section 5.5).
    let value = "[!-~]([ -~]{0,40}[!-~])?|[!-~à-ÿ漢]([ -~\\tà-ÿ漢😀]{0,20}[!-~à-ÿ漢])?|";
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
        Just("HEAD"),
    ];
    // What the proxy writes in another way (RFC 3986 section 6.2.2) is left out: dots that make a
    // segment, escapes in lower case, and of what needs none.
    let segment = "([a-zA-Z0-9_~!$&'()*+,;=:@|\\[\\]^{}\"-]|%2F|%20|%3F|%C3%A9|%FF|a\\.){0,12}";
    let query = "(\\?[a-zA-Z0-9/?:@!$&'()*+,;=._~%\\[\\]|-]{0,20})?";
    let target = (prop::collection::vec(segment, 1..5), query)
        .prop_map(|(segments, query)| format!("/{}{query}", segments.join("/")));
    let cookies = prop::collection::vec("[a-z]{1,5}=[!#-+--:<-\\[\\]-~]{0,12}", 0..4);
    let authority = "[a-z]{1,10}(\\.[a-z]{1,5}){0,2}(:[1-9][0-9]{1,3})?";
    (start, authority, target, fields(), cookies, body(), trailers()).prop_map(
        |(start, authority, target, fields, cookies, body, trailers)| {
            let bodiless = matches!(start, "GET" | "HEAD" | "OPTIONS");
            let body = if bodiless { Vec::new() } else { body };
            let trailers = if bodiless { Vec::new() } else { trailers };
            let (start, cookies) = (start.to_owned(), cookies);
            Message { start, authority, target, fields, cookies, body, trailers }
        },
    )
}

fn responses() -> impl Strategy<Value = Message> {
    let start = prop_oneof![
        3 => Just("200"),
        1 => Just("201"),
        1 => Just("204"),
        1 => Just("304"),
        1 => Just("404"),
        1 => Just("503"),
        1 => Just("299"),
    ];
    let cookies = prop::collection::vec("[a-z]{1,5}=[a-z]{1,9}; path=/", 0..3);
    (start, fields(), cookies, body(), trailers()).prop_map(
        |(start, fields, cookies, body, trailers)| {
            let cookies = cookies.into_iter().map(|cookie| ("set-cookie".to_owned(), cookie));
            let fields = ordered(fields.into_iter().chain(cookies));
            let message =
                Message { start: start.to_owned(), fields, body, trailers, ..Message::default() };
            if matches!(start, "204" | "304") { message.without_body() } else { message }
        },
    )
}

/// What the origin answers next, and what has arrived there.
#[derive(Default)]
struct Stage {
    answer: Message,
    arrived: Vec<Message>,
    /// Names of fields that should not have crossed.
    crossed: Vec<String>,
}

type Shared = Arc<Mutex<Stage>>;

/// Keeps what has arrived, and returns what to answer.
fn arrive(stage: &Shared, arrived: Message) -> Message {
    let mut stage = stage.lock().unwrap();
    let answer = stage.answer.clone();
    let is_head = arrived.start == "HEAD";
    stage.arrived.push(arrived);
    if is_head { answer.without_body() } else { answer }
}

fn keep_crossed(stage: &Shared, names: Vec<&str>) {
    stage.lock().unwrap().crossed.extend(names.into_iter().map(str::to_owned));
}

/// Fields that are about the connection that a request came by, among those of the next one.
fn crossed<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let gone = ["x-hop", "keep-alive", "proxy-connection", "upgrade", "x-more"];
    names.filter(|name| gone.contains(name)).collect()
}

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
            keep_crossed(&stage, crossed(fields.iter().map(|field| field.0.as_str())));
            let is_head = arrived.start == "HEAD";
            let answer = arrive(&stage, arrived);
            let mut bytes = http1(&answer, "", true);
            if is_head {
                bytes.truncate(bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4);
            }
            for piece in bytes.chunks(8191) {
                if reader.stream.write_all(piece).is_err() {
                    return;
                }
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
        let has_length = !matches!(message.start.as_str(), "204" | "304");
        if (is_response && has_length) || !body.is_empty() {
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
            let mut names = crossed(got.fields.keys().map(HeaderName::as_str));
            let of_http1 = ["connection", "transfer-encoding", "host"];
            names.extend(of_http1.into_iter().filter(|name| got.fields.contains_key(*name)));
            // RFC 9113 section 8.2.2: TE may be there, with nothing but this.
            let mut te = got.fields.get_all("te").iter();
            if te.any(|value| value != "trailers") {
                names.push("te");
            }
            keep_crossed(&stage, names);
            let message = arrive(&stage, arrived);
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
    let more = "Connection: x-hop, TE, keep-alive\r\nTE: trailers, gzip;q=0.5\r\nX-Hop: 1\r\n\
                Connection: X-More\r\nX-More: 2\r\nKeep-Alive: timeout=5\r\n\
                Proxy-Connection: keep-alive\r\n";
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

/// Sends a body in frames of odd sizes, as windows allow.
async fn send_in_pieces(
    mut stream: h2::SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    for size in [1, 2, 7001, 3, 16_384, 100].into_iter().cycle() {
        if body.is_empty() {
            break;
        }
        let mut piece = body.split_to(body.len().min(size));
        while !piece.is_empty() {
            stream.reserve_capacity(piece.len());
            let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return Ok(());
            };
            stream.send_data(piece.split_to(room?.min(piece.len())), false)?;
        }
    }
    send_all(stream, body, trailers).await
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
    let ended = request.body.is_empty() && request.trailers.is_empty();
    let (response, stream) = client.begin(builder, ended);
    let trailers = Some(to_map(&request.trailers)).filter(|map| !map.is_empty());
    let body = Bytes::from(request.body.clone());
    let answer = client.run(async move {
        if !ended {
            tokio::spawn(send_in_pieces(stream, body, trailers));
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

/// Sends 100 requests to the origin at `address`, over the version that `ask` speaks.
fn pairing(stage: &Shared, ask: impl FnMut(&Message) -> Message) {
    let ask = std::cell::RefCell::new(ask);
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    let config = Config { rng_seed: RngSeed::Fixed(4711), max_shrink_iters: 0, ..config };
    let result = TestRunner::new(config).run(&(requests(), responses()), |(request, response)| {
        stage.lock().unwrap().answer = response.clone();
        let answered = (ask.borrow_mut())(&request);
        let (mut all, crossed) = {
            let mut stage = stage.lock().unwrap();
            (std::mem::take(&mut stage.arrived), std::mem::take(&mut stage.crossed))
        };
        prop_assert_eq!(all.len(), 1, "it arrived, once: {}", &answered.start);
        prop_assert!(crossed.is_empty(), "{:?} crossed", crossed);
        let mut arrived = all.remove(0);
        let response = if request.start == "HEAD" { response.without_body() } else { response };
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

on_both_backends! {
    fn http_1_to_http_1_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http1_origin(&stage);
        let proxy = Proxy::start(backend, &both_versions(address, "protocol: http1"));
        let mut client = proxy.client("one");
        pairing(&stage, |request| ask_http1(&mut client, request));
    }

    fn http_1_to_http_2_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http2_origin(&stage);
        let proxy = Proxy::start(backend, &both_versions(address, "protocol: http2"));
        let mut client = proxy.client("one");
        pairing(&stage, |request| ask_http1(&mut client, request));
    }

    fn http_2_to_http_1_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http1_origin(&stage);
        let proxy = Proxy::start(backend, &both_versions(address, "protocol: http1"));
        let mut client = H2Client::connect(proxy.address("two"));
        pairing(&stage, |request| ask_http2(&mut client, request));
    }

    fn http_2_to_http_2_keeps_messages(backend: Backend) {
        let stage = Shared::default();
        let (_origin, address) = http2_origin(&stage);
        let proxy = Proxy::start(backend, &both_versions(address, "protocol: http2"));
        let mut client = H2Client::connect(proxy.address("two"));
        pairing(&stage, |request| ask_http2(&mut client, request));
    }
}
