//! Raw TCP origin: an 8-byte big-endian length in, so many bytes out, again and again.
//!
//! # Invariants
//! - Requests may be pipelined; their bodies follow each other without any framing.
//! - A length above `BODY_BYTES_MAX` closes the connection.

use std::io;

use monoio::{
    io::{AsyncReadRentExt, AsyncWriteRentExt},
    net::TcpStream,
};

use crate::{limits::BODY_BYTES_MAX, pattern};

/// Serves one connection until the client closes it.
pub(super) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut request = vec![0; 8];
    loop {
        let (result, buffer) = stream.read_exact(request).await;
        result?;
        request = buffer;
        let length = request.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        if length > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut sent = 0;
        while sent < length {
            let part = pattern::part(sent, length - sent);
            stream.write_all(part).await.0?;
            sent += part.len() as u64;
        }
    }
}
