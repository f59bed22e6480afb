//! Encryption at rest: NaCl secretbox under a 32-byte key, in SwarmKit's record form.

use crate::CaError;
use crypto_secretbox::{KeyInit as _, Nonce, XSalsa20Poly1305, aead::Aead as _};
use prost::Message as _;

const NONCE_LENGTH: usize = 24;
/// `NACLSecretboxSalsa20Poly1305` in SwarmKit's enumeration.
const ALGORITHM_SECRETBOX: i32 = 1;

/// SwarmKit's `MaybeEncryptedRecord`, field for field. Declared here because this crate is below
/// the wire vocabulary; the bytes are the same.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SealedRecord {
    #[prost(int32, tag = "1")]
    pub algorithm: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub nonce: Vec<u8>,
}

/// A 32-byte symmetric key: the data encryption key (DEK) of the raft log, or the key encryption
/// key (KEK) that autolock prints.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; SecretKey::LENGTH]);

impl SecretKey {
    pub const LENGTH: usize = 32;

    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// `None` when the length is not [`Self::LENGTH`].
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// Encrypts under a fresh random nonce and returns the encoded record.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LENGTH] = rand::random();
        let data = self
            .cipher()
            .encrypt(Nonce::from_slice(&nonce), plain)
            .expect("secretbox only fails on messages beyond its 2^70-byte limit");
        SealedRecord {
            algorithm: ALGORITHM_SECRETBOX,
            data,
            nonce: nonce.to_vec(),
        }
        .encode_to_vec()
    }

    /// Decrypts what [`Self::seal`] returned. `what` names the thing in the error.
    pub fn open(&self, sealed: &[u8], what: &'static str) -> Result<Vec<u8>, CaError> {
        let record = SealedRecord::decode(sealed).map_err(|source| CaError::parse(what, source))?;
        if record.algorithm != ALGORITHM_SECRETBOX || record.nonce.len() != NONCE_LENGTH {
            let reason = format!("unknown encryption algorithm {}", record.algorithm);
            return Err(CaError::Rejected { what, reason });
        }
        self.cipher()
            .decrypt(Nonce::from_slice(&record.nonce), record.data.as_slice())
            .map_err(|_| CaError::Decrypt { what })
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new((&self.0).into())
    }
}

/// Never prints the key: it would end up in a log.
impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_sealed_and_never_seals_twice_alike() {
        let key = SecretKey::generate();
        let (one, two) = (key.seal(b"swarm"), key.seal(b"swarm"));
        assert_ne!(one, two);
        assert_eq!(key.open(&one, "a test").unwrap(), b"swarm");
    }

    #[test]
    fn refuses_another_key_and_any_flipped_bit() {
        let key = SecretKey::generate();
        let sealed = key.seal(b"swarm");
        let error = SecretKey::generate()
            .open(&sealed, "the record")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot decrypt the record: the key does not fit or the data is damaged"
        );
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 1;
            assert!(key.open(&damaged, "the record").is_err(), "byte {position}");
        }
    }

    #[test]
    fn does_not_print_the_key() {
        assert_eq!(format!("{:?}", SecretKey::generate()), "SecretKey(…)");
    }

    #[test]
    fn is_nacl_secretbox() {
        // The vector of NaCl's own tests/secretbox.c.
        let key = hex::decode("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
            .unwrap();
        let nonce = hex::decode("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").unwrap();
        let cipher =
            hex::decode("f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce")
                .unwrap();
        // Only the head of the published ciphertext: enough to see the key stream agree.
        let plain = hex::decode("be075fc53c81f2d5cf141316ebeb0c7b").unwrap();
        let boxed = SecretKey::from_slice(&key)
            .unwrap()
            .cipher()
            .encrypt(Nonce::from_slice(&nonce), plain.as_slice())
            .unwrap();
        // The tag covers the whole message, so it differs for our shortened one.
        assert_eq!(boxed[16..], cipher[16..]);
    }
}
