//! The scenarios, by the ids that files and the command line use.

use std::str::FromStr;

use crate::bodies::Protocol;

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Start,
    H1Small,
    H1OneMib,
    H1SixteenMib,
    TcpOneMib,
    TcpSixteenMib,
    Idle0,
    Idle9000,
    Routes10,
    Routes100k,
}

/// How a scenario is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// CPU per small request, closed loop.
    Requests,
    /// CPU per byte of large bodies, closed loop.
    Bodies {
        protocol: Protocol,
        bytes: u64,
    },
    Start,
    Idle {
        connections: u32,
    },
    Routes,
}

impl Scenario {
    /// In the order in which they run.
    pub(crate) const ALL: [Self; 10] = [
        Self::Start,
        Self::H1Small,
        Self::H1OneMib,
        Self::H1SixteenMib,
        Self::TcpOneMib,
        Self::TcpSixteenMib,
        Self::Idle0,
        Self::Idle9000,
        Self::Routes10,
        Self::Routes100k,
    ];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::H1Small => "h1-small",
            Self::H1OneMib => "h1-1m",
            Self::H1SixteenMib => "h1-16m",
            Self::TcpOneMib => "tcp-1m",
            Self::TcpSixteenMib => "tcp-16m",
            Self::Idle0 => "idle-0",
            Self::Idle9000 => "idle-9000",
            Self::Routes10 => "routes-10",
            Self::Routes100k => "routes-100k",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Start => "from exec to the first answer, and memory then",
            Self::H1Small => "GET / with a 14 byte body, 64 kept connections",
            Self::H1OneMib => "HTTP bodies of 1 MiB, 4 kept connections",
            Self::H1SixteenMib => "HTTP bodies of 16 MiB, 4 kept connections",
            Self::TcpOneMib => "bodies of 1 MiB through 4 TCP tunnels",
            Self::TcpSixteenMib => "bodies of 16 MiB through 4 TCP tunnels",
            Self::Idle0 => "memory after one request",
            Self::Idle9000 => "memory with 9000 idle connections that each sent 16 KiB once",
            Self::Routes10 | Self::Routes100k => "the same requests under 10 and 100 000 routes",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        let bodies = |protocol, mebibytes: u64| Kind::Bodies { protocol, bytes: mebibytes << 20 };
        match self {
            Self::Start => Kind::Start,
            Self::H1Small => Kind::Requests,
            Self::H1OneMib => bodies(Protocol::Http, 1),
            Self::H1SixteenMib => bodies(Protocol::Http, 16),
            Self::TcpOneMib => bodies(Protocol::Tcp, 1),
            Self::TcpSixteenMib => bodies(Protocol::Tcp, 16),
            Self::Idle0 => Kind::Idle { connections: 0 },
            Self::Idle9000 => Kind::Idle { connections: 9000 },
            Self::Routes10 | Self::Routes100k => Kind::Routes,
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ids: Vec<&str> = Self::ALL.iter().map(|scenario| scenario.id()).collect();
        let found = Self::ALL.into_iter().find(|scenario| scenario.id() == text);
        found.ok_or_else(|| format!("expected one of {}", ids.join(", ")))
    }
}
