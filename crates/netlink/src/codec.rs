//! Netlink's encoding: a header, a fixed struct of the subsystem, then nested attributes, all
//! padded to four bytes.

const HEADER: usize = 16;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// One netlink message under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    buffer: Vec<u8>,
}

impl Message {
    /// `fixed` is the subsystem's own struct (`ifinfomsg`, `nfgenmsg`, …).
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(256);
        buffer.extend_from_slice(&0_u32.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags as u16).to_ne_bytes());
        buffer.extend_from_slice(&[0; 8]);
        buffer.extend_from_slice(fixed);
        let mut message = Self { buffer };
        message.pad();
        message
    }

    pub(crate) fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let length = u16::try_from(payload.len() + 4).expect("attributes are below 64 KiB");
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(payload);
        self.pad();
        self
    }

    /// A string with its terminating zero.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut payload = text.as_bytes().to_vec();
        payload.push(0);
        self.bytes(kind, &payload)
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// In the machine's byte order, as rtnetlink wants it.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as nf_tables wants it.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_after(kind, &[], fill)
    }

    /// An attribute that holds a struct and then attributes (`VETH_INFO_PEER`).
    pub(crate) fn nest_after(
        &mut self,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Self),
    ) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer
            .extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self.buffer.extend_from_slice(fixed);
        self.pad();
        fill(self);
        let length = u16::try_from(self.buffer.len() - start).expect("nests are below 64 KiB");
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// The finished message.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.buffer.len()).expect("messages are below 4 GiB");
        self.buffer[..4].copy_from_slice(&length.to_ne_bytes());
        self.buffer[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.buffer
    }

    pub(crate) fn add_flags(&mut self, flags: i32) {
        let now = u16::from_ne_bytes([self.buffer[6], self.buffer[7]]) | flags as u16;
        self.buffer[6..8].copy_from_slice(&now.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages in one received datagram. Stops at a torn one.
pub(crate) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = read_u32(datagram, 0)? as usize;
        if length < HEADER || length > datagram.len() {
            return None;
        }
        let answer = Answer {
            kind: read_u16(datagram, 4)?,
            flags: read_u16(datagram, 6)?,
            sequence: read_u32(datagram, 8)?,
            body: &datagram[HEADER..length],
        };
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(answer)
    })
}

/// The attributes in `bytes`, without the nesting and byte-order flags.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        if length < 4 || length > bytes.len() {
            return None;
        }
        let attribute = (read_u16(bytes, 2)? & TYPE_MASK, &bytes[4..length]);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// A string attribute without its terminating zero.
pub(crate) fn text(payload: &[u8]) -> String {
    let end = payload
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_attributes_and_counts_only_their_own_bytes() {
        let mut message = Message::new(16, 1, &[0; 16]);
        message.text(3, "lo").nest(18, |info| {
            info.text(1, "bridge");
        });
        let bytes = message.finish(7);
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = answers(&bytes).collect();
        assert_eq!((all.len(), all[0].kind, all[0].sequence), (1, 16, 7));
        let found: Vec<_> = attributes(&all[0].body[16..]).collect();
        assert_eq!(found[0], (3, &b"lo\0"[..]));
        assert_eq!(found[1].0, 18);
        assert_eq!(attributes(found[1].1).next(), Some((1, &b"bridge\0"[..])));
    }

    #[test]
    fn torn_input_ends_the_iteration() {
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(answers(&[255; 15]).count(), 0);
        assert_eq!(
            answers(&[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(),
            0
        );
    }
}
