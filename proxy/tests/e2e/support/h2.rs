//! An HTTP/2 client for tests: one connection over plain TCP, driven whenever something is waited
//! for; and raw frames for what a decent client does not send.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

/// A connection.
pub struct H2Client {
    runtime: tokio::runtime::Runtime,
    pub send: SendRequest<Bytes>,
    pub connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A request for `path` of `test`.
pub fn request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(format!("http://test{path}"))
}

impl H2Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::with(address, &mut h2::client::Builder::new())
    }

    pub fn with(address: SocketAddr, builder: &mut h2::client::Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let builder = builder.clone();
        let (send, connection) = runtime.block_on(async move {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (send, connection) = builder.handshake(stream).await.unwrap();
            (send, tokio::spawn(connection))
        });
        Self { runtime, send, connection }
    }

    /// Runs `work`, and fails after half a minute.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(30), work).await.expect("within 30 s")
        })
    }

    /// Moves frames until `condition` holds, and fails with `what` after ten seconds.
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(std::time::Instant::now() < end, "not within ten seconds: {what}");
            self.run(async { tokio::time::sleep(Duration::from_millis(5)).await });
        }
    }

    /// Begins a request.
    pub fn begin(
        &mut self,
        request: http::request::Builder,
        ended: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone();
        self.run(async move {
            let mut send = {
                std::future::poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
                send
            };
            send.send_request(request.body(()).unwrap(), ended).unwrap()
        })
    }

    /// Sends a request with `body` and reads its whole response.
    pub fn ask(
        &mut self,
        request: http::request::Builder,
        body: Option<&[u8]>,
    ) -> Result<Answer, h2::Error> {
        self.ask_with(request, body, None)
    }

    /// [`Self::ask`] with trailers.
    pub fn ask_with(
        &mut self,
        request: http::request::Builder,
        body: Option<&[u8]>,
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let (response, stream) = self.begin(request, body.is_none());
        let body = body.map(Bytes::copy_from_slice);
        self.run(async move {
            let sending = tokio::spawn(async move {
                if let Some(body) = body {
                    let _ = send_all(stream, body, trailers).await;
                }
            });
            let answer = read_all(response).await;
            sending.abort();
            answer
        })
    }

    /// Waits for the end of the connection.
    pub fn ended(&mut self) -> Result<(), h2::Error> {
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), &mut self.connection)
                .await
                .expect("within twenty seconds")
                .unwrap()
        })
    }
}

/// Sends `body` as windows allow.
pub async fn send_all(
    mut stream: SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = match stream.capacity() {
            0 => match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(room) => room?,
                None => return Ok(()),
            },
            room => room,
        };
        let piece = body.split_to(room.min(body.len()));
        stream.send_data(piece, false)?;
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

/// Reads a whole response.
pub async fn read_all(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (parts, mut body) = response.await?.into_parts();
    let bytes = read_body(&mut body, usize::MAX).await?;
    let trailers = body.trailers().await?;
    Ok(Answer { status: parts.status.as_u16(), fields: parts.headers, body: bytes, trailers })
}

/// Reads until the end of a body, or until `most` bytes have come.
pub async fn read_body(body: &mut RecvStream, most: usize) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let Some(data) = body.data().await else { break };
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// A connection of raw frames.
pub struct RawH2 {
    pub stream: TcpStream,
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl RawH2 {
    /// Connects and says the preface.
    pub fn connect(address: SocketAddr) -> Self {
        let mut raw = Self::without_settings(address);
        raw.send(SETTINGS, 0, 0, &[]).unwrap();
        raw
    }

    /// [`Self::connect`], but for the SETTINGS that belong to the preface.
    pub fn without_settings(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut raw = Self { stream };
        raw.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw
    }

    pub fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> std::io::Result<()> {
        let length = payload.len() as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }

    /// Sends the head of a request.
    pub fn head(&mut self, id: u32, ended: bool, fields: &[(&str, &str)]) -> std::io::Result<()> {
        let flags = END_HEADERS | if ended { END_STREAM } else { 0 };
        self.send(HEADERS, flags, id, &block(fields))
    }

    /// The next frame; `None` at the end.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0u8; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of `kind`; `None` when the connection ends before.
    pub fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}

/// Fields as literals without indexing.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a short string");
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The pseudo-fields of a GET, and `more`.
pub fn get<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields =
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)];
    fields.extend_from_slice(more);
    fields
}

/// The code of a RST_STREAM, or of a GOAWAY.
pub fn code(frame: &Frame) -> u32 {
    let at = if frame.kind == GOAWAY { 4 } else { 0 };
    u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap())
}
