//! One blob to a file: in pieces where the connection breaks, verified as it comes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use crate::error::RegistryError;
use crate::http_client::next_frame;
use crate::manifest::Descriptor;
use crate::repository::{Hasher, Repository};

/// What is written to the disk at a time.
const PIECE: usize = 512 << 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// How a download goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadEvent {
    /// Bytes that are here.
    Progress(u64),
    /// It failed and will be tried again after so many seconds.
    Retrying(u64),
    Verifying,
}

/// A blob on its way to a file.
pub struct Download {
    repository: Repository,
    blob: Descriptor,
    path: PathBuf,
    sink: Option<Sink>,
    /// Bytes received, of which the last ones may still be on their way to the disk.
    received: u64,
}

struct Sink {
    file: File,
    hash: Hasher,
}

/// How one attempt ended that brought no whole blob.
enum Setback {
    /// More of the same blob may come.
    Broken(RegistryError),
    /// What came so far is of no use.
    StartOver(RegistryError),
    Fatal(RegistryError),
}

impl Download {
    pub fn new(repository: Repository, blob: Descriptor, path: &Path) -> Self {
        Self {
            repository,
            blob,
            path: path.to_owned(),
            sink: None,
            received: 0,
        }
    }

    /// Downloads, with retries. When this returns the file has exactly the content that the
    /// digest names; after an error its content means nothing.
    pub async fn run(mut self, tell: &(dyn Fn(DownloadEvent) + Sync)) -> Result<(), RegistryError> {
        let mut attempt = 1;
        loop {
            let before = self.received;
            let error = match self.attempt(tell).await {
                Ok(()) => return Ok(()),
                Err(Setback::Fatal(error)) => return Err(error),
                Err(Setback::StartOver(error)) => {
                    self.sink = None;
                    self.received = 0;
                    error
                }
                Err(Setback::Broken(error)) => error,
            };
            // What makes progress is not given up.
            if self.received > before {
                attempt = 1;
            } else if attempt >= self.repository.attempts {
                tracing::error!(blob = %self.blob.digest, %error, "download failed");
                return Err(error);
            }
            let pause = Duration::from_secs(1 << (attempt - 1).min(4)).min(LONGEST_PAUSE);
            attempt += 1;
            tracing::info!(blob = %self.blob.digest, %error, "download failed, retrying");
            tell(DownloadEvent::Retrying(pause.as_secs()));
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&mut self, tell: &(dyn Fn(DownloadEvent) + Sync)) -> Result<(), Setback> {
        let offset = self.received;
        let answer = self
            .repository
            .open_blob(&self.blob.digest, offset)
            .await
            .map_err(|error| {
                if error.is_temporary() {
                    Setback::Broken(error)
                } else {
                    Setback::Fatal(error)
                }
            })?;
        let resumed = offset > 0 && continues_at(&answer, offset);
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Setback::StartOver(self.wrong()));
        }
        if !resumed || self.sink.is_none() {
            let file = File::create(&self.path).map_err(|error| self.cannot_write(error))?;
            let hash = Hasher::new(&self.blob.digest);
            self.sink = Some(Sink { file, hash });
            self.received = 0;
        }
        self.receive(answer, tell).await?;
        tell(DownloadEvent::Verifying);
        let Some(sink) = self.sink.take() else {
            return Err(Setback::StartOver(self.wrong()));
        };
        if self.received == self.blob.size && sink.hash.matches(&self.blob.digest) {
            return Ok(());
        }
        // A resumed download may have been put together of two different blobs.
        Err(if resumed {
            Setback::StartOver(self.wrong())
        } else {
            Setback::Fatal(self.wrong())
        })
    }

    /// Takes the body in; writing and hashing overlap with receiving.
    async fn receive(
        &mut self,
        answer: Response<Incoming>,
        tell: &(dyn Fn(DownloadEvent) + Sync),
    ) -> Result<(), Setback> {
        let url = self.repository.url(&format!("blobs/{}", self.blob.digest));
        let mut body = answer.into_body();
        let mut piece = Piece::default();
        let mut writing: Option<JoinHandle<std::io::Result<Sink>>> = None;
        let broken = loop {
            let frame = match next_frame(&mut body).await {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(reason) => break Some(reason),
            };
            // A body without end must not fill the disk.
            if self.received + frame.len() as u64 > self.blob.size {
                return Err(Setback::Fatal(self.wrong()));
            }
            self.received += frame.len() as u64;
            piece.push(frame);
            tell(DownloadEvent::Progress(self.received));
            if piece.length >= PIECE {
                self.finish(writing.take()).await?;
                writing = self.write(std::mem::take(&mut piece));
            }
        };
        self.finish(writing.take()).await?;
        let last = self.write(piece);
        self.finish(last).await?;
        match broken {
            None => Ok(()),
            Some(reason) => Err(Setback::Broken(RegistryError::Transport {
                method: "Get",
                url,
                reason,
            })),
        }
    }

    fn write(&mut self, piece: Piece) -> Option<JoinHandle<std::io::Result<Sink>>> {
        let mut sink = self.sink.take()?;
        Some(tokio::task::spawn_blocking(move || {
            for chunk in piece.chunks {
                sink.hash.update(&chunk);
                sink.file.write_all(&chunk)?;
            }
            Ok(sink)
        }))
    }

    async fn finish(
        &mut self,
        writing: Option<JoinHandle<std::io::Result<Sink>>>,
    ) -> Result<(), Setback> {
        let Some(writing) = writing else {
            return Ok(());
        };
        let written = writing
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        self.sink = Some(written.map_err(|error| self.cannot_write(error))?);
        Ok(())
    }

    fn cannot_write(&self, error: std::io::Error) -> Setback {
        Setback::Fatal(RegistryError::io(
            format!("write {}", self.path.display()),
            error,
        ))
    }

    fn wrong(&self) -> RegistryError {
        RegistryError::Verification(format!(
            "filesystem layer verification failed for digest {}",
            self.blob.digest
        ))
    }
}

#[derive(Default)]
struct Piece {
    chunks: Vec<Bytes>,
    length: usize,
}

impl Piece {
    fn push(&mut self, chunk: Bytes) {
        self.length += chunk.len();
        self.chunks.push(chunk);
    }
}

/// Whether the answer goes on where it was asked to.
fn continues_at(answer: &Response<Incoming>, offset: u64) -> bool {
    answer.status() == StatusCode::PARTIAL_CONTENT
        && answer
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("bytes "))
            .and_then(|value| value.split('-').next())
            .is_some_and(|start| start.trim() == offset.to_string())
}
