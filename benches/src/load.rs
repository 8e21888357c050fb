//! `ringway-bench load`: requests at a rate that does not depend on the answers.
//!
//! ```text
//! arrivals (when) ──▶ engine ──▶ connection ──▶ transport ──▶ [tls] ──▶ socket
//!                       │         serial: HTTP/1.1 and raw bytes, one request at a time
//!                       ▼         http2:  streams of HTTP/2 and gRPC
//!                     record (histograms) ──▶ report
//! ```
//!
//! A closed loop waits for each answer before it asks again, so a target that stalls is asked less
//! and its stall is seen once. Here the times of all requests stand before the first is sent, and
//! latency counts from them.
//!
//! # Invariants
//! - A run in which the generator itself was late fails: its figures would be about the generator.
//!
//! # Not here
//! CPU and memory of a proxy: `compare`.

mod arrivals;
mod connection;
mod engine;
mod http2;
mod record;
mod reply;
mod report;
mod serial;
mod tickets;
mod tls;
mod transport;
mod trust;
mod wanted;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    error::Error,
    limits::{
        BODY_BYTES_MAX, HEAD_BYTES_MAX, HTTP2_STREAMS_MAX, LOAD_BODY_BYTES_MAX,
        LOAD_CONNECTIONS_MAX,
    },
};
pub(crate) use arrivals::{Arrivals, Pattern};
pub(crate) use record::Record;
pub(crate) use tls::{Agreed, Blocking, Cipher, ClientTls, Group, Terms, Trust};
pub(crate) use wanted::{Exchange, Pace, Request, Wanted};

/// Options of `ringway-bench load`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Latency counts from the time at which a request was meant to be sent. A request for which no
connection is free waits, and its wait counts. Times are in microseconds.

  ringway-bench load --target 127.0.0.1:8080 --rate 5000 --seconds 30
  ringway-bench load --target 127.0.0.1:8080 --rate 1000,2000,4000 --arrivals poisson --json
  ringway-bench load --target 127.0.0.1:8080 --closed -c 64
  ringway-bench load --target 127.0.0.1:8080 --http2 -c 4 --streams 32 --rate 20000
  ringway-bench load --target 127.0.0.1:8080 --grpc /bench.Bench/Echo --body-bytes 100 --rate 5000
  ringway-bench load --target 127.0.0.1:8443 --tls --ca ca.pem --sni a.test --rate 500 \\
                     --requests-per-connection 1 --resumption --ciphers aes128 --groups x25519")]
pub(crate) struct Options {
    /// Address of the target
    #[arg(long, value_name = "IP:PORT")]
    target: SocketAddr,
    /// Requests per second; several are run one after the other
    #[arg(long, value_name = "N,...", value_delimiter = ',', required_unless_present = "closed",
          value_parser = parse_rate)]
    rate: Vec<f64>,
    /// Instead of a rate: every connection sends its next request when it has its answer
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// Gaps between requests
    #[arg(long, value_enum, default_value = "constant", conflicts_with = "closed")]
    arrivals: Pattern,
    /// Connections, each with one request in flight, or --streams
    #[arg(long, short = 'c', default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(LOAD_CONNECTIONS_MAX)))]
    connections: u32,
    /// Seconds that count
    #[arg(long, short = 's', default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Seconds of load before those
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=3600))]
    warm_up: u64,
    /// Path and query of the requests
    #[arg(long, default_value = "/")]
    path: String,
    /// Instead of one path: a file whose lines are a host and a path each, sent in turn
    #[arg(long, value_name = "FILE", conflicts_with_all = ["path", "host"])]
    requests: Option<PathBuf>,
    /// The Host field (default: --sni or the target)
    #[arg(long)]
    host: Option<String>,
    /// A further field, as `Name: value`; may be repeated
    #[arg(long, short = 'H', value_name = "FIELD", value_parser = parse_field)]
    header: Vec<String>,
    /// Length of a filler field, for request heads of some size
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=HEAD_BYTES_MAX as u64))]
    header_bytes: u64,
    /// Length of the request's body; POST instead of GET if it is not 0
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=LOAD_BODY_BYTES_MAX))]
    body_bytes: u64,
    /// Requests after which a connection is closed and another opened; 1 is one for each request
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_connection: Option<u32>,
    /// HTTP/2, with prior knowledge or, over TLS, by ALPN
    #[arg(long)]
    http2: bool,
    /// Unary calls of gRPC to /package.Service/METHOD, with a message of --body-bytes
    #[arg(long, value_name = "METHOD", conflicts_with_all = ["path", "requests"])]
    grpc: Option<String>,
    /// Requests at once on a connection of HTTP/2 or gRPC
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(HTTP2_STREAMS_MAX)))]
    streams: u32,
    /// Instead of HTTP: ask a raw TCP origin (or a tunnel to one) for bodies of N bytes
    #[arg(long, value_name = "N", conflicts_with_all = ["path", "host", "header", "header_bytes",
                                                   "body_bytes", "requests", "http2", "grpc"],
          value_parser = clap::value_parser!(u64).range(1..=BODY_BYTES_MAX))]
    tcp_bytes: Option<u64>,
    /// Seed of Poisson arrivals; the same seed sends at the same times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lateness of the generator at its 99th percentile above which the run fails
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = humantime::parse_duration)]
    lateness_max: Duration,
    /// Print one JSON object per rate instead of a table
    #[arg(long)]
    json: bool,
    /// Write latency by second to FILE in the format of HdrHistogram's interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    // Last, because its heading holds for all that follows.
    #[command(flatten)]
    tls: TlsOptions,
}

/// Options of `ringway-bench load` for TLS.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
struct TlsOptions {
    /// TLS 1.3 or 1.2; needs --ca or --insecure
    #[arg(long)]
    tls: bool,
    /// File of the certificates that may have signed the target's
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long, requires = "tls")]
    insecure: bool,
    /// Name to ask for, which the certificate has to have (default: the target's IP, not sent)
    #[arg(long, value_name = "NAME", requires = "tls")]
    sni: Option<String>,
    /// File of the certificate to show to the target, with those that lead to its CA
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,
    /// File of that certificate's key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Keep tickets and resume sessions; else every handshake is a full one
    #[arg(long, requires = "tls")]
    resumption: bool,
    /// Key exchanges to offer, the preferred first
    #[arg(long, value_enum, value_delimiter = ',', requires = "tls")]
    groups: Vec<Group>,
    /// Ciphers to offer, the preferred first
    #[arg(long, value_enum, value_delimiter = ',', requires = "tls")]
    ciphers: Vec<Cipher>,
}

impl TlsOptions {
    /// `None` without --tls.
    fn terms(&self) -> Result<Option<Terms>, Error> {
        let trust = match (self.tls, &self.ca, self.insecure) {
            (false, _, _) => return Ok(None),
            (true, Some(file), _) => Trust::Ca(file.clone()),
            (true, None, true) => Trust::Anybody,
            (true, None, false) => {
                return Err(Error::Usage("--tls needs --ca FILE or --insecure".to_owned()));
            }
        };
        Ok(Some(Terms {
            trust,
            name: self.sni.clone(),
            identity: self.cert.clone().zip(self.key.clone()),
            resumes: self.resumption,
            groups: self.groups.clone(),
            ciphers: self.ciphers.clone(),
        }))
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.1..=1e7).contains(&rate) { Ok(rate) } else { Err("0.1 to 10 000 000".to_owned()) }
}

fn parse_field(text: &str) -> Result<String, String> {
    let (name, _) = text.split_once(':').ok_or("expected Name: value")?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) || text.contains(['\r', '\n', '\0']) {
        return Err("not a header field".to_owned());
    }
    Ok(text.to_owned())
}

impl Options {
    fn wanted(&self) -> Result<Wanted, Error> {
        let is_http2 = self.http2 || self.grpc.is_some();
        if self.streams > 1 && !is_http2 {
            return Err(Error::Usage("--streams is for --http2 and --grpc".to_owned()));
        }
        let exchange = match self.tcp_bytes {
            Some(bytes) => Exchange::tcp(bytes),
            None if self.grpc.is_some() => Exchange::grpc(&self.asked()?, self.streams)?,
            None if self.http2 => Exchange::http2(&self.asked()?, self.streams)?,
            None => Exchange::http1(&self.asked()?),
        };
        let wanted = Wanted {
            connections: self.connections,
            requests_per_connection: self.requests_per_connection,
            warm_up: Duration::from_secs(self.warm_up),
            duration: Duration::from_secs(self.seconds),
            ..Wanted::new(self.target, exchange)
        };
        match self.tls.terms()? {
            Some(terms) => wanted.with_tls(&terms),
            None => Ok(wanted),
        }
    }

    /// The requests that are sent in turn.
    fn asked(&self) -> Result<Vec<Request>, Error> {
        let mut fields = self.header.clone();
        if self.header_bytes > 0 {
            fields.push(format!("X-Filler: {}", "x".repeat(self.header_bytes as usize)));
        }
        let request = |host: &str, path: &str| {
            let fits = path.starts_with('/') && !path.contains([' ', '\r', '\n']);
            let request = Request {
                fields: fields.clone(),
                body_bytes: self.body_bytes,
                ..Request::get(host, path)
            };
            fits.then_some(request).ok_or_else(|| {
                Error::Usage(format!("{path:?}: a path begins with / and has no white space"))
            })
        };
        let Some(file) = &self.requests else {
            let host = self.host.as_ref().or(self.tls.sni.as_ref()).cloned();
            let host = host.unwrap_or_else(|| self.target.to_string());
            let path = self.grpc.as_ref().unwrap_or(&self.path);
            return Ok(vec![request(&host, path)?]);
        };
        let text =
            std::fs::read_to_string(file).map_err(Error::io(format!("read {}", file.display())))?;
        let pairs = text.lines().map(str::split_whitespace).map(|mut parts| {
            match (parts.next(), parts.next(), parts.next()) {
                (Some(host), Some(path), None) => request(host, path),
                _ => Err(Error::Usage("--requests: each line is a host and a path".to_owned())),
            }
        });
        let requests: Vec<Request> = pairs.collect::<Result<_, _>>()?;
        if requests.is_empty() {
            return Err(Error::Usage(format!("{} is empty", file.display())));
        }
        Ok(requests)
    }
}

/// Runs a load and says what it found.
///
/// # Errors
/// When the target cannot be reached at the beginning, or the system refuses what is needed.
pub(crate) fn measure(wanted: &Wanted, pace: Pace) -> Result<Record, Error> {
    let mut record = Record::new(wanted.begin_ns()..wanted.end_ns())?;
    engine::run(wanted, pace, &mut record)?;
    Ok(record)
}

/// Runs every rate and reports it.
///
/// # Errors
/// When the target cannot be reached, when requests failed, and when the generator was late.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    crate::child::raise_descriptor_limit()?;
    let wanted = options.wanted()?;
    let rates: Vec<Option<f64>> =
        if options.closed { vec![None] } else { options.rate.iter().copied().map(Some).collect() };
    let mut log = options.hlog.as_ref().map(report::Log::create).transpose()?;
    let mut worst = Ok(());
    for rate in rates {
        let pace = rate.map_or(Pace::Closed, |rate| {
            Pace::Open(Arrivals::new(options.arrivals, rate, options.seed))
        });
        let began = std::time::SystemTime::now();
        let record = measure(&wanted, pace)?;
        let report = report::Report::new(options, rate, &record);
        report.print(options.json)?;
        if let Some(log) = &mut log {
            log.write(began, wanted.warm_up, rate, &record)?;
        }
        worst = worst.and(report.verdict(options));
    }
    worst
}
