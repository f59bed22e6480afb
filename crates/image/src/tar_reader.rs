//! A streaming tar reader that says what Go's says, and bounds what a header may make it hold.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::error::ImageError;

const BLOCK: usize = 512;

/// One member's metadata. Paths are bytes: file names need not be UTF-8.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

pub(crate) struct TarReader<R> {
    input: R,
    /// Of the current member's content and padding.
    content: u64,
    padding: u64,
    entries: u64,
    max_entries: u64,
    max_metadata: u64,
    done: bool,
}

/// What the extension headers before a member say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R, max_entries: u64, max_metadata: u64) -> Self {
        Self {
            input,
            content: 0,
            padding: 0,
            entries: 0,
            max_entries,
            max_metadata,
            done: false,
        }
    }

    /// The next member; what was not read of the one before is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > self.max_entries {
                return Err(ImageError::bad(format!(
                    "archive has more than {} entries",
                    self.max_entries
                )));
            }
            let size = number(&header.as_old().size)?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let records = self.metadata(size)?;
                    extensions.read_pax(&records)?;
                }
                EntryType::XGlobalHeader => self.expect_content(size),
                kind => return self.entry(&header, kind, size, extensions).map(Some),
            }
        }
    }

    /// Reads to the end of the stream: what follows the last member belongs to its digest.
    pub(crate) fn drain(mut self) -> Result<R, ImageError> {
        io::copy(&mut self.input, &mut io::sink())
            .map_err(|error| ImageError::io("read archive", error))?;
        Ok(self.input)
    }

    /// What follows the archive.
    pub(crate) fn into_input(self) -> R {
        self.input
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, ImageError> {
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            EntryType::GNUSparse => {
                return Err(ImageError::bad(
                    "sparse members in archives are not supported",
                ));
            }
            other => {
                return Err(ImageError::bad(format!(
                    "unhandled tar header type {}",
                    u32::from(other.as_byte())
                )));
            }
        };
        let path = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        // Tars older than ustar mark a directory by a slash at the end of a file's name.
        let kind = if kind == Kind::File && path.ends_with(b"/") {
            Kind::Directory
        } else {
            kind
        };
        let size = if kind == Kind::File {
            extensions.size.unwrap_or(size)
        } else {
            0
        };
        self.expect_content(if kind == Kind::File { size } else { 0 });
        let small = |field: &[u8]| u32::try_from(number(field)?).map_err(|_| invalid_header());
        let old = header.as_old();
        let device = match (kind, header.as_ustar(), header.as_gnu()) {
            (Kind::CharDevice | Kind::BlockDevice, Some(ustar), _) => {
                (small(&ustar.dev_major)?, small(&ustar.dev_minor)?)
            }
            (Kind::CharDevice | Kind::BlockDevice, _, Some(gnu)) => {
                (small(&gnu.dev_major)?, small(&gnu.dev_minor)?)
            }
            _ => (0, 0),
        };
        let id = |given: Option<u32>, field: &[u8]| given.map_or_else(|| small(field), Ok);
        Ok(Entry {
            link: match kind {
                Kind::HardLink | Kind::Symlink => extensions
                    .link
                    .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                    .unwrap_or_default(),
                _ => Vec::new(),
            },
            path,
            kind,
            size,
            mode: small(&old.mode)? & 0o7777,
            uid: id(extensions.uid, &old.uid)?,
            gid: id(extensions.gid, &old.gid)?,
            mtime: match extensions.mtime {
                Some(time) => time,
                // Times before 1970 are stored as huge two's complement numbers.
                None => Time {
                    seconds: number(&old.mtime)? as i64,
                    nanos: 0,
                },
            },
            device,
            xattrs: extensions.xattrs,
        })
    }

    fn expect_content(&mut self, size: u64) {
        self.content = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> Result<(), ImageError> {
        let rest = self.content.saturating_add(self.padding);
        self.content = 0;
        self.padding = 0;
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink())
            .map_err(|error| ImageError::io("read archive", error))?;
        if skipped < rest {
            Err(unexpected_end())
        } else {
            Ok(())
        }
    }

    /// Two blocks of zeros end an archive; so does the end of the stream at a block's edge.
    fn header(&mut self) -> Result<Option<Header>, ImageError> {
        if self.done {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let mut zeros = 0;
        loop {
            if !self.block(header.as_mut_bytes())? {
                self.done = true;
                return Ok(None);
            }
            if header.as_bytes().iter().any(|&byte| byte != 0) {
                break;
            }
            zeros += 1;
            if zeros == 2 {
                self.done = true;
                return Ok(None);
            }
        }
        if zeros > 0 || !checksum_matches(&header) {
            return Err(invalid_header());
        }
        Ok(Some(header))
    }

    /// Fills a block; `false` at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, ImageError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(unexpected_end()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::io("read archive", error)),
            }
        }
        Ok(true)
    }

    fn metadata(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        if size > self.max_metadata {
            return Err(ImageError::bad(format!(
                "archive member's metadata is larger than {} bytes",
                self.max_metadata
            )));
        }
        self.expect_content(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)
            .map_err(|error| ImageError::io("read archive", error))?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        let mut name = self.metadata(size)?;
        if let Some(end) = name.iter().position(|&byte| byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

/// Reads the current member's content.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= read as u64;
        Ok(read)
    }
}

impl Extensions {
    /// `<length> <key>=<value>\n`, where length counts the whole record.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), ImageError> {
        while !records.is_empty() {
            let (key, value, rest) = pax_record(records).ok_or_else(invalid_header)?;
            records = rest;
            let text = || std::str::from_utf8(value).map_err(|_| invalid_header());
            let number = || text()?.parse::<u64>().map_err(|_| invalid_header());
            let id = || u32::try_from(number()?).map_err(|_| invalid_header());
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(id()?),
                b"gid" => self.gid = Some(id()?),
                b"mtime" => self.mtime = Some(pax_time(text()?).ok_or_else(invalid_header)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(ImageError::bad(
                        "sparse members in archives are not supported",
                    ));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

/// Seconds with a decimal fraction, perhaps negative: the fraction then counts backwards.
fn pax_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: u32 = digits.parse().ok()?;
    if text.starts_with('-') && nanos > 0 {
        return Some(Time {
            seconds: seconds - 1,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Some(Time { seconds, nanos })
}

/// Octal text, blank for zero; or, with the top bit set, a big-endian binary number.
fn number(field: &[u8]) -> Result<u64, ImageError> {
    if let Some((&first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        // All ones in front: a negative number in two's complement.
        let start = if first == 0xff {
            u64::MAX
        } else {
            u64::from(first & 0x7f)
        };
        return Ok(rest
            .iter()
            .fold(start, |sum, &byte| (sum << 8) | u64::from(byte)));
    }
    let text = field
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if text.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(text).map_err(|_| invalid_header())?;
    u64::from_str_radix(text, 8).map_err(|_| invalid_header())
}

/// Sums the header with its own checksum field as blanks; old tars summed signed bytes.
fn checksum_matches(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let field = 148..156;
    let (mut unsigned, mut signed) = (0_u32, 0_i64);
    for (index, &byte) in bytes.iter().enumerate() {
        let byte = if field.contains(&index) { b' ' } else { byte };
        unsigned += u32::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    header
        .cksum()
        .is_ok_and(|sum| sum == unsigned || i64::from(sum) == signed)
}

fn invalid_header() -> ImageError {
    ImageError::bad("archive/tar: invalid tar header")
}

fn unexpected_end() -> ImageError {
    ImageError::bad("unexpected EOF")
}

#[cfg(test)]
mod tests;
