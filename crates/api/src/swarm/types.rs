//! Swarm's objects in Docker's JSON: the names, the order and the `omitempty`s of moby's
//! `api/types/swarm`, which `bollard_stubs` does not keep.

#![expect(clippy::struct_field_names, reason = "the names are Docker's")]

mod cluster;
mod container;
mod network;
mod node;
mod secret;
mod service;
mod task;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use cluster::*;
pub(crate) use container::*;
pub(crate) use network::*;
pub(crate) use node::*;
pub(crate) use secret::*;
pub(crate) use service::*;
pub(crate) use task::*;

/// Go's `map[string]string`.
pub(crate) type Texts = BTreeMap<String, String>;

/// What Go's `omitempty` leaves out.
pub(super) fn zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go's `[]byte`: base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Go's decoder skips line breaks.
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        STANDARD.decode(&text).map(Self).map_err(|_| {
            let at = text
                .bytes()
                .position(|b| !(b.is_ascii_alphanumeric() || b"+/=".contains(&b)));
            serde::de::Error::custom(format_args!(
                "illegal base64 data at input byte {}",
                at.unwrap_or(text.len())
            ))
        })
    }
}

/// The version of an object, for updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Version {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) index: u64,
}

/// When and how often an object was written. Flattened into every object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Meta {
    pub(crate) version: Version,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
}

/// A driver of anything, with its options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Driver {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) options: Texts,
}

/// A certificate's issuer and root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TlsInfo {
    #[serde(skip_serializing_if = "zero")]
    pub(crate) trust_root: String,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) cert_issuer_subject: Bytes,
    #[serde(skip_serializing_if = "zero")]
    pub(crate) cert_issuer_public_key: Bytes,
}
