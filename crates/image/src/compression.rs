use std::io::{self, BufReader, Cursor, Read};

const SNIFF: usize = 6;
const BUFFER: usize = 256 << 10;
/// Frames that ask for a larger window than this are refused: the window is memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Reads the first bytes and gives back a reader that still yields them.
pub(crate) fn sniff<R: Read>(mut reader: R) -> io::Result<(Compression, impl Read + use<R>)> {
    let mut start = Vec::with_capacity(SNIFF);
    reader.by_ref().take(SNIFF as u64).read_to_end(&mut start)?;
    Ok((Compression::of(&start), Cursor::new(start).chain(reader)))
}

/// The content, whatever it is wrapped in.
pub(crate) fn decompress<'a, R: Read + Send + 'a>(
    reader: R,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let (compression, reader) = sniff(reader)?;
    let reader = BufReader::with_capacity(BUFFER, reader);
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::Bzip2 | Compression::Xz => {
            let name = if compression == Compression::Xz {
                "xz"
            } else {
                "bzip2"
            };
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{name} compression is not supported; use gzip, zstd or an uncompressed tar"
                ),
            ));
        }
    })
}
