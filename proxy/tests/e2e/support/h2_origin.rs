//! An origin that speaks HTTP/2 and does as it is told, on a thread of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// One request and the way to answer it.
pub type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

/// What a connection does after its handshake.
pub type Serve = Pin<Box<dyn Future<Output = ()>>>;

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    pub method: String,
    pub authority: String,
    /// Path and query.
    pub target: String,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

/// An origin of HTTP/2.
pub struct H2Origin {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

/// What a connection of the origin is served with.
#[derive(Clone)]
pub struct Desk {
    /// The number of the connection, from 0.
    pub number: usize,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl H2Origin {
    /// Calls `serve` for every connection, after a handshake as `builder` says.
    pub fn connections(
        builder: h2::server::Builder,
        serve: impl Fn(Connection<TcpStream, Bytes>, Desk) -> Serve + Send + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let arrived = Arc::<Mutex<Vec<Arrived>>>::default();
        let (counter, seen) = (Arc::clone(&connections), Arc::clone(&arrived));
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    stream.set_nodelay(true).unwrap();
                    let shaken = builder.handshake(stream).await;
                    let desk = Desk { number, arrived: Arc::clone(&seen) };
                    if let Ok(connection) = shaken {
                        tokio::task::spawn_local(serve(connection, desk));
                    }
                }
            });
        });
        Self { address, connections, arrived }
    }

    /// Answers every request by `answer`, each in a task of its own.
    pub fn http(
        builder: h2::server::Builder,
        answer: impl Fn(Exchange, Desk) -> Serve + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        Self::connections(builder, move |mut connection, desk| {
            let answer = Arc::clone(&answer);
            Box::pin(async move {
                while let Some(Ok(exchange)) = connection.accept().await {
                    tokio::task::spawn_local(answer(exchange, desk.clone()));
                }
            })
        })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests that arrived whole so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Desk {
    /// Reads the whole request, and keeps what it was.
    pub async fn receive(&self, request: Request<RecvStream>) -> Option<Arrived> {
        let (parts, mut body) = request.into_parts();
        let bytes = super::h2::read_body(&mut body, usize::MAX).await.ok()?;
        let arrived = Arrived {
            method: parts.method.to_string(),
            authority: parts.uri.authority().map(ToString::to_string).unwrap_or_default(),
            target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            fields: parts.headers,
            body: bytes,
            trailers: body.trailers().await.ok()?.unwrap_or_default(),
        };
        self.arrived.lock().unwrap().push(arrived.clone());
        Some(arrived)
    }
}

/// Answers with `fields`, `body` and, if there are any, `trailers`.
pub async fn answer(
    mut respond: SendResponse<Bytes>,
    status: u16,
    fields: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
) {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = fields;
    if let Ok(stream) = respond.send_response(response, false) {
        let _ = super::h2::send_all(stream, body, trailers).await;
    }
}
