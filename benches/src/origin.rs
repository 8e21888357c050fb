//! A cheap origin of HTTP, gRPC and raw TCP: many variants in one process on one thread.
//!
//! ```text
//! accept ─▶ head::parse ─▶ answer::plan ─▶ [body::Reader] ─▶ [pause] ─▶ answer::render ─▶ send
//!             └─ preface of HTTP/2 ─▶ http2 ─▶ exchange ─▶ answer::parts ─▶ h2 ─▶ one send a turn
//! ```
//!
//! `head`, `crate::body` and `answer` are sans-IO; `http`, `http2` and `tcp` own the sockets.
//!
//! # Invariants
//! - Answers leave in the order of their requests; those of pipelined requests share a send.
//! - A body is never held: it is sent from one static block, whatever its length.
//! - Binding is exclusive: a second origin on the same port is refused instead of sharing it.
//!
//! # Not here
//! TLS, `Date`: the origin stands behind a proxy and costs as little as it can.

mod answer;
mod behaviour;
mod exchange;
mod head;
mod http;
mod http2;
mod tcp;

use std::{net::SocketAddr, rc::Rc, str::FromStr};

use monoio::{FusionDriver, RuntimeBuilder, net::TcpListener, net::TcpStream};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{
    error::Error,
    limits::{ACCEPT_PAUSE, BACKLOG, BODY_BYTES_MAX},
    terminal,
};
use answer::Variant;
use behaviour::{Behaviour, Delay};

/// Options of `ringway-bench origin`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Paths that every variant answers:
  /              small body that names the variant (see --body-bytes, --chunked)
  /echo          variant, request line and request headers, as they arrived
  /bytes/N       body of N bytes with content-length; byte i is i % 251
  /chunked/N     the same body in chunks
  /trailers/N    the same with a trailer field after it, x-body-bytes: N
  /slow/MS       the answer of / after MS milliseconds
  /status/CODE   an answer with that status
  /upload        reads the request body and reports its length
  anything else  small body with variant, method and path

The same address serves HTTP/2 with prior knowledge. What has the content-type application/grpc is a
unary call: its answer is a message as long as its own, or N bytes for /any.Service/BytesN; with
--error-rate some are answered with grpc-status 14.")]
pub(crate) struct Options {
    /// Address to serve HTTP/1.1, HTTP/2 and gRPC on; port 0 takes a free one, which is printed
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Name of the variant behind --listen
    #[arg(long, value_name = "NAME", default_value = "v1", requires = "listen")]
    name: String,
    /// A further named variant; may be repeated
    #[arg(long, value_name = "NAME=IP:PORT")]
    variant: Vec<NamedAddress>,
    /// Address of the raw TCP origin: each 8-byte big-endian length is answered with so many bytes
    #[arg(long, value_name = "IP:PORT")]
    tcp_bytes: Vec<SocketAddr>,
    /// Length of the body of / (default: a line that names the variant)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=BODY_BYTES_MAX))]
    body_bytes: Option<u64>,
    /// Send the body of / in chunks instead of with content-length
    #[arg(long)]
    chunked: bool,
    /// Pause before every answer: TIME, uniform:TIME..TIME or exponential:MEAN, for example 5ms
    #[arg(long, value_name = "DELAY", default_value = "0s")]
    delay: Delay,
    /// Share of requests that are answered with 503, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = behaviour::parse_share)]
    error_rate: f64,
}

/// A variant's name and where it listens.
#[derive(Clone, Debug)]
struct NamedAddress {
    name: String,
    address: SocketAddr,
}

impl FromStr for NamedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, address) = text.split_once('=').ok_or("expected NAME=IP:PORT")?;
        let address = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
        Ok(Self { name: name.to_owned(), address })
    }
}

/// What a listener serves.
#[derive(Clone)]
enum Service {
    Http(Rc<Variant>),
    Tcp,
}

/// Serves until the process is ended.
///
/// # Errors
/// When an address cannot be bound or the kernel refuses both io_uring and epoll.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let mut listeners = Vec::new();
    let first = options
        .listen
        .map(|address| NamedAddress { name: options.name.clone(), address })
        .into_iter();
    for named in first.chain(options.variant.iter().cloned()) {
        let listener = bind(named.address)?;
        let address = local_address(&listener)?;
        terminal::say(&format!("origin {} listening on {address}", named.name));
        let behaviour = Behaviour { delay: options.delay, error_rate: options.error_rate };
        let variant = Variant::new(named.name, options.body_bytes, options.chunked, behaviour);
        listeners.push((listener, Service::Http(Rc::new(variant))));
    }
    for &address in &options.tcp_bytes {
        let listener = bind(address)?;
        terminal::say(&format!("origin tcp-bytes listening on {}", local_address(&listener)?));
        listeners.push((listener, Service::Tcp));
    }
    if listeners.is_empty() {
        return Err(Error::Usage("give --listen, --variant or --tcp-bytes".to_owned()));
    }
    serve(listeners)
}

fn serve(listeners: Vec<(std::net::TcpListener, Service)>) -> Result<(), Error> {
    // The ring's cheaper completion mode first, then what monoio chooses by itself.
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
    let mut runtime = RuntimeBuilder::<FusionDriver>::new()
        .uring_builder(ring)
        .enable_timer()
        .build()
        .or_else(|_| RuntimeBuilder::<FusionDriver>::new().enable_timer().build())
        .map_err(Error::io("start a runtime"))?;
    runtime.block_on(async move {
        let mut tasks = Vec::new();
        for (listener, service) in listeners {
            let listener =
                TcpListener::from_std(listener).map_err(Error::io("use the listener"))?;
            tasks.push(monoio::spawn(accept(listener, service)));
        }
        for task in tasks {
            task.await;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, service: Service) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or a client that gave up: without a pause this loop would spin.
            monoio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        match &service {
            Service::Http(variant) => drop(monoio::spawn(serve_http(stream, Rc::clone(variant)))),
            Service::Tcp => drop(monoio::spawn(serve_tcp(stream))),
        }
    }
}

// A connection's error is the client's business: it went away, or it asked for something unlawful.
async fn serve_http(stream: TcpStream, variant: Rc<Variant>) {
    let _ = http::serve(stream, &variant).await;
}

async fn serve_tcp(stream: TcpStream) {
    let _ = tcp::serve(stream).await;
}

/// Binds without SO_REUSEPORT, so that a port that is taken is refused.
fn bind(address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let attempt = || -> rustix::io::Result<std::net::TcpListener> {
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &address)?;
        net::listen(&socket, BACKLOG)?;
        Ok(socket.into())
    };
    attempt().map_err(|errno| match errno {
        rustix::io::Errno::ADDRINUSE => Error::PortTaken { address },
        other => Error::io(format!("listen on {address}"))(other.into()),
    })
}

fn local_address(listener: &std::net::TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(Error::io("read the listener's address"))
}
