//! What every connection of the proxy is set to, on both sides.
//!
//! # Not here
//! What depends on the peer: `pacing`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::limits::{KEEPALIVE_PROBES, KEEPALIVE_TIME};

/// A fresh socket for `address` with the options of every connection of the proxy.
///
/// # Errors
/// When the kernel refuses it.
pub fn new_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    set_connection_options(&fd)?;
    Ok(fd)
}

/// No delay, and probes of a silent peer. Accepted sockets inherit these from their listener, which
/// is where they are set for them. A peer that owes acknowledgements is not probed:
/// [`super::silence`].
///
/// # Errors
/// When the kernel refuses one of them.
pub fn set_connection_options(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE_TIME)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_TIME)?;
    sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES)?;
    Ok(())
}
