//! What every end-to-end test needs: a running proxy, an origin that does as it is told, and a
//! client that sends exact bytes.

pub mod h2;
pub mod h2_origin;
pub mod http;
pub mod origin;
pub mod pair;
pub mod peers;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod tls;

pub use http::Client;
pub use origin::Origin;
pub use proxy::{Backend, Proxy};

/// Waits until `condition` holds, and fails with `what` after ten seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// An address that nobody else takes, for a program that cannot take port 0. Below the ports that the
/// kernel gives to outgoing connections: one of those could be the next free one, of another test or
/// of the very connection that looks whether somebody listens.
pub fn free_address() -> std::net::SocketAddr {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() * 97 % 10_000) as u16;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        // Bound and not listening: a program that another test starts meanwhile inherits the socket
        // until its exec, and would take connections that are meant for who listens next.
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        if rustix::net::bind(&socket, &address).is_ok() {
            return address;
        }
    }
}
