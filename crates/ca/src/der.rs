//! The little of DER that no library here offers: keys in other wrappings than PKCS#8, and signing a
//! certificate that somebody else has made.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: &[u8] = &[0x05, 0x00];
/// `[0]`: the version of a certificate, the curve of an elliptic key.
const CONTEXT_0: u8 = 0xa0;
/// `[3]`: the extensions of a certificate.
const CONTEXT_3: u8 = 0xa3;
/// `[0]`, not constructed: the key in an authority key identifier.
const KEY_IDENTIFIER: u8 = 0x80;
const OID_EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
];
const OID_AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x23];

/// One element: its tag, its content, and all of its bytes.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    bytes: &'a [u8],
}

/// The first element and what follows it.
fn split(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // Nothing here is longer than four bytes can say.
        let count = usize::from(first & 0x7f);
        let (digits, rest) = rest.split_at_checked(count).filter(|_| count <= 4)?;
        let length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let bytes = &input[..input.len() - rest.len()];
    let element = Element {
        tag,
        content,
        bytes,
    };
    Some((element, rest))
}

/// The elements within an element of this tag.
fn children(input: &[u8], tag: u8) -> Option<Vec<Element<'_>>> {
    let (outer, _) = split(input).filter(|(element, _)| element.tag == tag)?;
    let mut rest = outer.content;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (element, after) = split(rest)?;
        found.push(element);
        rest = after;
    }
    Some(found)
}

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => bytes.push(length),
        _ => {
            let digits = content.len().to_be_bytes();
            let start = digits.iter().position(|digit| *digit != 0).unwrap_or(0);
            bytes.push(0x80 | (digits.len() - start) as u8);
            bytes.extend_from_slice(&digits[start..]);
        }
    }
    bytes.extend_from_slice(&content);
    bytes
}

fn pkcs8(algorithm: &[&[u8]], key: &[u8]) -> Vec<u8> {
    element(
        SEQUENCE,
        &[
            &element(INTEGER, &[&[0]]),
            &element(SEQUENCE, algorithm),
            &element(OCTET_STRING, &[key]),
        ],
    )
}

/// An `EC PRIVATE KEY`, as openssl and SwarmKit write it, in PKCS#8. `None` if it does not name its
/// curve.
pub(crate) fn pkcs8_of_ec(key: &[u8]) -> Option<Vec<u8>> {
    let parts = children(key, SEQUENCE)?;
    let curve = parts.iter().find(|part| part.tag == CONTEXT_0)?;
    Some(pkcs8(&[OID_EC_PUBLIC_KEY, curve.content], key))
}

/// An `RSA PRIVATE KEY` in PKCS#8.
pub(crate) fn pkcs8_of_rsa(key: &[u8]) -> Vec<u8> {
    pkcs8(&[OID_RSA, NULL], key)
}

/// Who signs a certificate, DER.
#[derive(Clone, Copy)]
pub(crate) struct Authority<'a> {
    pub(crate) subject: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    /// The content of its subject key identifier.
    pub(crate) key_id: Option<&'a [u8]>,
}

/// What `certificate` certifies, as another authority is to certify it: the part to be signed.
/// Everything that does not say who signs stays, to the byte.
pub(crate) fn reissued(certificate: &[u8], authority: Authority<'_>) -> Option<Vec<u8>> {
    let outer = children(certificate, SEQUENCE)?;
    let parts = children(outer.first()?.bytes, SEQUENCE)?;
    // A version is always there in a certificate with extensions, and a CA has extensions.
    let [version, serial, _algorithm, _issuer, rest @ ..] = parts.as_slice() else {
        return None;
    };
    if version.tag != CONTEXT_0 {
        return None;
    }
    let mut body = vec![
        version.bytes.to_vec(),
        serial.bytes.to_vec(),
        authority.algorithm.to_vec(),
        authority.subject.to_vec(),
    ];
    for part in rest {
        body.push(if part.tag == CONTEXT_3 {
            of_authority(part.content, authority.key_id)?
        } else {
            part.bytes.to_vec()
        });
    }
    let body: Vec<&[u8]> = body.iter().map(Vec::as_slice).collect();
    Some(element(SEQUENCE, &body))
}

/// The extensions with the identifier of the authority's key instead of the former one's. Without it
/// some (openssl) take a certificate whose issuer has the subject's name for a self-signed one.
fn of_authority(extensions: &[u8], key_id: Option<&[u8]>) -> Option<Vec<u8>> {
    let identifier = key_id.map(|key_id| {
        let value = element(SEQUENCE, &[&element(KEY_IDENTIFIER, &[key_id])]);
        let value = element(OCTET_STRING, &[&value]);
        element(SEQUENCE, &[OID_AUTHORITY_KEY_IDENTIFIER, &value])
    });
    let kept = children(extensions, SEQUENCE)?
        .into_iter()
        .filter(|extension| !extension.content.starts_with(OID_AUTHORITY_KEY_IDENTIFIER))
        .map(|extension| extension.bytes);
    let all: Vec<&[u8]> = kept.chain(identifier.as_deref()).collect();
    Some(element(CONTEXT_3, &[&element(SEQUENCE, &all)]))
}

/// The part to be signed of a certificate request without attributes.
pub(crate) fn request(subject: &[u8], public_key: &[u8]) -> Vec<u8> {
    let version = element(INTEGER, &[&[0]]);
    let attributes = element(CONTEXT_0, &[]);
    element(SEQUENCE, &[&version, subject, public_key, &attributes])
}

/// A certificate, or a request for one, of its parts: the body that was signed, how, and the signature.
pub(crate) fn signed(body: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = element(BIT_STRING, &[&[0], signature]);
    element(SEQUENCE, &[body, algorithm, &signature])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_at_every_length_of_a_length() {
        for length in [0, 1, 127, 128, 255, 256, 65_536] {
            let content = vec![7; length];
            let bytes = element(OCTET_STRING, &[&content]);
            let (read, rest) = split(&bytes).unwrap();
            assert_eq!((read.tag, read.content.len()), (OCTET_STRING, length));
            assert_eq!((read.bytes, rest), (bytes.as_slice(), &[][..]));
        }
    }

    #[test]
    fn refuses_what_ends_too_early() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 5, 1],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
        ] {
            assert!(split(bytes).is_none());
            assert!(children(bytes, SEQUENCE).is_none());
            assert!(pkcs8_of_ec(bytes).is_none());
            let authority = Authority {
                subject: &[],
                algorithm: &[],
                key_id: None,
            };
            assert!(reissued(bytes, authority).is_none());
        }
    }
}
