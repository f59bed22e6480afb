//! The two directions of a client that is attached to a container or exec.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{Decoder, FramedRead};

use crate::protocol::{MAX_MESSAGE, OUTPUT_HEADER, STDERR, STDOUT};

/// Which of the process's outputs bytes came from. With a tty everything is `Stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StdStream {
    Stdout,
    Stderr,
}

/// A client of the process's streams. Both halves may be moved into tasks of their own.
#[derive(Debug)]
pub struct Attached {
    pub input: AttachInput,
    pub output: AttachOutput,
}

impl Attached {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            input: AttachInput { half: write },
            output: AttachOutput {
                frames: FramedRead::new(read, OutputDecoder),
            },
        }
    }
}

/// Standard input. Shutting it down or dropping it is the end of this client's input; whether the
/// process sees an end of file is for `stdin_once` to say (for an exec: always).
#[derive(Debug)]
pub struct AttachInput {
    half: OwnedWriteHalf,
}

impl AsyncWrite for AttachInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.half).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(context)
    }
}

/// Output as it comes; ends when the process has ended and everything was delivered, or when the shim
/// is gone.
#[derive(Debug)]
pub struct AttachOutput {
    frames: FramedRead<OwnedReadHalf, OutputDecoder>,
}

impl Stream for AttachOutput {
    type Item = io::Result<(StdStream, Bytes)>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.frames).poll_next(context)
    }
}

#[derive(Debug)]
struct OutputDecoder;

impl Decoder for OutputDecoder {
    type Item = (StdStream, Bytes);
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        if buffer.len() < OUTPUT_HEADER {
            return Ok(None);
        }
        let stream = match buffer[0] {
            STDOUT => StdStream::Stdout,
            STDERR => StdStream::Stderr,
            other => return Err(invalid(format!("unknown stream {other}"))),
        };
        let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        if length > MAX_MESSAGE {
            return Err(invalid(format!("frame of {length} bytes")));
        }
        if buffer.len() < OUTPUT_HEADER + length {
            buffer.reserve(OUTPUT_HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(OUTPUT_HEADER);
        Ok(Some((stream, buffer.split_to(length).freeze())))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        // A shim that dies in the middle of a frame ends the stream; half a frame is no error to a client.
        self.decode(buffer)
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
