//! Writes a stream's parts to temporary files while measuring them. A tarball names its images only
//! at its end, so everything before has to be put somewhere; what turns out to be a layer is then
//! renamed into the blob store.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use skep_reference::Digest;

use crate::blobs::BlobId;
use crate::compression::{Compression, decompress};
use crate::error::{Context, ImageError};
use crate::layers::random_name;

/// Smaller parts are not worth compressing at rest.
const PACK_FROM: u64 = 16 << 10;
const PACK_LEVEL: i32 = 1;
const BUFFER: usize = 256 << 10;

/// A directory of temporary files; dropped, all are gone.
pub(crate) struct Spool {
    dir: PathBuf,
    files: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Spooled {
    pub(crate) path: PathBuf,
    /// Of the content as it came.
    pub(crate) blob: BlobId,
    pub(crate) size: u64,
    /// What the content came wrapped in.
    pub(crate) compression: Compression,
}

impl Spool {
    pub(crate) fn new(tmp: &Path) -> Result<Self, ImageError> {
        let dir = tmp.join(random_name(12));
        fs::create_dir_all(&dir).context(|| format!("mkdir {}", dir.display()))?;
        Ok(Self { dir, files: 0 })
    }

    /// Takes a file whose content is known, without copying it. The file must not change any more.
    pub(crate) fn adopt(
        &mut self,
        file: &Path,
        digest: Digest,
        size: u64,
    ) -> Result<Spooled, ImageError> {
        self.files += 1;
        let path = self.dir.join(self.files.to_string());
        fs::hard_link(file, &path).context(|| format!("link {}", path.display()))?;
        let mut start = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(8).read_to_end(&mut start))
            .context(|| format!("read {}", path.display()))?;
        Ok(Spooled {
            path,
            blob: BlobId {
                digest,
                packed: false,
            },
            size,
            compression: Compression::of(&start),
        })
    }

    /// Takes a stream of `size` bytes, or to its end where the size is not known.
    pub(crate) fn take(
        &mut self,
        content: &mut dyn Read,
        size: Option<u64>,
    ) -> Result<Spooled, ImageError> {
        self.files += 1;
        let path = self.dir.join(self.files.to_string());
        write_measured(&path, content, size.is_none_or(|size| size >= PACK_FROM))
            .context(|| format!("write {}", path.display()))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "could not remove temporary files");
        }
    }
}

impl Spooled {
    /// The content as it came.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>, ImageError> {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let file = File::open(&self.path)?;
            if self.blob.packed {
                decompress(file)
            } else {
                Ok(Box::new(file))
            }
        };
        open().context(|| format!("open {}", self.path.display()))
    }

    /// A document, which must not be larger than documents are.
    pub(crate) fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        if self.size > limit {
            return Err(ImageError::bad(format!(
                "{name} is larger than {limit} bytes"
            )));
        }
        let mut bytes = Vec::new();
        self.open()?
            .read_to_end(&mut bytes)
            .context(|| format!("read {name}"))?;
        Ok(bytes)
    }
}

fn write_measured(path: &Path, content: &mut dyn Read, may_pack: bool) -> io::Result<Spooled> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = fill(content, &mut buffer)?;
    let compression = Compression::of(&buffer[..filled]);
    let packed = may_pack && compression == Compression::None;
    let file = BufWriter::with_capacity(BUFFER, File::create(path)?);
    let mut sink = if packed {
        Sink::Packed(zstd::Encoder::new(file, PACK_LEVEL)?)
    } else {
        Sink::Plain(file)
    };
    let (mut hash, mut size) = (Sha256::new(), 0);
    while filled > 0 {
        hash.update(&buffer[..filled]);
        sink.write_all(&buffer[..filled])?;
        size += filled as u64;
        filled = fill(content, &mut buffer)?;
    }
    sink.finish()?;
    let digest = Digest::sha256(&hash.finalize().into());
    Ok(Spooled {
        path: path.to_owned(),
        blob: BlobId { digest, packed },
        size,
        compression,
    })
}

/// Fills the buffer unless the stream ends before.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

enum Sink {
    Plain(BufWriter<File>),
    Packed(zstd::Encoder<'static, BufWriter<File>>),
}

impl Sink {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Packed(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        let mut file = match self {
            Self::Plain(file) => file,
            Self::Packed(encoder) => encoder.finish()?,
        };
        file.flush()
    }
}
