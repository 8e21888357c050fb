//! One TLS connection: records in, plaintext out, and the other way round.
//!
//! ```text
//!             handshake()                          open(), seal()            close()
//! Handshaking ───────────▶ Established ──────────────────────────▶ Established ───▶ closed
//!      │ Err                                            │ Err
//!      ▼                                                ▼
//!    failed: what is left to send is the alert (in `out`, or by take_alert())
//! ```
//!
//! The wrapper is over rustls's unbuffered interface: the caller's buffers hold the records, which
//! are decrypted in place. rustls makes one `Vec` for the plaintext of each record and one for each
//! record that it seals; nothing is allocated beside that.
//!
//! # Invariants
//! - rustls is shown one record more at a time, so that a handshake ends exactly behind its last
//!   record and no plaintext comes up before [`Session::open`].
//! - rustls remembers places in what it was shown and has not discarded (a handshake message in
//!   several records). Whatever it is called for, it is shown the same bytes again: in a handshake
//!   they stay with the caller (`seen`), later in the session (`held`).
//! - Time, and what verifiers find, pass through `call`, on entering and leaving each call.
//!
//! # Not here
//! Deadlines and buffers (`proxy`). 0-RTT, which is never offered nor accepted.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::call;
use crate::fault::{Fault, of_rustls};
use crate::limits::{
    CONTROL_BYTES_MAX, HANDSHAKE_INPUT_MAX, HELD_BYTES_MAX, QUEUED_BYTES_MAX, RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES, RECORD_OVERHEAD_MAX, RECORD_PLAIN_MAX, SILENT_RECORDS_MAX,
};
use crate::provider::{group_name, sha256, suite_name};
use crate::spiffe::SpiffeId;
use crate::verify::verified_before;

mod connection;

use connection::{Connection, Failure, Next, Plain, collect_alert, plain_alert, protest};

/// One TLS connection, as server or as client.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// What is to be sent in front of the next record: answers to KeyUpdate, alerts.
    queued: Vec<u8>,
    /// The verified peer; set with the end of the handshake if `mesh`.
    peer: Option<SpiffeId>,
    /// Last second of the peer's chain, `u64::MAX` without one.
    peer_until: u64,
    /// Time of the last call of [`Session::handshake`]; tickets that come later count from it,
    /// which makes them older than they are, never younger.
    shaken: UnixTime,
    /// The peer has to be a member of the mesh.
    mesh: bool,
    /// The name that the client asked for, as rustls validated it (server side only).
    server_name: Option<Box<str>>,
    established: bool,
    /// Bytes at the front of the input that rustls was shown in the last call of
    /// [`Session::handshake`] and has not discarded: whole records.
    seen: usize,
    /// The same after the handshake: whole records; at most [`HELD_BYTES_MAX`].
    held: Vec<u8>,
    /// Records in a row without plaintext; at most one more than [`SILENT_RECORDS_MAX`].
    silent: u8,
    /// close_notify was sent: nothing more is sealed.
    closed: bool,
    /// What ended the connection; rustls is not called any more, which it would not bear.
    failed: Option<Box<Fault>>,
}

/// What the caller of [`Session::handshake`] does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send what was written, if anything; call again with more input.
    NeedInput,
    /// Send what was written; input behind what was consumed is for [`Session::open`].
    Established,
}

/// What a call of [`Session::handshake`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// Bytes at the front of the input that are done with.
    pub consumed: usize,
    /// What to do next.
    pub step: Step,
}

/// What a call of [`Session::open`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Bytes at the front of the input that are done with.
    pub consumed: usize,
    /// The peer has said close_notify: no data will follow.
    pub closed: bool,
}

/// Application protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `http/1.1`, or `http/1.0` for a client that knows no other.
    Http1,
    /// `h2`.
    H2,
}

/// What the two sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated<'a> {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// Name of the cipher suite as IANA writes it.
    pub cipher: &'static str,
    /// Name of the group of the key exchange; `none` for a resumed TLS 1.2 session.
    pub group: &'static str,
    /// Application protocol; `None` if there was no negotiation or for one that is unknown.
    pub alpn: Option<Alpn>,
    /// An earlier session goes on: no certificates were exchanged.
    pub resumed: bool,
    /// The name that the client asked for (server side only).
    pub server_name: Option<&'a str>,
}

impl Session {
    pub(crate) fn server(config: &Arc<ServerConfig>, mesh: bool) -> Result<Session, Fault> {
        let connection = UnbufferedServerConnection::new(Arc::clone(config))
            .map_err(|error| of_rustls(&error, None))?;
        Ok(Session::over(Connection::Server(Box::new(connection)), mesh))
    }

    pub(crate) fn client(
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        mesh: bool,
        now: UnixTime,
    ) -> Result<Session, Fault> {
        call::enter(now, u64::MAX);
        let made = UnbufferedClientConnection::new(Arc::clone(config), name);
        let (found, peer_until) = call::leave();
        let connection = made.map_err(|error| of_rustls(&error, found.fault))?;
        let session = Session::over(Connection::Client(Box::new(connection)), mesh);
        Ok(Session { peer_until, ..session })
    }

    fn over(connection: Connection, mesh: bool) -> Session {
        Session {
            connection,
            queued: Vec::new(),
            peer: None,
            peer_until: u64::MAX,
            shaken: UnixTime::since_unix_epoch(Duration::ZERO),
            mesh,
            server_name: None,
            established: false,
            seen: 0,
            held: Vec::new(),
            silent: 0,
            closed: false,
            failed: None,
        }
    }

    /// The fault that ended the connection, if any.
    fn check(&self) -> Result<(), Fault> {
        self.failed.as_deref().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.failed = Some(Box::new(fault.clone()));
        fault
    }

    /// Takes part in the handshake.
    ///
    /// `input` is all that came and was not consumed, from its start; what is to be sent is
    /// appended to `out`. A client calls first with no input. The input may be changed in place.
    ///
    /// # Errors
    /// Why the handshake failed; `out` then ends with the alert to be sent, if any.
    pub fn handshake(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        now: UnixTime,
    ) -> Result<Advance, Fault> {
        self.check()?;
        call::enter(now, self.peer_until);
        self.shaken = now;
        let stepped = self.exchange(input);
        let (found, peer_until) = call::leave();
        self.peer_until = peer_until;
        if found.peer.is_some() {
            self.peer = found.peer;
        }
        if found.server_name.is_some() {
            self.server_name = found.server_name;
        }
        let result = match stepped {
            Ok(advance) if advance.step == Step::Established => self.admit(now).map(|()| advance),
            Ok(advance) => Ok(advance),
            Err(Failure::Rustls(error)) => {
                let fault = of_rustls(&error, found.fault);
                // rustls is silent about some of what it cannot read.
                let unread = matches!(error, rustls::Error::InvalidMessage(_));
                if unread && self.queued.is_empty() && self.is_in_plaintext() {
                    self.queued = plain_alert(&fault);
                }
                Err(fault)
            }
            Err(Failure::Ours(fault)) => Err(fault),
        };
        out.append(&mut self.queued);
        result.map_err(|fault| self.fail(fault))
    }

    /// Shows rustls one record more at a time until the handshake is over.
    fn exchange(&mut self, input: &mut [u8]) -> Result<Advance, Failure> {
        let mut consumed = 0;
        // What rustls is shown, and what of it are whole records: of the rest it keeps nothing.
        let mut shown = std::mem::take(&mut self.seen);
        let mut whole = shown;
        if shown > input.len() {
            let text = "input that was not consumed has gone".to_owned();
            return Err(Failure::Ours(Fault::Internal(text)));
        }
        loop {
            let (discarded, next) = self.connection.step(
                &mut input[consumed..consumed + shown],
                &mut self.queued,
                &mut |_| {},
            );
            consumed += discarded;
            shown -= discarded;
            whole = whole.saturating_sub(discarded);
            let next = next.inspect_err(|_| {
                let rest = &mut input[consumed..consumed + shown];
                collect_alert(&mut self.connection, rest, &mut self.queued);
            })?;
            match next {
                Next::Again => {}
                Next::PeerClosed => return Err(Failure::Ours(Fault::Truncated)),
                Next::Starved => {
                    if !self.connection.common().is_handshaking() {
                        self.established = true;
                        return Ok(Advance { consumed, step: Step::Established });
                    }
                    let left = &input[consumed..];
                    if shown == whole {
                        let next = self.next_record(left, whole);
                        let next = next.map_err(|fault| self.refuse(fault, &left[..whole]))?;
                        if next.end > shown {
                            shown = next.end;
                            whole = if next.is_whole { shown } else { whole };
                            continue;
                        }
                    }
                    if left.len() > HANDSHAKE_INPUT_MAX {
                        return Err(self.refuse(too_long(), &left[..whole]));
                    }
                    self.seen = whole;
                    return Ok(Advance { consumed, step: Step::NeedInput });
                }
            }
        }
    }

    /// What has to hold at the end of a handshake, resumed or not.
    fn admit(&mut self, now: UnixTime) -> Result<(), Fault> {
        let since_s = now.as_secs().saturating_sub(self.peer_until);
        if since_s > 0 {
            return Err(Fault::PeerCertificateExpired { since_s });
        }
        if self.mesh && self.peer.is_none() {
            let leaf = self.peer_chain().first().ok_or(Fault::PeerNoCertificate)?;
            self.peer = Some(verified_before(leaf)?);
        }
        Ok(())
    }

    /// Decrypts the whole records at the front of `input` in place and hands the plaintext of each
    /// to `plain`, together fewer bytes than `input`. An input of [`RECORD_BYTES_MAX`] bytes or
    /// more is never left as it is: something is consumed, or it is an error.
    ///
    /// Messages of the protocol are handled inside; what they make us send is [`Session::owed`],
    /// and goes out in front of the next [`Session::seal`] at the latest. After close_notify all
    /// input counts as consumed.
    ///
    /// # Errors
    /// Why the connection cannot go on; [`Session::take_alert`] has what is to be sent.
    pub fn open(
        &mut self,
        input: &mut [u8],
        mut plain: impl FnMut(&[u8]),
    ) -> Result<Opened, Fault> {
        self.check()?;
        call::enter(self.shaken, self.peer_until);
        let opened = self.decrypt(input, &mut plain);
        let (found, _) = call::leave();
        opened.map_err(|failure| {
            self.fail(match failure {
                Failure::Rustls(error) => of_rustls(&error, found.fault),
                Failure::Ours(fault) => fault,
            })
        })
    }

    fn decrypt(&mut self, input: &mut [u8], plain: Plain<'_>) -> Result<Opened, Failure> {
        if !self.established {
            return Err(Failure::Ours(Fault::Internal("opened before the handshake".into())));
        }
        let (mut consumed, mut shown) = (0, 0);
        loop {
            let mut spoke = false;
            let in_pieces = !self.held.is_empty();
            let buffer = match in_pieces {
                true => &mut self.held[..],
                false => &mut input[consumed..consumed + shown],
            };
            let (discarded, next) = self.connection.step(buffer, &mut self.queued, &mut |bytes| {
                spoke = true;
                plain(bytes);
            });
            let next = next.inspect_err(|_| {
                let rest = &mut buffer[discarded..];
                collect_alert(&mut self.connection, rest, &mut self.queued);
            })?;
            if in_pieces {
                self.held.drain(..discarded);
            } else {
                consumed += discarded;
                shown -= discarded;
            }
            if spoke {
                self.silent = 0;
            }
            if self.queued.len() > QUEUED_BYTES_MAX {
                let fault = Fault::PeerMisbehaved("too many requests".into());
                return Err(self.refuse_held(fault));
            }
            match next {
                Next::Again => {}
                Next::PeerClosed => return Ok(Opened { consumed: input.len(), closed: true }),
                Next::Starved => {
                    let left = &input[consumed..];
                    if whole_records(&left[..shown]) < shown {
                        return Ok(Opened { consumed, closed: false });
                    }
                    // Seen and not discarded: a message that goes on in the next record.
                    self.held.extend_from_slice(&left[..shown]);
                    consumed += shown;
                    if self.silent > SILENT_RECORDS_MAX {
                        return Err(self.refuse_held(Fault::EmptyRecords));
                    }
                    let next = self.show_next(&input[consumed..]);
                    shown = next.map_err(|fault| self.refuse_held(fault))?;
                    if shown == 0 {
                        return Ok(Opened { consumed, closed: false });
                    }
                    if !self.held.is_empty() {
                        consumed += shown;
                        shown = 0;
                    }
                }
            }
        }
    }

    /// How much of `left` is to be shown next: one record, or what is there of it; 0 to wait. While
    /// a message is held, a whole record goes there, and of a record that is not whole, of which
    /// rustls remembers nothing, nothing is shown.
    fn show_next(&mut self, left: &[u8]) -> Result<usize, Fault> {
        let Record { end, is_whole } = self.next_record(left, 0)?;
        if is_whole {
            self.silent += 1;
        }
        if self.held.is_empty() {
            return Ok(end);
        }
        if left.first().is_some_and(|first| !is_content_type(*first)) {
            return Err(Fault::NotTls);
        }
        if self.held.len() + end > HELD_BYTES_MAX {
            return Err(too_long());
        }
        if is_whole {
            self.held.extend_from_slice(&left[..end]);
            return Ok(end);
        }
        Ok(0)
    }

    /// The record of `input` that begins at `start`.
    ///
    /// A record in plaintext that is longer than RFC 8446 section 5.1 allows is refused here:
    /// rustls would take it.
    fn next_record(&self, input: &[u8], start: usize) -> Result<Record, Fault> {
        let Some(header) = input.get(start..start + RECORD_HEADER_BYTES) else {
            return Ok(Record { end: input.len(), is_whole: false });
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let most = match self.is_in_plaintext() {
            true => RECORD_PLAIN_MAX,
            false => RECORD_BYTES_MAX - RECORD_HEADER_BYTES,
        };
        if length > most && is_content_type(header[0]) {
            return Err(Fault::RecordTooLong);
        }
        let end = start + RECORD_HEADER_BYTES + length;
        Ok(Record { end: end.min(input.len()), is_whole: end <= input.len() })
    }

    /// Whether nothing is protected yet, in either direction.
    fn is_in_plaintext(&self) -> bool {
        self.connection.common().protocol_version().is_none()
    }

    /// Ends the connection for `fault`, which rustls has not found itself, and lets the peer know;
    /// `held` is what rustls was shown and has not discarded, whole records.
    fn refuse(&mut self, fault: Fault, held: &[u8]) -> Failure {
        if self.is_in_plaintext() {
            self.queued = plain_alert(&fault);
        } else {
            protest(&mut self.connection, held, &mut self.queued);
        }
        Failure::Ours(fault)
    }

    /// [`Self::refuse`] after the handshake.
    fn refuse_held(&mut self, fault: Fault) -> Failure {
        let held = std::mem::take(&mut self.held);
        self.refuse(fault, &held)
    }

    /// Encrypts as much of `plain` as fits into `out`, in records as long as possible: how many
    /// bytes were taken and how many written. What was queued goes first.
    ///
    /// # Errors
    /// [`Fault::Exhausted`] when the keys may not be used any more, [`Fault::Internal`] before the
    /// handshake is over or after [`Session::close`].
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<(usize, usize), Fault> {
        self.check()?;
        if self.closed {
            return Err(Fault::Internal("sealed after close_notify".into()));
        }
        let mut written = self.flush(out);
        if !self.queued.is_empty() || plain.is_empty() {
            return Ok((0, written));
        }
        let taken = fitting(plain.len(), out.len() - written);
        if taken > 0 {
            let out = &mut out[written..];
            written += self.connection.encrypt(&mut self.held, &plain[..taken], out)?;
        }
        Ok((taken, written))
    }

    /// Bytes that [`Session::seal`] needs beside `plain_len` to take all of it.
    #[must_use]
    pub const fn seal_overhead(plain_len: usize) -> usize {
        plain_len.div_ceil(RECORD_PLAIN_MAX) * RECORD_OVERHEAD_MAX + CONTROL_BYTES_MAX
    }

    /// Writes close_notify, unless that was done, and what is queued; how many bytes. `out` should
    /// have [`CONTROL_BYTES_MAX`] bytes; what does not fit comes with the next call.
    pub fn close(&mut self, out: &mut [u8]) -> usize {
        if !self.closed && self.failed.is_none() {
            self.closed = true;
            self.connection.close_notify(&mut self.held, &mut self.queued);
        }
        self.flush(out)
    }

    /// Writes the alert that a fault left behind; how many bytes.
    pub fn take_alert(&mut self, out: &mut [u8]) -> usize {
        self.flush(out)
    }

    /// What goes out in front of the next record, for a caller that has none to send: a peer may
    /// wait for it. [`Session::paid`] says how much of it has gone.
    #[must_use]
    pub fn owed(&self) -> &[u8] {
        &self.queued
    }

    /// Forgets the first `count` bytes of [`Session::owed`], which were sent.
    pub fn paid(&mut self, count: usize) {
        self.queued.drain(..count.min(self.queued.len()));
        if self.queued.is_empty() {
            self.queued = Vec::new();
        }
    }

    /// Moves what is queued to `out`, as far as it fits.
    fn flush(&mut self, out: &mut [u8]) -> usize {
        let count = self.queued.len().min(out.len());
        if count > 0 {
            out[..count].copy_from_slice(&self.queued[..count]);
        }
        self.paid(count);
        count
    }

    /// What was agreed on; meaningful once the handshake is over.
    #[must_use]
    pub fn negotiated(&self) -> Negotiated<'_> {
        let common = self.connection.common();
        let alpn = match common.alpn_protocol() {
            Some(b"h2") => Some(Alpn::H2),
            Some(b"http/1.1" | b"http/1.0") => Some(Alpn::Http1),
            Some(_) | None => None,
        };
        Negotiated {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(_) | None => "none",
            },
            cipher: common.negotiated_cipher_suite().map_or("none", suite_name),
            group: common.negotiated_key_exchange_group().map_or("none", group_name),
            alpn,
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            server_name: self.server_name.as_deref(),
        }
    }

    /// The verified identity of the peer; always there once a session with mesh trust is
    /// established.
    #[must_use]
    pub fn peer(&self) -> Option<&SpiffeId> {
        self.peer.as_ref().filter(|_| self.established)
    }

    /// The peer's certificates, leaf first; empty if it has none.
    #[must_use]
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.connection.common().peer_certificates().unwrap_or_default()
    }

    /// SHA-256 of the peer's leaf; computed anew at each call.
    #[must_use]
    pub fn peer_fingerprint(&self) -> Option<[u8; 32]> {
        self.peer_chain().first().map(|leaf| sha256(leaf))
    }
}

/// A record, as far as it has come.
struct Record {
    /// Where it ends, or all of the input if it is not whole, so that rustls sees a bad header at
    /// once.
    end: usize,
    is_whole: bool,
}

/// A handshake message in fragments that fill the input.
fn too_long() -> Fault {
    Fault::PeerMisbehaved("a handshake message in too many or too long fragments".into())
}

/// Whether a record of TLS may begin so; what does not is for rustls to refuse.
fn is_content_type(byte: u8) -> bool {
    (20..=24).contains(&byte)
}

/// Bytes of the whole records at the front of `input`.
fn whole_records(input: &[u8]) -> usize {
    let mut end = 0;
    while let Some(header) = input.get(end..end + RECORD_HEADER_BYTES) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if end + RECORD_HEADER_BYTES + length > input.len() {
            break;
        }
        end += RECORD_HEADER_BYTES + length;
    }
    end
}

/// How much of `plain` bytes can be sealed into `room` bytes.
fn fitting(plain: usize, room: usize) -> usize {
    if plain + Session::seal_overhead(plain) <= room {
        return plain;
    }
    let room = room.saturating_sub(CONTROL_BYTES_MAX);
    let record = RECORD_PLAIN_MAX + RECORD_OVERHEAD_MAX;
    let rest = (room % record).saturating_sub(RECORD_OVERHEAD_MAX);
    (room / record * RECORD_PLAIN_MAX + rest).min(plain)
}

#[cfg(test)]
mod tests;
