//! Clients that attach before the container runs.
//!
//! `docker run` attaches before it starts the container. Such a client gets its streams at once;
//! they are joined to the process between its creation and its start, so no output is missed.

use bytes::Bytes;
use futures::StreamExt as _;
use skep_runtime::{AttachRequest, Attached};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::types::{Frame, StdStream};

/// How much input is kept for a container that does not run yet.
const INPUT_BUFFER: usize = 64 * 1024;

/// The clients that wait.
#[derive(Default)]
pub(crate) struct Attachments(Vec<Pending>);

/// The engine's end of one waiting client.
pub(crate) struct Pending {
    pub(crate) request: AttachRequest,
    input: Option<DuplexStream>,
    output: mpsc::Sender<Frame>,
    detached: CancellationToken,
}

/// The client's end.
pub(crate) struct Waiting {
    pub(crate) input: Option<DuplexStream>,
    pub(crate) output: mpsc::Receiver<Frame>,
}

/// Makes both ends.
pub(crate) fn pending_attach(
    request: AttachRequest,
    detached: CancellationToken,
) -> (Pending, Waiting) {
    let (theirs, ours) = if request.stdin {
        let (theirs, ours) = tokio::io::duplex(INPUT_BUFFER);
        (Some(theirs), Some(ours))
    } else {
        (None, None)
    };
    let (sender, receiver) = mpsc::channel(64);
    (
        Pending {
            request,
            input: ours,
            output: sender,
            detached,
        },
        Waiting {
            input: theirs,
            output: receiver,
        },
    )
}

impl Attachments {
    pub(crate) fn add(&mut self, pending: Pending) {
        // Clients that gave up meanwhile need no stream.
        self.0.retain(|pending| !pending.output.is_closed());
        self.0.push(pending);
    }

    pub(crate) fn take(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.0)
    }
}

impl Pending {
    /// The client went away before the container started.
    pub(crate) fn is_gone(&self) -> bool {
        self.output.is_closed()
    }

    /// Joins the client to the process; copies in the background until either ends.
    pub(crate) fn join(self, attached: Attached) {
        let Attached {
            mut input,
            mut output,
        } = attached;
        // Ends with the output. The input side must not hold a sender: a terminal never ends its
        // input, and the client would wait for an output that cannot end before.
        let over = CancellationToken::new();
        match self.input {
            Some(mut source) => {
                let (detached, over) = (self.detached.clone(), over.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy(&mut source, &mut input) => { let _ = input.shutdown().await; }
                        () = detached.cancelled() => {}
                        () = over.cancelled() => {}
                    }
                });
            }
            // Dropping an input that was not asked for says nothing to the process.
            None => drop(input),
        }
        let (sender, detached) = (self.output, self.detached);
        let over = over.drop_guard();
        tokio::spawn(async move {
            let _over = over;
            loop {
                let item = tokio::select! {
                    item = output.next() => item,
                    () = detached.cancelled() => return,
                    () = sender.closed() => return,
                };
                let Some(Ok((stream, bytes))) = item else {
                    return;
                };
                if sender.send(frame(stream, bytes)).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The runtime's piece of output as the engine's.
pub(crate) fn frame(stream: skep_runtime::StdStream, bytes: Bytes) -> Frame {
    let stream = match stream {
        skep_runtime::StdStream::Stdout => StdStream::Stdout,
        skep_runtime::StdStream::Stderr => StdStream::Stderr,
    };
    Frame { stream, bytes }
}
