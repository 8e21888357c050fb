//! One HTTP/2 connection, h2 polled by hand.
//!
//! ```text
//! read ─▶ wire ─▶ h2 ─▶ accept ─▶ exchange ─┐
//!   ▲              ▲  └─ polled again ◀─────┤ until nobody asks for it
//!   └── one send ◀─┴─── wire ◀── answers ◀──┘
//! ```
//!
//! # Invariants
//! - All frames of a turn leave in one send, and a turn ends only when nothing more can be done
//!   without the socket or the clock.
//! - A pause holds up its own exchange alone.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::server;
use monoio::{
    BufResult,
    io::{AsyncReadRent, AsyncWriteRentExt, Splitable},
    net::TcpStream,
    time::Instant,
};
use slab::Slab;

use super::{
    answer::Variant,
    exchange::{Exchange, Step},
};
use crate::{
    limits::{
        HEAD_BYTES_MAX, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES,
        HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_MAX, OUTPUT_BYTES_MAX,
    },
    wire::{Ready, Wire},
};

/// What a client of HTTP/2 begins with (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The number of the connection's own task on its list; exchanges have their key.
const CONNECTION: u32 = u32::MAX;
/// What one read may bring.
const READ_BYTES: usize = 64 * 1024;

struct Session<'a> {
    variant: &'a Variant,
    wire: Wire,
    h2: server::Connection<Wire, Bytes>,
    exchanges: Slab<Exchange>,
    pauses: BinaryHeap<Reverse<(Instant, u32)>>,
    ready: Ready,
    /// By key of an exchange.
    wakers: Vec<Waker>,
    waker: Waker,
    ended: bool,
}

/// Serves one connection whose first bytes, the preface and maybe more, are `input`.
pub(super) async fn serve(stream: TcpStream, input: &[u8], variant: &Variant) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let mut session = Session::new(input, variant)?;
    let mut room = Vec::with_capacity(READ_BYTES);
    let mut output = Vec::new();
    loop {
        output = session.turn(&mut writer, output).await?;
        if session.ended {
            return Ok(());
        }
        let mut reading = pin!(reader.read(room));
        let (result, read) = loop {
            let Some(&Reverse((until, _))) = session.pauses.peek() else {
                break reading.await;
            };
            if let Some(read) = read_until(reading.as_mut(), until).await {
                break read;
            }
            output = session.turn(&mut writer, output).await?;
        };
        room = read;
        match result? {
            0 => session.wire.end(),
            _ => session.wire.feed(&room),
        }
        room.clear();
    }
}

/// What was read, or `None` if the time came first.
async fn read_until<F>(mut reading: Pin<&mut F>, until: Instant) -> Option<F::Output>
where
    F: Future<Output = BufResult<usize, Vec<u8>>>,
{
    let mut pause = pin!(monoio::time::sleep_until(until));
    poll_fn(|context| match reading.as_mut().poll(context) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending => pause.as_mut().poll(context).map(|()| None),
    })
    .await
}

impl<'a> Session<'a> {
    fn new(input: &[u8], variant: &'a Variant) -> io::Result<Self> {
        let wire = Wire::default();
        wire.feed(input);
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_concurrent_streams(HTTP2_STREAMS_MAX);
        // The preface is there: nothing to wait for.
        let opening = pin!(builder.handshake(wire.clone()));
        let Poll::Ready(opened) = opening.poll(&mut Context::from_waker(Waker::noop())) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let ready = Ready::default();
        Ok(Self {
            variant,
            wire,
            h2: opened.map_err(io::Error::other)?,
            exchanges: Slab::new(),
            pauses: BinaryHeap::new(),
            wakers: Vec::new(),
            waker: ready.waker(CONNECTION),
            ready,
            ended: false,
        })
    }

    /// Does all that can be done and sends it; `output` is room for what is sent.
    async fn turn(
        &mut self,
        writer: &mut impl AsyncWriteRentExt,
        mut output: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        self.end_pauses();
        loop {
            self.settle();
            let was_full = self.wire.is_full();
            output = self.wire.swap_output(output);
            if !output.is_empty() {
                let (result, sent) = writer.write_all(output).await;
                result?;
                output = sent;
                output.clear();
                // A long body's room is not kept.
                output.shrink_to(OUTPUT_BYTES_MAX);
            }
            if !was_full {
                return Ok(output);
            }
        }
    }

    fn settle(&mut self) {
        let mut woken = Vec::new();
        loop {
            while !self.ended {
                match self.h2.poll_accept(&mut Context::from_waker(&self.waker)) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        let exchange = Exchange::new(request, respond, self.variant);
                        let key = self.exchanges.insert(exchange) as u32;
                        self.step(key);
                    }
                    Poll::Ready(_) => self.ended = true,
                    Poll::Pending => break,
                }
            }
            woken.clear();
            self.ready.take(&mut woken);
            if self.ended || woken.is_empty() {
                return;
            }
            for &key in woken.iter().filter(|&&key| key != CONNECTION) {
                self.step(key);
            }
        }
    }

    fn step(&mut self, key: u32) {
        let index = key as usize;
        while self.wakers.len() <= index {
            self.wakers.push(self.ready.waker(self.wakers.len() as u32));
        }
        let Some(exchange) = self.exchanges.get_mut(index) else { return };
        match exchange.step(&mut Context::from_waker(&self.wakers[index]), self.variant) {
            Step::Waits => {}
            Step::Pauses(pause) => self.pauses.push(Reverse((Instant::now() + pause, key))),
            Step::Done => drop(self.exchanges.remove(index)),
        }
    }

    /// Wakes the exchanges whose pause is over.
    fn end_pauses(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((until, key))) = self.pauses.peek()
            && until <= now
        {
            self.pauses.pop();
            if let Some(exchange) = self.exchanges.get_mut(key as usize) {
                exchange.end_pause();
                self.wakers[key as usize].wake_by_ref();
            }
        }
    }
}
