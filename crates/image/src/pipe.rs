//! Reads ahead in one thread and hashes in another, so that decompressing, hashing and unpacking a
//! layer overlap. Memory is bounded by the channels.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sha2::{Digest as _, Sha256};
use skep_reference::Digest;

use crate::error::ImageError;

const CHUNK: usize = 256 << 10;
const DEPTH: usize = 4;

type Chunk = Arc<Vec<u8>>;

/// What a stream turned out to be.
pub(crate) struct Measured {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Lets `consume` read a stream to its end while others read ahead and hash it.
pub(crate) fn hashed<R: Read + Send, T>(
    reader: R,
    consume: impl FnOnce(&mut ChunkReader) -> Result<T, ImageError>,
) -> Result<(T, Measured), ImageError> {
    thread::scope(|scope| {
        let (to_consumer, chunks) = sync_channel(DEPTH);
        let (to_hasher, hashable) = sync_channel::<Chunk>(DEPTH);
        scope.spawn(move || read_ahead(reader, &to_consumer, &to_hasher));
        let hasher = scope.spawn(move || {
            let mut hash = Sha256::new();
            let mut size = 0;
            for chunk in hashable {
                hash.update(&*chunk);
                size += chunk.len() as u64;
            }
            Measured {
                digest: Digest::sha256(&hash.finalize().into()),
                size,
            }
        });
        let mut input = ChunkReader {
            chunks,
            current: Chunk::default(),
            at: 0,
        };
        let result = consume(&mut input);
        // If that failed early, the reader must not wait for us.
        drop(input);
        let measured = hasher.join().expect("hashing does not panic");
        Ok((result?, measured))
    })
}

fn read_ahead(
    mut reader: impl Read,
    to_consumer: &SyncSender<io::Result<Chunk>>,
    to_hasher: &SyncSender<Chunk>,
) {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        // What was read before an error is of no use: the stream is damaged.
        if let Err(error) = read {
            let _ = to_consumer.send(Err(error));
            return;
        }
        if chunk.is_empty() {
            return;
        }
        let chunk = Arc::new(chunk);
        if to_consumer.send(Ok(chunk.clone())).is_err() || to_hasher.send(chunk).is_err() {
            return;
        }
    }
}

pub(crate) struct ChunkReader {
    chunks: Receiver<io::Result<Chunk>>,
    current: Chunk,
    at: usize,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => {
                    self.current = chunk?;
                    self.at = 0;
                }
                Err(_) => return Ok(0),
            }
        }
        let read = (&self.current[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}
