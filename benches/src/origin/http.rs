//! One HTTP/1.1 connection: reads heads and bodies, sends answers in order.
//!
//! ```text
//! input ─▶ head ─▶ plan ─▶ request body ─▶ pause ─▶ output ─▶ [stream]
//!   ▲                                                  │
//!   └── read, only when no complete head is left ◀── flush
//! ```
//!
//! # Invariants
//! - `output` is sent before anything waits: before a read, a pause, a streamed body.
//! - `input[..at]` is used up; `input[at..]` is what no head or body has claimed.

use std::io;

use monoio::{
    buf::{IoBufMut, SliceMut},
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt},
    net::TcpStream,
};

use super::{
    answer::{self, Plan, Stream, Variant},
    head::{self, Refusal},
    http2::{self, PREFACE},
};
use crate::{
    body::Reader,
    limits::{HEAD_BYTES_MAX, HEADERS_MAX, INPUT_BYTES, OUTPUT_BYTES_MAX, READY_BODY_BYTES_MAX},
    pattern,
};

/// Bytes of one chunk of a streamed chunked body.
const CHUNK_BYTES: u64 = 16 * 1024;

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    at: usize,
    /// Nothing has been claimed yet: the connection may still be one of HTTP/2.
    is_fresh: bool,
    output: Vec<u8>,
}

/// What the bytes at hand amount to.
enum Next {
    Request(Plan),
    More,
    Refuse(u16),
    /// The preface of HTTP/2, at the beginning of a connection.
    Http2,
}

/// Serves one connection until either side closes it.
pub(super) async fn serve(stream: TcpStream, variant: &Variant) -> io::Result<()> {
    let mut connection = Connection {
        stream,
        input: Vec::with_capacity(INPUT_BYTES),
        at: 0,
        is_fresh: true,
        output: Vec::with_capacity(1024),
    };
    loop {
        match connection.next(variant) {
            Next::Request(plan) => {
                let keep_alive = plan.keep_alive;
                connection.answer(plan, variant).await?;
                if !keep_alive {
                    connection.flush().await?;
                    return connection.stream.shutdown().await;
                }
            }
            Next::More => {
                connection.flush().await?;
                if connection.read().await? == 0 {
                    return Ok(());
                }
            }
            Next::Http2 => {
                return http2::serve(connection.stream, &connection.input, variant).await;
            }
            Next::Refuse(status) => {
                connection.output.extend_from_slice(&answer::refusal(status));
                connection.flush().await?;
                return connection.stream.shutdown().await;
            }
        }
    }
}

impl Connection {
    fn next(&mut self, variant: &Variant) -> Next {
        let input = &self.input[self.at..];
        if input.is_empty() {
            return Next::More;
        }
        if self.is_fresh {
            let compared = input.len().min(PREFACE.len());
            match input[..compared] == PREFACE[..compared] {
                true if compared == PREFACE.len() => return Next::Http2,
                true => return Next::More,
                false => self.is_fresh = false,
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        match head::parse(input, &mut fields) {
            Ok(Some(head)) => {
                self.at += head.length;
                Next::Request(answer::plan(&head, variant))
            }
            Ok(None) if input.len() >= HEAD_BYTES_MAX => Next::Refuse(431),
            Ok(None) => Next::More,
            Err(Refusal::Malformed) => Next::Refuse(400),
            Err(Refusal::TooLarge) => Next::Refuse(431),
        }
    }

    async fn answer(&mut self, plan: Plan, variant: &Variant) -> io::Result<()> {
        let received_bytes = self.read_body(&plan).await?;
        if !plan.pause.is_zero() {
            self.flush().await?;
            monoio::time::sleep(plan.pause).await;
        }
        let mut stream = answer::render(&plan, variant, received_bytes, &mut self.output);
        if let Stream::Bytes(length @ ..=READY_BODY_BYTES_MAX) = stream {
            // One send, as a server of small answers does it.
            self.output.extend_from_slice(pattern::part(0, length));
            stream = Stream::None;
        }
        if stream != Stream::None || self.output.len() >= OUTPUT_BYTES_MAX {
            self.flush().await?;
        }
        match stream {
            Stream::None => Ok(()),
            Stream::Bytes(length) => self.send_bytes(length).await,
            Stream::Chunks(length) => {
                self.send_chunks(length).await?;
                self.output.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
            Stream::Trailers(length) => {
                self.send_chunks(length).await?;
                let end = format!("0\r\n{}: {length}\r\n\r\n", answer::TRAILER);
                self.output.extend_from_slice(end.as_bytes());
                Ok(())
            }
        }
    }

    async fn read_body(&mut self, plan: &Plan) -> io::Result<u64> {
        let mut reader = Reader::new(plan.framing);
        if reader.is_done() {
            return Ok(0);
        }
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        self.at += reader.take(&self.input[self.at..]).map_err(malformed)?;
        if !reader.is_done() && plan.expects_continue {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !reader.is_done() {
            // Bodies arrive in larger reads than heads; the room stays with the connection.
            self.input.reserve(HEAD_BYTES_MAX);
        }
        while !reader.is_done() {
            self.flush().await?;
            if self.input.len() - self.at >= HEAD_BYTES_MAX {
                // A chunk size or a trailer line without end.
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.read().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += reader.take(&self.input[self.at..]).map_err(malformed)?;
        }
        Ok(reader.payload_bytes())
    }

    /// Reads once behind what is unclaimed; 0 is the end of input.
    async fn read(&mut self) -> io::Result<usize> {
        self.input.drain(..self.at);
        self.at = 0;
        if self.input.len() == self.input.capacity() {
            let more = self.input.capacity().min(HEAD_BYTES_MAX);
            self.input.reserve_exact(more);
        }
        let filled = self.input.len();
        let mut input = std::mem::take(&mut self.input);
        let end = input.bytes_total();
        let (result, slice) = self.stream.read(SliceMut::new(input, filled, end)).await;
        self.input = slice.into_inner();
        result
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let (result, buffer) = self.stream.write_all(std::mem::take(&mut self.output)).await;
        self.output = buffer;
        self.output.clear();
        result.map(drop)
    }

    async fn send_bytes(&mut self, length: u64) -> io::Result<()> {
        let mut sent = 0;
        while sent < length {
            let part = pattern::part(sent, length - sent);
            self.stream.write_all(part).await.0?;
            sent += part.len() as u64;
        }
        Ok(())
    }

    /// All chunks but the last, which is empty.
    async fn send_chunks(&mut self, length: u64) -> io::Result<()> {
        let mut sent = 0;
        while sent < length {
            let part = pattern::part(sent, CHUNK_BYTES.min(length - sent));
            self.output.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            self.output.extend_from_slice(part);
            self.output.extend_from_slice(b"\r\n");
            if self.output.len() >= OUTPUT_BYTES_MAX {
                self.flush().await?;
            }
            sent += part.len() as u64;
        }
        Ok(())
    }
}
