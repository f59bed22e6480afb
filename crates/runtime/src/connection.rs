//! One request to a shim: connect, ask, read the answer.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::error::RuntimeError;
use crate::protocol::{self, Call, MAX_MESSAGE, Reply, Request, SOCKET, VERSION};

/// Connects to the shim that listens in `directory`; `None` when nobody does.
pub(crate) async fn connect(directory: &Path) -> Result<Option<UnixStream>, RuntimeError> {
    // Socket addresses end at 108 bytes and exec roots may be longer: go through the open directory.
    let handle = match std::fs::File::open(directory) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RuntimeError::io("open", directory)(error)),
    };
    let short = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
    match UnixStream::connect(short).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                // Reset: it stopped listening while we stood in the queue.
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(RuntimeError::io("connect to the shim in", directory)(error)),
    }
}

/// Sends a call and waits for its answer; `None` when the shim went away meanwhile.
pub(crate) async fn ask(
    stream: &mut UnixStream,
    call: Call,
) -> Result<Option<Reply>, RuntimeError> {
    match exchange(
        stream,
        &Request {
            version: VERSION,
            call,
        },
    )
    .await
    {
        Ok(Reply::Failed(failure)) => Err(RuntimeError::from_failure(failure)),
        Ok(reply) => Ok(Some(reply)),
        Err(error) if hung_up(&error) => Ok(None),
        Err(error) => Err(RuntimeError::Protocol(error.to_string())),
    }
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

async fn exchange<S: Serialize, R: DeserializeOwned>(
    stream: &mut UnixStream,
    request: &S,
) -> io::Result<R> {
    stream.write_all(&protocol::encode(request)).await?;
    let length = stream.read_u32().await? as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "reply too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
