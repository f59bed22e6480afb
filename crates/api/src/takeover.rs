//! A connection that a handler can take out of hyper's hands.
//!
//! Docker's oldest way to attach is to answer `HTTP/1.1 200 OK` and then use the connection as a
//! raw pipe, without an `Upgrade` header. hyper knows no such thing, so hyper is given this
//! wrapper instead of the stream: once a handler has taken the stream, hyper's reads stay pending
//! and its writes go nowhere, until the handler is done and the connection ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Anything that carries a connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection's stream, shared between hyper and the handler that may take it.
#[derive(Clone)]
pub(crate) struct Takeover(Arc<Mutex<Slot>>);

enum Slot {
    /// hyper reads and writes.
    Http(Box<dyn Io>),
    /// A handler has it.
    Taken,
    /// The handler is done: hyper is to end the connection.
    Ended,
}

impl Takeover {
    pub(crate) fn new(io: Box<dyn Io>) -> Self {
        Self(Arc::new(Mutex::new(Slot::Http(io))))
    }

    /// The stream itself, once.
    pub(crate) fn seize(&self) -> Option<Box<dyn Io>> {
        let mut slot = self.0.lock();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Http(io) => Some(io),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Lets hyper end the connection.
    pub(crate) fn end(&self) {
        *self.0.lock() = Slot::Ended;
    }
}

impl AsyncRead for Takeover {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self.0.lock() {
            Slot::Http(io) => Pin::new(io).poll_read(cx, buf),
            // The handler runs in the same task: when it is done, hyper is polled anyway.
            Slot::Taken => Poll::Pending,
            Slot::Ended => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Takeover {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self.0.lock() {
            Slot::Http(io) => Pin::new(io).poll_write(cx, buf),
            Slot::Taken | Slot::Ended => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self.0.lock() {
            Slot::Http(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Slot::Taken | Slot::Ended => Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &*self.0.lock() {
            Slot::Http(io) => io.is_write_vectored(),
            Slot::Taken | Slot::Ended => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.lock() {
            Slot::Http(io) => Pin::new(io).poll_flush(cx),
            Slot::Taken | Slot::Ended => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.lock() {
            Slot::Http(io) => Pin::new(io).poll_shutdown(cx),
            Slot::Taken | Slot::Ended => Poll::Ready(Ok(())),
        }
    }
}
