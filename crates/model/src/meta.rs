use std::fmt;

use crate::{Timestamp, proto};

/// The log index an object was last written at: what clients send back to say which state of the
/// object their update is based on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<proto::Version> for Version {
    fn from(version: proto::Version) -> Self {
        Self(version.index)
    }
}

impl From<Version> for proto::Version {
    fn from(version: Version) -> Self {
        Self { index: version.0 }
    }
}

/// When an object was made and last written. The store stamps it; nobody else writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub version: Version,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
}

impl From<&proto::Meta> for Meta {
    fn from(meta: &proto::Meta) -> Self {
        Self {
            version: meta.version.map(Version::from).unwrap_or_default(),
            created_at: meta.created_at.map(Timestamp::from),
            updated_at: meta.updated_at.map(Timestamp::from),
        }
    }
}

impl From<Meta> for proto::Meta {
    fn from(meta: Meta) -> Self {
        Self {
            version: Some(meta.version.into()),
            created_at: meta.created_at.map(Into::into),
            updated_at: meta.updated_at.map(Into::into),
        }
    }
}
