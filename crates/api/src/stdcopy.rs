//! The framing of multiplexed output: 8 bytes (stream, three zeros, length) before each chunk.

use bytes::{BufMut, Bytes, BytesMut};

/// Which of the container's streams a chunk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Channel {
    Stdout = 1,
    Stderr = 2,
    /// An error of the daemon itself; clients end with it.
    System = 3,
}

/// One chunk with its header.
pub(crate) fn frame(channel: Channel, bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(8 + bytes.len());
    framed.put_u8(channel as u8);
    framed.put_bytes(0, 3);
    framed.put_u32(u32::try_from(bytes.len()).expect("chunks are far below 4 GiB"));
    framed.put_slice(bytes);
    framed.freeze()
}

/// The chunk as it goes out: framed unless the container has a terminal.
pub(crate) fn encode(tty: bool, channel: Channel, bytes: Bytes) -> Bytes {
    if tty { bytes } else { frame(channel, &bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_stream_zeros_and_a_big_endian_length() {
        assert_eq!(
            &frame(Channel::Stderr, b"oops")[..],
            b"\x02\0\0\0\0\0\0\x04oops"
        );
        assert_eq!(
            &encode(true, Channel::Stdout, Bytes::from_static(b"raw"))[..],
            b"raw"
        );
    }
}
