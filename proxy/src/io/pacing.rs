//! Connections that stay on this host are not paced.
//!
//! BBR lets segments out by a timer, at the rate that it takes the path to have. A sidecar has one
//! such path for each exchange that is none: from or to the application beside it. There the timer
//! was 40 % of the processor time of a spliced tunnel. So where BBR is the system's choice, those
//! connections have Reno, which never waits for a timer and sees no loss here.
//!
//! # Invariants
//! - Connections that leave the host have the system's choice.
//! - A connection that was paced once is paced for good, whatever it is told later. So a listener
//!   has Reno, and what it accepts from elsewhere is given the system's choice back.
//!
//! # Not here
//! Any choice between algorithms for the network: that is the administrator's.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// What every kernel has and every process may choose.
const UNPACED: &str = "reno";

/// Takes the pacing from a listener, and with it from what it accepts.
pub fn on_listener(fd: impl AsFd) {
    if paced_system().is_some() {
        unpace(fd);
    }
}

/// Gives an accepted connection the system's choice if `peer` is on another host.
pub fn on_accepted(fd: impl AsFd, peer: SocketAddr) {
    let Some(system) = paced_system() else { return };
    let own = || rustix::net::getsockname(&fd).ok().and_then(|own| SocketAddr::try_from(own).ok());
    if !peer.ip().is_loopback() && !own().is_some_and(|own| same_host(own.ip(), peer.ip())) {
        let _ = sockopt::set_tcp_congestion(&fd, system);
    }
}

/// Takes the pacing from a socket that is about to connect to `target`, if that is on this host.
pub fn on_connecting(fd: impl AsFd, target: IpAddr) {
    if paced_system().is_some() && (target.is_loopback() || is_own(target)) {
        unpace(fd);
    }
}

/// Refusal leaves the system's choice, which works as well and costs more.
fn unpace(fd: impl AsFd) {
    let _ = sockopt::set_tcp_congestion(fd, UNPACED);
}

/// Whether a connection between these two addresses, `own` being one of this host, stays here. An
/// application whose connection was redirected to a listener shows its own address and is found at
/// a loopback one.
fn same_host(own: IpAddr, peer: IpAddr) -> bool {
    own == peer || own.is_loopback() || peer.is_loopback()
}

/// Whether `address` is one of this host's: only such a one can be bound to.
fn is_own(address: IpAddr) -> bool {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let Ok(probe) = rustix::net::socket(family, SocketType::STREAM, None) else { return false };
    rustix::net::bind(&probe, &SocketAddr::new(address, 0)).is_ok()
}

/// The system's congestion control, if it is one that paces. Asked once.
fn paced_system() -> Option<&'static str> {
    static SYSTEM: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let probe = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).ok()?;
        let name = sockopt::tcp_congestion(&probe).ok()?;
        paces(&name).then_some(name)
    };
    SYSTEM.get_or_init(ask).as_deref()
}

/// BBR in all its versions. The others leave the time of sending to acknowledgements.
fn paces(congestion_control: &str) -> bool {
    congestion_control.starts_with("bbr")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_stays_here_if_both_ends_are_one_address_or_one_is_loopback() {
        assert!(same_host(ip("10.1.2.3"), ip("10.1.2.3")));
        assert!(same_host(ip("127.0.0.1"), ip("10.1.2.3")), "redirected on its way out");
        assert!(same_host(ip("::1"), ip("::1")));
        assert!(!same_host(ip("10.1.2.3"), ip("10.1.2.4")));
    }

    #[test]
    fn own_addresses_can_be_told_from_others() {
        assert!(is_own(ip("127.0.0.1")));
        assert!(!is_own(ip("192.0.2.1")), "TEST-NET-1 (RFC 5737) is nobody's");
    }

    #[test]
    fn every_version_of_bbr_paces_and_no_other() {
        assert!(["bbr", "bbr2", "bbr3"].into_iter().all(paces));
        assert!(!["reno", "cubic", "dctcp", "vegas"].into_iter().any(paces));
    }

    #[test]
    fn what_a_listener_lost_is_given_back_for_peers_elsewhere() {
        let name = |fd: &std::os::fd::OwnedFd| sockopt::tcp_congestion(fd).unwrap();
        let fresh = || rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let system = name(&fresh());
        let listener = fresh();
        on_listener(&listener);
        let expected = if paces(&system) { UNPACED } else { &system };
        assert_eq!(name(&listener), expected);
        // Not connected, so its own address is 0.0.0.0: neither loopback nor the peer's.
        on_accepted(&listener, "192.0.2.1:80".parse().unwrap());
        assert_eq!(name(&listener), system);
    }
}
