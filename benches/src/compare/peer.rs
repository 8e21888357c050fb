//! The proxies under test: their configurations, how they start, what version they are.

use std::{net::SocketAddr, path::Path, process::Command, str::FromStr};

use super::{Bench, probe};
use crate::{child::Child, error::Error};

const NGINX: &str = include_str!("../../peers/nginx.conf");
const HAPROXY: &str = include_str!("../../peers/haproxy.cfg");
const RINGWAY: &str = include_str!("../../peers/ringway.yaml");

/// A proxy that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Ringway on io_uring: the one that the others are compared with.
    Ringway,
    RingwayEpoll,
    Haproxy,
    /// HAProxy with larger pipes, and spliced also where its own guess would copy.
    HaproxyTuned,
    Nginx,
}

/// Where a proxy under test listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) peer: Peer,
    pub(crate) child: Child,
    pub(crate) addresses: Addresses,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Ringway, Self::RingwayEpoll, Self::Haproxy, Self::HaproxyTuned, Self::Nginx];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::RingwayEpoll => "ringway-epoll",
            Self::Haproxy => "haproxy",
            Self::HaproxyTuned => "haproxy-tuned",
            Self::Nginx => "nginx",
        }
    }

    pub(crate) fn is_ringway(self) -> bool {
        matches!(self, Self::Ringway | Self::RingwayEpoll)
    }

    fn template(self) -> &'static str {
        match self {
            Self::Ringway | Self::RingwayEpoll => RINGWAY,
            Self::Haproxy | Self::HaproxyTuned => HAPROXY,
            Self::Nginx => NGINX,
        }
    }

    /// What `{{PIPES}}` in the template stands for.
    fn pipes(self) -> &'static str {
        match self {
            Self::HaproxyTuned => "tune.pipesize 262144",
            Self::Haproxy | Self::Ringway | Self::RingwayEpoll | Self::Nginx => "",
        }
    }

    /// What `{{SPLICE}}` in the template stands for.
    fn splice(self) -> &'static str {
        match self {
            Self::HaproxyTuned => "option splice-request\n    option splice-response",
            Self::Haproxy | Self::Ringway | Self::RingwayEpoll | Self::Nginx => {
                "option splice-auto"
            }
        }
    }

    /// The command line that serves `config` in the foreground with one worker.
    fn command(self, bench: &Bench, config: &Path) -> Result<Command, Error> {
        let ringway = |backend: &str| {
            let program = bench.ringway.as_deref().ok_or_else(|| Error::Missing {
                program: "ringway".to_owned(),
                remedy: "build it first",
            })?;
            let mut command = Command::new(program);
            command.args(["run", "--backend", backend, "--workers", "1", "--config"]);
            Ok(command)
        };
        let mut command = match self {
            Self::Ringway => ringway("io_uring")?,
            Self::RingwayEpoll => ringway("epoll")?,
            Self::Haproxy | Self::HaproxyTuned => {
                let mut command = installed("haproxy");
                command.args(["-db", "-f"]);
                command
            }
            Self::Nginx => {
                let mut command = installed("nginx");
                // Where it complains before it has read its configuration.
                command.args(["-e", "stderr", "-c"]);
                command
            }
        };
        command.arg(config);
        Ok(command)
    }

    /// The version that the program reports, or nothing if it cannot be run.
    pub(crate) fn version(self, bench: &Bench) -> Option<String> {
        let output = match self {
            Self::Ringway | Self::RingwayEpoll => {
                Command::new(bench.ringway.as_deref()?).arg("--version").output()
            }
            Self::Haproxy | Self::HaproxyTuned => installed("haproxy").arg("-v").output(),
            Self::Nginx => installed("nginx").arg("-v").output(),
        };
        let output = output.ok()?;
        // nginx says its version on standard error.
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next()?.to_owned();
        let words = line.strip_prefix("nginx version: ").unwrap_or(&line);
        Some(words.split(" - ").next().unwrap_or(words).trim().to_owned())
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ids: Vec<&str> = Self::ALL.iter().map(|peer| peer.id()).collect();
        let found = Self::ALL.into_iter().find(|peer| peer.id() == text);
        found.ok_or_else(|| format!("expected one of {}", ids.join(", ")))
    }
}

impl Proxy {
    /// Starts `peer` with its own template and waits until it answers through the origin.
    pub(crate) fn start(bench: &Bench, peer: Peer) -> Result<Self, Error> {
        let mut proxy = Self::spawn(bench, peer)?;
        proxy.wait_for_answer()?;
        Ok(proxy)
    }

    /// Starts `peer` with its own template and does not wait.
    pub(crate) fn spawn(bench: &Bench, peer: Peer) -> Result<Self, Error> {
        let addresses = Addresses::free(bench)?;
        let config = fill(peer, bench, &addresses);
        Self::spawn_with(bench, peer, &config, addresses)
    }

    /// Starts `peer` with the given configuration and does not wait.
    pub(crate) fn spawn_with(
        bench: &Bench,
        peer: Peer,
        config: &str,
        addresses: Addresses,
    ) -> Result<Self, Error> {
        let path = bench.scratch.write(&config_name(peer, &addresses), config)?;
        let command = peer.command(bench, &path)?;
        let log = path.with_extension("log");
        let core = Some(bench.proxy_core);
        let child = Child::start(peer.id(), command, core, Some(log), &bench.guard)?;
        Ok(Self { peer, child, addresses })
    }

    /// Waits for a 200 through the HTTP listener.
    pub(crate) fn wait_for_answer(&mut self) -> Result<(), Error> {
        probe::wait_for_answer(&mut self.child, self.addresses.http, "ready")
    }
}

/// A program that its package may have put where only root's path leads.
fn installed(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// The file name of a proxy's configuration; the port makes it unique.
pub(crate) fn config_name(peer: Peer, addresses: &Addresses) -> String {
    format!("{}-{}.conf.yaml", peer.id(), addresses.http.port())
}

impl Addresses {
    pub(crate) fn free(bench: &Bench) -> Result<Self, Error> {
        let free = || bench.scratch.free_address();
        Ok(Self { http: free()?, tcp: free()?, admin: free()? })
    }
}

/// The peer's template, filled in. `{{NAMES}}` stands in the templates' own comments.
fn fill(peer: Peer, bench: &Bench, addresses: &Addresses) -> String {
    peer.template()
        .replace("{{NAMES}}", "Names in braces")
        .replace("{{HTTP}}", &addresses.http.to_string())
        .replace("{{TCP}}", &addresses.tcp.to_string())
        .replace("{{ADMIN}}", &addresses.admin.to_string())
        .replace("{{ORIGIN_HTTP}}", &bench.origin_http.to_string())
        .replace("{{ORIGIN_TCP}}", &bench.origin_tcp.to_string())
        .replace("{{FOLDER}}", &bench.scratch.folder().display().to_string())
        .replace("{{PIPES}}", peer.pipes())
        .replace("{{SPLICE}}", peer.splice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_in_every_template_is_one_that_is_filled() {
        let known = [
            "NAMES",
            "HTTP",
            "TCP",
            "ADMIN",
            "ORIGIN_HTTP",
            "ORIGIN_TCP",
            "FOLDER",
            "PIPES",
            "SPLICE",
        ];
        for peer in Peer::ALL {
            for place in peer.template().split("{{").skip(1) {
                let name = place.split_once("}}").unwrap().0;
                assert!(known.contains(&name), "{name} in the template of {}", peer.id());
            }
        }
    }
}
