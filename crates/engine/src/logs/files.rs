//! The files of one log: `x-json.log`, and older ones with `.1`, `.2` … behind it, perhaps `.gz`.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::entry::Entry;

/// One file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) compressed: bool,
}

/// All files that exist, oldest first, the current one last.
pub(super) fn list(current: &Path) -> Vec<LogFile> {
    let mut files = Vec::new();
    for number in 1_u32.. {
        let plain = numbered(current, number, "");
        let packed = numbered(current, number, ".gz");
        // While one is being compressed both exist; the packed one is not whole then.
        if plain.exists() {
            files.push(LogFile {
                path: plain,
                compressed: false,
            });
        } else if packed.exists() {
            files.push(LogFile {
                path: packed,
                compressed: true,
            });
        } else {
            break;
        }
    }
    files.reverse();
    files.push(LogFile {
        path: current.to_path_buf(),
        compressed: false,
    });
    files
}

fn numbered(current: &Path, number: u32, suffix: &str) -> PathBuf {
    let mut name = current.as_os_str().to_owned();
    name.push(format!(".{number}{suffix}"));
    PathBuf::from(name)
}

/// A file's identity, which rotation keeps.
pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

/// The rotated file that has this identity, as a position in [`list`].
pub(super) fn position(files: &[LogFile], identity: (u64, u64)) -> Option<usize> {
    files.iter().position(|file| {
        !file.compressed
            && fs::metadata(&file.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == identity)
    })
}

/// Reads whole lines from a file that may still grow. Unfinished ones are kept for the next time.
pub(super) struct LineReader<R> {
    reader: BufReader<R>,
    partial: Vec<u8>,
}

impl<R: Read> LineReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::with_capacity(64 * 1024, reader),
            partial: Vec::new(),
        }
    }

    /// The next entry; `None` at what is the end for now. Damaged lines are skipped.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            self.reader.read_until(b'\n', &mut self.partial)?;
            if self.partial.last() != Some(&b'\n') {
                return Ok(None);
            }
            let line = std::mem::take(&mut self.partial);
            if let Some(entry) = Entry::parse(&line) {
                return Ok(Some(entry));
            }
        }
    }
}

/// Opens a file for reading from its start.
pub(super) fn open(file: &LogFile) -> io::Result<Box<dyn Read + Send>> {
    let plain = File::open(&file.path)?;
    Ok(if file.compressed {
        Box::new(MultiGzDecoder::new(plain))
    } else {
        Box::new(plain)
    })
}

/// How many lines a file has, or `most` if it has at least that many.
pub(super) fn count_lines(file: &LogFile, most: usize) -> io::Result<usize> {
    if !file.compressed {
        let (lines, _) = tail_offset(&mut File::open(&file.path)?, most)?;
        return Ok(lines);
    }
    let mut count = 0;
    let mut reader = open(file)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(count.min(most));
        }
        // Disk and gunzip are far slower than this loop.
        #[expect(clippy::naive_bytecount, reason = "not worth a dependency")]
        let lines = buffer[..read].iter().filter(|&&byte| byte == b'\n').count();
        count += lines;
    }
}

/// Where the last `lines` lines begin, and how many there really are.
pub(super) fn tail_offset(file: &mut File, lines: usize) -> io::Result<(usize, u64)> {
    const BLOCK: u64 = 32 * 1024;
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok((0, end));
    }
    let mut buffer = vec![0; BLOCK as usize];
    let mut position = end;
    let mut seen = 0;
    while position > 0 {
        let size = BLOCK.min(position);
        position -= size;
        file.seek(SeekFrom::Start(position))?;
        let block = &mut buffer[..size as usize];
        file.read_exact(block)?;
        for (index, _) in block
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            // The newline before the first line wanted is one more than the lines.
            if seen == lines {
                return Ok((lines, position + index as u64 + 1));
            }
            seen += 1;
        }
    }
    Ok((seen, 0))
}
