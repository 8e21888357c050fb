//! Listening sockets: one per worker for each address, sharing the port.
//!
//! # Invariants
//! - A port that another process (or another listener) holds is found before anything is shared:
//!   `SO_REUSEPORT` would let two owners split its traffic without a word.
//! - Options set here are inherited by every accepted socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::options::set_connection_options;
use super::pacing;
use crate::limits::LISTEN_BACKLOG;

/// Listening sockets of one address, one for each worker.
#[derive(Debug)]
pub struct Group {
    /// The address they are bound to, with the port that was chosen if 0 was asked for.
    pub address: SocketAddr,
    /// One socket for each worker.
    pub sockets: Vec<OwnedFd>,
}

/// Binds `count` sockets to `address` and listens on all of them.
///
/// # Errors
/// `AddrInUse` when somebody else holds the port; whatever else the kernel refuses.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Group> {
    // Alone first. Without SO_REUSEPORT the bind fails if anybody has the port.
    let probe = socket(address)?;
    rustix::net::bind(&probe, &address)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&probe)?)
        .map_err(|_| io::Error::from(Errno::AFNOSUPPORT))?;
    // An option set after the bind counts as well, so the port is never let go in between.
    sockopt::set_socket_reuseport(&probe, true)?;
    let mut sockets = vec![probe];
    while sockets.len() < count {
        let next = socket(address)?;
        sockopt::set_socket_reuseport(&next, true)?;
        rustix::net::bind(&next, &address)?;
        sockets.push(next);
    }
    for socket in &sockets {
        rustix::net::listen(socket, LISTEN_BACKLOG)?;
    }
    Ok(Group { address, sockets })
}

fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    set_connection_options(&fd)?;
    pacing::on_listener(&fd);
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_gets_a_socket_on_the_one_port_that_was_chosen() {
        let group = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_ne!(group.address.port(), 0);
        assert_eq!(group.sockets.len(), 3);
        for socket in &group.sockets {
            let bound = SocketAddr::try_from(rustix::net::getsockname(socket).unwrap()).unwrap();
            assert_eq!(bound, group.address);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_refused_even_if_it_is_shared() {
        let group = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let error = bind(group.address, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
