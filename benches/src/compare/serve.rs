//! `ringway-bench proxy`: one proxy of the comparison alone, while another host loads it.
//!
//! On one machine load, origin and proxy share caches, memory and the loopback. With two hosts this
//! runs beside the proxy, and `load` and `origin` on the other; CPU per request is the CPU time of
//! an interval here over the requests that the other side counted in it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Bench,
    certificates::Certificates,
    cores, find_ringway,
    peer::{Addresses, OURS, Peer, Proxy, Setup},
    scenario::Tls,
    table::Table,
};
use crate::{child, error::Error, guard::Guard, results::Run, scratch::Scratch, terminal};

/// Options of `ringway-bench proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
On the host of the load:
  ringway-bench origin --listen 10.0.0.2:9000 --tcp-bytes 10.0.0.2:9001
On the host of the proxy, for each of the peers in turn:
  ringway-bench proxy haproxy --listen 10.0.0.1 --origin 10.0.0.2:9000 --tcp-origin 10.0.0.2:9001
On the host of the load again:
  ringway-bench load --target 10.0.0.1:8000 --closed --seconds 30 --json")]
pub(crate) struct Options {
    /// A folder of --peers-from
    #[arg(value_name = "PEER", default_value = OURS)]
    peer: String,
    /// One of the peer's setups
    #[arg(long, value_name = "NAME", default_value = "plain")]
    setup: String,
    /// Routes of a setup that has a table
    #[arg(long, value_name = "N", default_value_t = 10)]
    routes: u32,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port for HTTP; the next one is for TCP, the one after that for the admin pages
    #[arg(long, value_name = "PORT", default_value_t = 8000,
          value_parser = clap::value_parser!(u16).range(1..=65_533))]
    port: u16,
    /// Where HTTP goes
    #[arg(long, value_name = "IP:PORT")]
    origin: SocketAddr,
    /// Where TCP goes
    #[arg(long, value_name = "IP:PORT")]
    tcp_origin: SocketAddr,
    /// Core of the proxy (default: the first that this program may use)
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Seconds between two lines
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Seconds after which the proxy is ended (default: when this program is)
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The Ringway to start (default: the one built beside this program)
    #[arg(long, value_name = "PROGRAM")]
    ringway: Option<PathBuf>,
    /// Folder with a folder for each peer
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers_from: PathBuf,
}

/// What the proxy has spent by now.
#[derive(Debug, Serialize)]
struct Line {
    /// Since the proxy answered.
    seconds: f64,
    cpu_ms: f64,
    /// Since the line before.
    cpu_ms_of_interval: f64,
    /// Of that.
    user_share: f64,
    rss_mib: f64,
    pss_mib: f64,
}

/// Starts the proxy and prints a JSON object per interval.
///
/// # Errors
/// When it does not start, or ends by itself.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let bench = set_up(options)?;
    let peer = Peer::read(&options.peers_from, &options.peer)?;
    if !peer.has(&options.setup) {
        let setups = peer.setups().join(", ");
        return Err(Error::Usage(format!("{} has {setups}, not {}", peer.id, options.setup)));
    }
    let at = |offset| SocketAddr::new(options.listen, options.port + offset);
    let addresses = Addresses { http: at(0), tcp: at(1), admin: at(2) };
    let table = Some(Table::new(options.routes.max(1)));
    let setup = Setup { name: &options.setup, table, reloads: true, tls: Some(Tls::default()) };
    let mut proxy = Proxy::spawn_at(&bench, &peer, setup, addresses)?;
    proxy.child.wait_for(addresses.http)?;
    let version = peer.version(&bench).unwrap_or_default();
    terminal::warn(&format!("{} ({version}) on {} and {}", peer.id, addresses.http, addresses.tcp));
    follow(options, &mut proxy)
}

fn follow(options: &Options, proxy: &mut Proxy) -> Result<(), Error> {
    let read =
        |proxy: &Proxy| proxy.child.process().cpu_time().map_err(Error::io("read the CPU time"));
    let (began, first) = (Instant::now(), read(proxy)?);
    let mut before = first;
    let limit = options.seconds.map_or(Duration::MAX, Duration::from_secs);
    let mut next = Duration::ZERO;
    while next < limit {
        next += Duration::from_secs(options.every);
        std::thread::sleep(next.saturating_sub(began.elapsed()));
        proxy.child.check()?;
        let now = read(proxy)?;
        let memory = proxy.child.process().memory().map_err(Error::io("read the memory in use"))?;
        let (interval_ns, user_share) = now.since(&before);
        let hundredth = |value: f64| (value * 100.0).round() / 100.0;
        let line = Line {
            seconds: hundredth(began.elapsed().as_secs_f64()),
            cpu_ms: hundredth(now.since(&first).0 as f64 / 1e6),
            cpu_ms_of_interval: hundredth(interval_ns as f64 / 1e6),
            user_share: hundredth(user_share),
            rss_mib: hundredth(memory.resident_kib as f64 / 1024.0),
            pss_mib: hundredth(memory.proportional_kib as f64 / 1024.0),
        };
        let text = serde_json::to_string(&line)
            .map_err(|error| Error::io("encode a line")(error.into()))?;
        terminal::say(&text);
        before = now;
    }
    Ok(())
}

fn set_up(options: &Options) -> Result<Bench, Error> {
    let proxy_core = match options.core {
        Some(core) => core,
        None => cores()?.0,
    };
    child::raise_descriptor_limit()?;
    let guard = Arc::new(Guard::start()?);
    let ours = options.peer.starts_with(OURS);
    let scratch = Scratch::new(&guard)?;
    Ok(Bench {
        certificates: Certificates::make(scratch.make_folder("certs")?)?,
        scratch,
        guard,
        proxy_core,
        ringway: ours.then(|| find_ringway(options.ringway.as_deref())).transpose()?,
        origin_http: options.origin,
        origin_tcp: options.tcp_origin,
        contenders: Vec::new(),
        run: Run::default(),
        rounds: 1,
        seconds: options.every,
        lateness_max: Duration::MAX,
    })
}
