//! One rustls connection of either side behind one set of calls.
//!
//! What rustls asks for comes without its borrows ([`Next`]), so that the session can go on with
//! its buffers.

use std::fmt;
use std::ops::{Deref, DerefMut};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{AlertDescription, CommonState};

use crate::fault::{Fault, of_rustls};
use crate::limits::CONTROL_BYTES_MAX;

/// A connection as rustls has it.
pub(super) enum Connection {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What one step of rustls asks for, without its borrows.
pub(super) enum Next {
    /// Go on.
    Again,
    /// No whole record is left.
    Starved,
    /// close_notify came.
    PeerClosed,
}

/// What goes to the application, record by record.
pub(super) type Plain<'p> = &'p mut dyn FnMut(&[u8]);

/// Why a step failed.
pub(super) enum Failure {
    Rustls(rustls::Error),
    Ours(Fault),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Connection::Server(_) => "Server",
            Connection::Client(_) => "Client",
        })
    }
}

impl Connection {
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Connection::Server(connection) => connection.deref().deref(),
            Connection::Client(connection) => connection.deref().deref(),
        }
    }

    /// One step of rustls over `shown`: what it wants to send is appended to `queued`, plaintext
    /// goes to `plain`. Returns how many bytes of `shown` are done with.
    pub(super) fn step(
        &mut self,
        shown: &mut [u8],
        queued: &mut Vec<u8>,
        plain: Plain<'_>,
    ) -> (usize, Result<Next, Failure>) {
        match self {
            Connection::Server(connection) => {
                take_step(connection.deref_mut().process_tls_records(shown), queued, plain)
            }
            Connection::Client(connection) => {
                take_step(connection.deref_mut().process_tls_records(shown), queued, plain)
            }
        }
    }

    pub(super) fn encrypt(
        &mut self,
        held: &mut [u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        match self {
            Connection::Server(connection) => {
                encrypt_with(connection.process_tls_records(held), plain, out)
            }
            Connection::Client(connection) => {
                encrypt_with(connection.process_tls_records(held), plain, out)
            }
        }
    }

    pub(super) fn close_notify(&mut self, held: &mut [u8], queued: &mut Vec<u8>) {
        let mut record = [0; 2 * CONTROL_BYTES_MAX];
        let written = match self {
            Connection::Server(connection) => {
                close_with(connection.process_tls_records(held), &mut record)
            }
            Connection::Client(connection) => {
                close_with(connection.process_tls_records(held), &mut record)
            }
        };
        queued.extend_from_slice(&record[..written]);
    }
}

/// Has the peer told that this is the end, for a fault that rustls has not found itself: its
/// unbuffered interface knows no alert of the caller's, but says decode_error to the header of a
/// record that is far too long. `held` is what it was shown and has not discarded.
pub(super) fn protest(connection: &mut Connection, held: &[u8], queued: &mut Vec<u8>) {
    let mut shown = [held, &[23, 3, 3, 0xff, 0xff]].concat();
    if let (discarded, Err(_)) = connection.step(&mut shown, queued, &mut |_| {}) {
        collect_alert(connection, &mut shown[discarded..], queued);
    }
}

/// The alert for `fault`, before anything is protected.
pub(super) fn plain_alert(fault: &Fault) -> Vec<u8> {
    let description = match fault {
        Fault::RecordTooLong => AlertDescription::RecordOverflow,
        _ => AlertDescription::DecodeError,
    };
    vec![21, 3, 3, 0, 2, 2, description.into()]
}

/// After an error, takes over what rustls still wants to send. `rest` is what it was shown and has
/// not discarded.
pub(super) fn collect_alert(connection: &mut Connection, rest: &mut [u8], queued: &mut Vec<u8>) {
    let mut start = 0;
    // Only while there is something: otherwise rustls would look at the input, and fail, again.
    while connection.common().wants_write() {
        let (discarded, next) = connection.step(&mut rest[start..], queued, &mut |_| {});
        start += discarded;
        if next.is_err() {
            return;
        }
    }
}

/// What to do next, and the bytes at the front of what was shown that are done with.
fn take_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    queued: &mut Vec<u8>,
    plain: Plain<'_>,
) -> (usize, Result<Next, Failure>) {
    let UnbufferedStatus { discard, state } = status;
    let next = state.map_err(Failure::Rustls).and_then(|state| act(state, queued, plain));
    (discard, next)
}

/// Does what `state` asks for.
fn act<Data>(
    state: ConnectionState<'_, '_, Data>,
    queued: &mut Vec<u8>,
    plain: Plain<'_>,
) -> Result<Next, Failure> {
    Ok(match state {
        ConnectionState::EncodeTlsData(mut encoder) => {
            let start = queued.len();
            if let Err(EncodeError::InsufficientSize(needed)) = encoder.encode(&mut []) {
                queued.resize(start + needed.required_size, 0);
                encoder
                    .encode(&mut queued[start..])
                    .map_err(|error| Failure::Ours(Fault::Internal(error.to_string())))?;
            }
            Next::Again
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Next::Again
        }
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                plain(record.map_err(Failure::Rustls)?.payload);
            }
            Next::Again
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => Next::PeerClosed,
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Next::Starved,
        state => return Err(Failure::Ours(Fault::Internal(format!("state {state:?}")))),
    })
}

fn encrypt_with<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &[u8],
    out: &mut [u8],
) -> Result<usize, Fault> {
    match status.state.map_err(|error| of_rustls(&error, None))? {
        ConnectionState::WriteTraffic(mut traffic) => {
            traffic.encrypt(plain, out).map_err(|error| match error {
                EncryptError::EncryptExhausted => Fault::Exhausted,
                EncryptError::InsufficientSize(_) => Fault::Internal(error.to_string()),
            })
        }
        state => Err(Fault::Internal(format!("sealed in state {state:?}"))),
    }
}

fn close_with<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.queue_close_notify(out).unwrap_or_default()
        }
        Ok(_) | Err(_) => 0,
    }
}
