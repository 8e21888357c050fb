//! The body of a stream: frames as they come, for as long as the sidecar is connected.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use super::Pusher;
use crate::fleet::ConnectionId;
use crate::version::SidecarKey;

/// Frames on their way to one sidecar. Whoever drops it has noticed that the connection is over.
pub struct StreamBody {
    frames: mpsc::Receiver<Bytes>,
    pusher: Arc<Pusher>,
    key: SidecarKey,
    connection: ConnectionId,
}

impl StreamBody {
    /// The stream `connection` of `key`.
    #[must_use]
    pub fn new(
        frames: mpsc::Receiver<Bytes>,
        pusher: Arc<Pusher>,
        key: SidecarKey,
        connection: ConnectionId,
    ) -> StreamBody {
        StreamBody { frames, pusher, key, connection }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.frames.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let (pusher, key, connection) =
            (Arc::clone(&self.pusher), self.key.clone(), self.connection);
        self.pusher.core_thread.post(move || {
            pusher.core().goodbye(&key, connection, super::now_ms());
        });
    }
}
