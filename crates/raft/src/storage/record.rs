//! How one encrypted record lies in a file, and how a half-written one is told from a damaged one.
//!
//! ```text
//! length u32 │ crc32 of the sealed bytes u32 │ crc32 of the 8 bytes before u32 │ sealed bytes
//! ```
//! Numbers are little-endian. The header has a checksum of its own: without it a flipped bit in a
//! length would look like a record that was cut off, and acknowledged entries would be cut off with it.

const HEADER: usize = 12;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

pub(crate) fn frame(sealed: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + sealed.len());
    let length = u32::try_from(sealed.len()).expect("records are bounded far below 4 GiB");
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(sealed).to_le_bytes());
    let header = crc32fast::hash(&record);
    record.extend_from_slice(&header.to_le_bytes());
    record.extend_from_slice(sealed);
    record
}

/// What lies at an offset of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    End,
    Record {
        sealed: &'a [u8],
        /// Offset of what follows.
        next: usize,
    },
    /// The write of this record was never finished, so nobody was told that it is safe: everything
    /// from here on may be cut.
    Torn,
    Damaged(&'static str),
}

pub(crate) fn read(file: &[u8], offset: usize) -> Found<'_> {
    let rest = &file[offset..];
    if rest.is_empty() {
        return Found::End;
    }
    let Some((header, body)) = rest.split_at_checked(HEADER) else {
        return Found::Torn;
    };
    if crc32fast::hash(&header[..8]) != number(&header[8..]) {
        return torn_or(
            file,
            offset,
            offset + HEADER,
            "the header of a record has a wrong checksum",
        );
    }
    let length = number(header) as usize;
    let Some(sealed) = body.get(..length) else {
        return Found::Torn;
    };
    let next = offset + HEADER + length;
    if crc32fast::hash(sealed) != number(&header[4..]) {
        return torn_or(file, offset, next, "a record has a wrong checksum");
    }
    Found::Record { sealed, next }
}

/// After a power cut a file can have its new length but not all of its new sectors: those read as
/// zeros. Encrypted bytes do not, so a sector of zeros within a bad record means that its write was
/// never finished. The whole of the sector behind the record's start has to be zero, lest a single
/// zero byte at a sector's edge excuse a flipped bit.
fn torn_or<'a>(file: &[u8], start: usize, end: usize, reason: &'static str) -> Found<'a> {
    let mut from = start;
    while from < end {
        let sector_end = (from / SECTOR + 1) * SECTOR;
        let to = sector_end.min(file.len());
        if file[from..to].iter().all(|&byte| byte == 0) {
            return Found::Torn;
        }
        from = sector_end;
    }
    Found::Damaged(reason)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Vec<u8>, usize) {
        let mut file = frame(&[7; 900]);
        let second = file.len();
        file.extend(frame(&[9; 900]));
        (file, second)
    }

    #[test]
    fn reads_records_one_after_another() {
        let (file, second) = two();
        assert_eq!(
            read(&file, 0),
            Found::Record {
                sealed: &[7; 900],
                next: second
            }
        );
        assert_eq!(
            read(&file, second),
            Found::Record {
                sealed: &[9; 900],
                next: file.len()
            }
        );
        assert_eq!(read(&file, file.len()), Found::End);
    }

    #[test]
    fn a_record_cut_anywhere_is_torn() {
        let (file, second) = two();
        for length in second + 1..file.len() {
            assert_eq!(
                read(&file[..length], second),
                Found::Torn,
                "cut at {length}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage() {
        let (file, second) = two();
        for start in [0, second] {
            for position in start..start + 912 {
                let mut bad = file.clone();
                bad[position] ^= 0x10;
                assert!(
                    matches!(read(&bad, start), Found::Damaged(_)),
                    "byte {position}"
                );
            }
        }
    }

    #[test]
    fn a_record_with_an_unwritten_sector_is_torn() {
        let (file, second) = two();
        for sector in (0..file.len()).step_by(SECTOR) {
            let (from, to) = (sector.max(second), (sector + SECTOR).min(file.len()));
            if from >= to {
                continue;
            }
            let mut bad = file.clone();
            bad[from..to].fill(0);
            assert_eq!(read(&bad, second), Found::Torn, "sector at {sector}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn() {
        let (mut file, _) = two();
        let end = file.len();
        file.resize(end + 5000, 0);
        assert_eq!(read(&file, end), Found::Torn);
    }
}
