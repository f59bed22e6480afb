//! Identifiers. An id is opaque text; only those we make have SwarmKit's 25-character shape, and
//! ids that come over the wire are taken as they are.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use rand::RngCore as _;

/// Random bytes in one id: 16 for the 25 digits, one so that the first digit is evenly spread too.
pub const ENTROPY_BYTES: usize = 17;

const LENGTH: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Makes id text as SwarmKit does: the bytes as one big number in base 36, less its first digit
/// (which is not evenly spread), cut to 25 digits.
pub fn text_from_entropy(mut bytes: [u8; ENTROPY_BYTES]) -> String {
    // With the top bit set the number always has 27 digits, so there is never anything to pad.
    bytes[0] |= 0x80;
    let mut digits = Vec::with_capacity(27);
    while bytes.iter().any(|&byte| byte != 0) {
        let mut remainder = 0_u32;
        for byte in &mut bytes {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        digits.push(DIGITS[remainder as usize]);
    }
    digits
        .iter()
        .rev()
        .skip(1)
        .take(LENGTH)
        .map(|&digit| char::from(digit))
        .collect()
}

/// Fresh id text from the operating system's randomness. Not for pure code: pass entropy in there.
pub fn random_text() -> String {
    let mut entropy = [0; ENTROPY_BYTES];
    rand::rng().fill_bytes(&mut entropy);
    text_from_entropy(entropy)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// A fresh id. Not for pure code, which takes [`Self::from_entropy`]'s bytes as input.
            pub fn random() -> Self {
                Self(random_text().into())
            }

            /// The id SwarmKit would make of these random bytes.
            pub fn from_entropy(entropy: [u8; ENTROPY_BYTES]) -> Self {
                Self(text_from_entropy(entropy).into())
            }

            /// `None` for the empty string, which is how the wire says "none".
            pub fn from_wire(text: &str) -> Option<Self> {
                (!text.is_empty()).then(|| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                String::from(&*id.0)
            }
        }

        impl From<&$name> for String {
            fn from(id: &$name) -> Self {
                String::from(&*id.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                &*self.0 == other.as_str()
            }
        }
    )*};
}

ids! {
    /// A machine in the swarm; also the common name of its certificate.
    NodeId,
    ServiceId,
    TaskId,
    NetworkId,
    /// The swarm itself; also the organisation in every certificate.
    ClusterId,
    SecretId,
    ConfigId,
    VolumeId,
    /// An object of a kind that an [`ExtensionId`] declares.
    ResourceId,
    ExtensionId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_25_base_36_characters_whatever_the_entropy() {
        for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let id = TaskId::from_entropy([byte; ENTROPY_BYTES]);
            assert_eq!(id.as_str().len(), 25, "{id}");
            assert!(id.as_str().bytes().all(|b| DIGITS.contains(&b)), "{id}");
        }
    }

    #[test]
    fn the_digits_are_those_of_the_number_in_base_36_less_the_first() {
        // Computed elsewhere, with a big-number library.
        let counting = std::array::from_fn(|i| i as u8 + 1);
        assert_eq!(
            text_from_entropy([0; ENTROPY_BYTES]),
            "hvy0lj3x0b883f8e30fyp2172"
        );
        assert_eq!(text_from_entropy(counting), "ib7wwa7iw3swndjw6xned85q8");
        assert_eq!(
            text_from_entropy([0xff; ENTROPY_BYTES]),
            "zrw1727u0mgg6ugs60vxe42e4"
        );
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(NodeId::random(), NodeId::random());
    }

    #[test]
    fn the_empty_string_on_the_wire_means_no_id() {
        assert_eq!(NodeId::from_wire(""), None);
        assert_eq!(NodeId::from_wire("n1"), Some(NodeId::from("n1")));
    }
}
