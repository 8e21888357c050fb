//! Whether the other side of a connection is there: PING after silence (RFC 9113 section 6.7).

use std::task::Context;
use std::time::Duration;

use h2::{Ping, PingPong};
use ringway_router::Http2Config;

use super::bridge::Line;
use crate::io::deadlines::after;

/// The PINGs of one connection.
pub struct Pulse {
    ping: Option<PingPong>,
    interval: Duration,
    timeout: Duration,
    /// When one was sent that has not been answered.
    asked_ns: Option<u64>,
}

impl Pulse {
    /// Asks by `ping` as `limits` say.
    #[must_use]
    pub fn new(ping: Option<PingPong>, limits: &Http2Config) -> Self {
        let Http2Config { ping_interval: interval, ping_timeout: timeout, .. } = *limits;
        Self { ping, interval, timeout, asked_ns: None }
    }

    /// Takes an answer, if one has come; wakes the task of `context` for the next.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        if let Some(ping) = &mut self.ping
            && ping.poll_pong(context).is_ready()
        {
            self.asked_ns = None;
        }
    }

    /// When to call [`Self::look`], on the clock of `now_ns`.
    #[must_use]
    pub fn due_ns(&self, line: &Line) -> u64 {
        match self.asked_ns {
            Some(asked_ns) => after(asked_ns, self.timeout),
            None => after(line.heard_ns(), self.interval),
        }
    }

    /// Asks if it is time to. False if the peer is gone: it has answered nothing for too long.
    pub fn look(&mut self, line: &Line, now_ns: u64) -> bool {
        match self.asked_ns {
            Some(asked_ns) if now_ns >= after(asked_ns, self.timeout) => {
                // Whatever it sends shows that it is there.
                if line.heard_ns() < asked_ns {
                    return false;
                }
                self.asked_ns = None;
            }
            None if now_ns >= after(line.heard_ns(), self.interval) => {
                if let Some(ping) = &mut self.ping {
                    // Refused while the last one is not answered: that asks as well.
                    let _ = ping.send_ping(Ping::opaque());
                    self.asked_ns = Some(now_ns);
                }
            }
            _ => {}
        }
        true
    }
}
