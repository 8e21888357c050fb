//! What the kernel says of a process: its descriptors, limits and memory.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, pidfd_getfd, pidfd_open, prlimit,
};

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).unwrap()
}

/// Every descriptor and what it is.
pub fn descriptors(pid: u32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            Some((number, fs::read_link(&path).ok()?.to_str()?.to_owned()))
        })
        .collect()
}

/// Ends of pipes that the process has open.
pub fn pipe_ends(pid: u32) -> usize {
    descriptors(pid).iter().filter(|(_, target)| target.starts_with("pipe:")).count()
}

/// Leaves the process room for `more` descriptors beyond those it has. Free numbers below the
/// highest one count.
pub fn leave_descriptors(pid: u32, more: usize) {
    let taken: Vec<i32> = descriptors(pid).into_iter().map(|(number, _)| number).collect();
    let free = (0..).filter(|number| !taken.contains(number));
    let limit = if more == 0 {
        free.take(1).next()
    } else {
        free.take(more).last().map(|number| number + 1)
    };
    limit_descriptors(pid, limit.unwrap().cast_unsigned().into());
}

/// Sets the limit of descriptors.
pub fn limit_descriptors(pid: u32, current: u64) {
    let old = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(current), maximum: old.maximum };
    prlimit(Some(pid_of(pid)), Resource::Nofile, limit).unwrap();
}

/// The process's own connections, duplicated, with the addresses of their two ends.
pub fn connections(pid: u32) -> Vec<(OwnedFd, SocketAddr, SocketAddr)> {
    let pidfd = pidfd_open(pid_of(pid), PidfdFlags::empty()).unwrap();
    let sockets = descriptors(pid).into_iter().filter(|(_, is)| is.starts_with("socket:"));
    sockets
        .filter_map(|(number, _)| {
            let fd = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok()?;
            let stream = TcpStream::from(fd);
            let (local, peer) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
            Some((stream.into(), local, peer))
        })
        .collect()
}

/// A field of `smaps_rollup`, in bytes.
pub fn memory(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes in the queues of the connection from `local` to `peer`: sent and not acknowledged,
/// received and not read (/proc/net/tcp).
pub fn queued(local: SocketAddr, peer: SocketAddr) -> (u64, u64) {
    let (local, peer) = (hex(local), hex(peer));
    let text = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = text.lines().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&local) && words.next() == Some(&peer)
    });
    let line = line.unwrap_or_else(|| panic!("no connection from {local} to {peer}"));
    let (send, receive) = line.split_whitespace().nth(4).unwrap().split_once(':').unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    (number(send), number(receive))
}

fn hex(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("IPv4 only: {address}") };
    let ip = u32::from_le_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
