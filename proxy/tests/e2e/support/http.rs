//! A client that sends exactly the bytes it is given and reads exactly one response.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for bytes that should come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A response, its body decoded.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names as they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The first field of a name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        Self::over(stream)
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends one byte at a time, each in its own segment.
    pub fn dribble(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        for byte in bytes.as_ref() {
            self.stream.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_micros(300));
        }
        self
    }

    pub fn finish(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Sends a GET and reads the response.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// Reads one response to a request other than HEAD.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads one response; interim ones are separate responses.
    pub fn response_to(&mut self, method: &str) -> Response {
        let (status, headers) = self.head();
        let mut response = Response { status, headers, body: Vec::new(), trailers: Vec::new() };
        let without_body = method == "HEAD" || matches!(status, 100..200 | 204 | 304);
        if without_body {
            return response;
        }
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = response.header("content-length").map(|value| value.parse().unwrap());
        if chunked {
            self.chunks(&mut response);
        } else if let Some(length) = length {
            response.body = self.take(length);
        } else {
            response.body = self.rest();
        }
        response
    }

    /// Reads a chunked body with its trailers.
    pub fn chunks(&mut self, response: &mut Response) {
        loop {
            let line = self.line();
            let size = line.split(';').next().unwrap().trim();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk {line:?}"));
            if size == 0 {
                break;
            }
            let data = self.take(size);
            response.body.extend(data);
            assert_eq!(self.line(), "", "the end of a chunk");
        }
        loop {
            let line = self.line();
            if line.is_empty() {
                return;
            }
            response.trailers.push(split(&line));
        }
    }

    /// Reads one head.
    pub fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let first = self.line();
        let status = first.split(' ').nth(1).unwrap_or_else(|| panic!("status line {first:?}"));
        let status = status.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return (status, headers);
            }
            headers.push(split(&line));
        }
    }

    /// Reads the head of a request: its first line, and its fields with lower-case names, one a line.
    pub fn head_of_request(&mut self) -> (String, String) {
        let first = self.line();
        let mut fields = String::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else { return (first, fields) };
            fields += &format!("{}: {}\n", name.to_ascii_lowercase(), value.trim());
        }
    }

    /// Reads to the end, of whatever kind it is.
    pub fn rest_or_reset(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Reads a line that ends in CR LF.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return line;
            }
            assert!(self.more(), "the connection ended inside a line: {:?}", self.buffer);
        }
    }

    /// Reads so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let have = self.buffer.len();
            assert!(self.more(), "the connection ended after {have} of {count} bytes");
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads to the end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the peer has closed, and in which way: waits for it.
    pub fn end(&mut self) -> End {
        let mut byte = [0u8; 4096];
        loop {
            match self.stream.read(&mut byte) {
                Ok(0) => return End::Finished,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return End::Reset,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return End::Open,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn more(&mut self) -> bool {
        let mut piece = [0u8; 65536];
        let count = self.stream.read(&mut piece).unwrap_or_else(|error| {
            panic!("{error} after {:?}", String::from_utf8_lossy(&self.buffer))
        });
        self.buffer.extend_from_slice(&piece[..count]);
        count > 0
    }

    /// Closes with RST.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Finished,
    /// RST.
    Reset,
    /// Not within the read timeout.
    Open,
}

fn split(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("field {line:?}"));
    (name.to_owned(), value.trim().to_owned())
}
