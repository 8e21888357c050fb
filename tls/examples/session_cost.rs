//! What handshakes and records cost: `cargo run --release -p ringway-tls --example session_cost`.
//!
//! A client and a server in memory, timed on the server's side only. Each time is the least of
//! several rounds; heap is counted by this program's allocator. Certificates come from the fuzz
//! target's folder: ECDSA P-256, one below its root.
#![allow(clippy::print_stdout)]

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_tls::limits::RECORD_PLAIN_MAX;
use ringway_tls::{
    Bundle, ClientSettings, ClientTls, KeyPair, Peers, Provider, ServerName, ServerSettings,
    ServerTls, Session, Step, Trust, UnixTime, provider,
};

/// 1 June 2027, within the validity of the certificates.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_811_808_000));
const HANDSHAKES: usize = 300;
const RECORDS: usize = 2000;
const ROUNDS: usize = 9;

thread_local! {
    /// Allocations, and bytes that are held.
    static ALLOCATED: Cell<(u64, i64)> = const { Cell::new((0, 0)) };
}

mod counting {
    //! The system's allocator, counted. Unsafe as `GlobalAlloc` is; this is an example, not the
    //! crate.

    use std::alloc::{GlobalAlloc, Layout, System};

    use super::ALLOCATED;

    pub(super) struct Counting;

    fn count(allocations: u64, bytes: i64) {
        // Nothing is counted while a thread ends.
        let _ = ALLOCATED.try_with(|cell| {
            let (number, held) = cell.get();
            cell.set((number + allocations, held + bytes));
        });
    }

    // SAFETY: every call goes to the system's allocator with the arguments as they came.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(1, layout.size() as i64);
            // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count(0, -(layout.size() as i64));
            // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
            count(1, new_size as i64 - layout.size() as i64);
            // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
            unsafe { System.realloc(pointer, layout, new_size) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() {
    let start = Instant::now();
    let chosen = provider::measure(|| start.elapsed().as_nanos() as u64);
    let (ring, aws) = chosen.measured();
    println!(
        "seal and open 16 KiB        ring {ring:.2} us, aws-lc-rs {aws:.2} us: {}",
        chosen.records()
    );
    println!("measured in                 {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    let classical = Provider::with(&["X25519"], &[]);
    let hybrid = Provider::with(&["X25519MLKEM768"], &[]);
    for (groups, provider) in [("X25519", &classical), ("X25519MLKEM768", &hybrid)] {
        for (kind, mutual, resumed) in
            [("full", false, false), ("mutual", true, false), ("mutual, resumed", true, true)]
        {
            println!("{groups}, {kind}: server {:.1} us", handshake_us(provider, mutual, resumed));
        }
    }
    let (mut client, mut server) = pair(&classical);
    for size in [128, RECORD_PLAIN_MAX] {
        records(&mut client, &mut server, size);
    }
    idle(&classical, false);
    idle(&classical, true);
}

fn material() -> (Arc<Bundle>, Arc<KeyPair>) {
    let bundle = Bundle::parse(include_bytes!("../../proxy/fuzz/src/tls/root.pem"), &[]);
    let pair = KeyPair::parse(
        include_bytes!("../../proxy/fuzz/src/tls/member.pem"),
        include_bytes!("../../proxy/fuzz/src/tls/member.key"),
        None,
    );
    (Arc::new(bundle.expect("the root is usable")), Arc::new(pair.expect("the pair is usable")))
}

fn sides(provider: &Provider, mutual: bool, resumption: bool) -> (ServerTls, ClientTls) {
    let (bundle, pair) = material();
    let peers = if mutual { Peers::Required(Arc::clone(&bundle)) } else { Peers::None };
    let certificates = &[Arc::clone(&pair)];
    let server = ServerSettings { certificates, peers, tls12: false, alpn: &[b"h2"], resumption };
    let expected = [pair.spiffe().expect("a member has an id").clone()].into();
    let trust = Trust::Mesh { bundle, expected };
    let alpn = vec![b"h2".to_vec()];
    let client = ClientSettings { pair: Some(pair), trust, tls12: false, alpn, resumption };
    let server = ServerTls::build_with(&server, provider).expect("the settings are usable");
    (server, ClientTls::build_with(&client, provider).expect("the settings are usable"))
}

/// Shakes hands; the time in the server.
fn shake(server: &ServerTls, client: &ClientTls) -> (Session, Session, Duration) {
    let name = ServerName::try_from("a.example").expect("a name");
    let mut client = client.connect(name, NOW).expect("a session");
    let (mut hello, mut flight, mut last, mut tickets) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    client.handshake(&mut [], &mut hello, NOW).expect("a hello");
    let start = Instant::now();
    let mut server = server.accept().expect("a session");
    server.handshake(&mut hello, &mut flight, NOW).expect("a flight");
    let first = start.elapsed();
    client.handshake(&mut flight, &mut last, NOW).expect("the end");
    let start = Instant::now();
    let advance = server.handshake(&mut last, &mut tickets, NOW).expect("the end");
    let took = first + start.elapsed();
    assert_eq!(advance.step, Step::Established);
    client.open(&mut tickets, |_| {}).expect("a ticket");
    (client, server, took)
}

/// The median of many: the least would be that of lucky random numbers.
fn handshake_us(provider: &Provider, mutual: bool, resumed: bool) -> f64 {
    let (server, client) = sides(provider, mutual, resumed);
    shake(&server, &client);
    let mut times: Vec<Duration> = (0..HANDSHAKES)
        .map(|_| {
            let (_, session, took) = shake(&server, &client);
            assert_eq!(session.negotiated().resumed, resumed);
            took
        })
        .collect();
    times.sort_unstable();
    times[HANDSHAKES / 2].as_secs_f64() * 1e6
}

fn pair(provider: &Provider) -> (Session, Session) {
    let (server, client) = sides(provider, true, true);
    let (client, server, _) = shake(&server, &client);
    (client, server)
}

fn records(client: &mut Session, server: &mut Session, size: usize) {
    let plain = vec![7; size];
    let mut wire = vec![0; size + Session::seal_overhead(size)];
    let (mut sealing, mut opening) = (Duration::MAX, Duration::MAX);
    let (mut sealed_with, mut opened_with) = (0, 0);
    for _ in 0..ROUNDS {
        let (mut seal, mut open) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..RECORDS {
            let before = ALLOCATED.get().0;
            let start = Instant::now();
            let (taken, written) = client.seal(&plain, &mut wire).expect("it seals");
            seal += start.elapsed();
            let between = ALLOCATED.get().0;
            let mut length = 0;
            let start = Instant::now();
            server.open(&mut wire[..written], |bytes| length += bytes.len()).expect("it opens");
            open += start.elapsed();
            assert_eq!((taken, length), (size, size));
            (sealed_with, opened_with) = (between - before, ALLOCATED.get().0 - between);
        }
        sealing = sealing.min(seal);
        opening = opening.min(open);
    }
    let each = |total: Duration| total.as_secs_f64() * 1e6 / RECORDS as f64;
    println!(
        "{size} bytes: seal {:.2} us, {sealed_with} allocations; open {:.2} us, {opened_with} allocations",
        each(sealing),
        each(opening),
    );
}

/// Bytes of heap that an established session of a server holds with mutual TLS.
fn idle(provider: &Provider, resumption: bool) {
    const SESSIONS: usize = 100;
    let (server, client) = sides(provider, true, resumption);
    shake(&server, &client);
    let mut sessions = Vec::with_capacity(SESSIONS);
    let before = ALLOCATED.get().1;
    for _ in 0..SESSIONS {
        let (_, session, _) = shake(&server, &client);
        sessions.push(session);
    }
    let held = ALLOCATED.get().1 - before;
    println!(
        "idle, resumed {resumption}: {} bytes in the session, {} of heap beside",
        size_of::<Session>(),
        held / SESSIONS as i64
    );
}
