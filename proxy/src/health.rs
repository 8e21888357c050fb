//! Asks a gRPC server how it is, by the health protocol (`grpc.health.v1.Health/Check` of the gRPC
//! project). For control threads and the command line: it runs on tokio.
//!
//! # Not here
//! Who is asked when, and what follows from it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use prost::Message;
use thiserror::Error;

use crate::http2::grpc::Status;

/// Longest answer that is read: a message of two bytes in a frame of five, and room for what later
/// versions of the protocol add.
const ANSWER_BYTES_MAX: usize = 4096;
/// What precedes a message of gRPC: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;

/// What a server says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It says that it does not know.
    Unknown,
    /// It takes calls.
    Serving,
    /// It does not.
    NotServing,
    /// The server has no such service.
    ServiceUnknown,
}

impl fmt::Display for Health {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        })
    }
}

/// Why a server did not say how it is.
#[derive(Debug, Error)]
pub enum HealthError {
    /// No connection.
    #[error("the connection failed: {0}")]
    Connect(io::Error),
    /// No HTTP/2, or a call that broke off.
    #[error("the call failed: {0}")]
    Call(h2::Error),
    /// An answer of HTTP that is none of gRPC.
    #[error("the answer has the status {0}")]
    Status(u16),
    /// The server refused the call.
    #[error("the call ended with {0}")]
    Refused(&'static str),
    /// The answer is no message of the protocol.
    #[error("the answer is malformed")]
    Malformed,
    /// It took too long.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
}

/// Asks the server at `address` about `service`; about all of it if that is empty. It is given
/// `patience`, connecting included.
///
/// # Errors
/// When it does not say.
pub async fn check(
    address: SocketAddr,
    service: &str,
    patience: Duration,
) -> Result<Health, HealthError> {
    let asked = tokio::time::timeout(patience, ask(address, service));
    asked.await.unwrap_or(Err(HealthError::Timeout(patience)))
}

async fn ask(address: SocketAddr, service: &str) -> Result<Health, HealthError> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(HealthError::Connect)?;
    let (send, connection) = h2::client::handshake(stream).await.map_err(HealthError::Call)?;
    // It ends with the last of what is asked of it.
    let driving = tokio::spawn(connection);
    let health = call(send, address, service).await;
    driving.abort();
    health
}

async fn call(
    send: h2::client::SendRequest<Bytes>,
    address: SocketAddr,
    service: &str,
) -> Result<Health, HealthError> {
    let mut send = send.ready().await.map_err(HealthError::Call)?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|_| HealthError::Malformed)?;
    let (response, mut stream) = send.send_request(request, false).map_err(HealthError::Call)?;
    stream.send_data(question(service), true).map_err(HealthError::Call)?;
    let (parts, mut body) = response.await.map_err(HealthError::Call)?.into_parts();
    if parts.status != http::StatusCode::OK {
        return Err(HealthError::Status(parts.status.as_u16()));
    }
    if let Some(ended) = ended(&parts.headers) {
        return ended;
    }
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(HealthError::Call)?;
        let _ = body.flow_control().release_capacity(data.len());
        if answer.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(HealthError::Malformed);
        }
        answer.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.map_err(HealthError::Call)?;
    match trailers.as_ref().and_then(ended) {
        Some(ended) => ended,
        None => health(&answer).ok_or(HealthError::Malformed),
    }
}

/// What the status of the call says, unless that is OK.
fn ended(fields: &HeaderMap) -> Option<Result<Health, HealthError>> {
    match Status::of_fields(fields)? {
        Status::OK => None,
        Status::NOT_FOUND => Some(Ok(Health::ServiceUnknown)),
        status => Some(Err(HealthError::Refused(Status::LABELS[status.index()]))),
    }
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The question about `service`, as gRPC frames it.
fn question(service: &str) -> Bytes {
    let message = Question { service: service.to_owned() };
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(length + FRAME_BYTES);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.put(message.encode_to_vec().as_slice());
    framed.freeze()
}

/// What a framed answer says.
fn health(answer: &[u8]) -> Option<Health> {
    let (&[compressed, a, b, c, d], message) = answer.split_first_chunk::<FRAME_BYTES>()?;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if compressed != 0 || message.len() != length {
        return None;
    }
    Some(match Answer::decode(message).ok()?.status {
        1 => Health::Serving,
        2 => Health::NotServing,
        3 => Health::ServiceUnknown,
        _ => Health::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_framed_as_grpc_wants() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn answers_are_read_with_what_later_versions_add() {
        let framed = |message: &[u8]| [&[0, 0, 0, 0, message.len() as u8], message].concat();
        let read = |message: &[u8]| health(&framed(message));
        assert_eq!(read(&[8, 1]), Some(Health::Serving));
        assert_eq!(read(&[8, 2]), Some(Health::NotServing));
        assert_eq!(read(&[8, 3]), Some(Health::ServiceUnknown));
        assert_eq!(read(&[]), Some(Health::Unknown));
        assert_eq!(read(&[8, 99]), Some(Health::Unknown));
        let added = [0x12, 2, 7, 7, 0x18, 0x80, 1, 0x25, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&[&added[..], &[8, 1]].concat()), Some(Health::Serving));
        for malformed in [&[8][..], &[0x12, 5, 1], &[0x25, 1], &[0x29], &[0x0b], &[0x80; 11]] {
            assert_eq!(read(malformed), None, "{malformed:?}");
        }
        assert_eq!(health(&[0, 0, 0, 0, 2, 8]), None, "cut");
        assert_eq!(health(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
    }
}
