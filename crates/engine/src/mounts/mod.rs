//! What is mounted into a container: parsing Docker's forms of it and keeping the result.

mod parse;
mod tmpfs;

use bollard_stubs::models as m;
use serde::{Deserialize, Serialize};

pub(crate) use parse::{
    ParsedMount, check_tmpfs_target, clean_path, parse_bind, parse_mount, parse_volumes_from,
};
pub(crate) use tmpfs::check_tmpfs_options;

/// The kinds of mount that are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// One mount of a container, resolved when it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MountPoint {
    pub(crate) kind: MountKind,
    /// Clean and absolute.
    pub(crate) destination: String,
    /// The host's path; empty for tmpfs.
    pub(crate) source: String,
    /// The volume's name.
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) rw: bool,
    /// The mode as it was given ("ro,z").
    #[serde(default)]
    pub(crate) mode: String,
    /// Empty: none asked for.
    #[serde(default)]
    pub(crate) propagation: String,
    #[serde(default)]
    pub(crate) non_recursive: bool,
    #[serde(default)]
    pub(crate) read_only_non_recursive: bool,
    #[serde(default)]
    pub(crate) read_only_force_recursive: bool,
    /// Make the host's directory if it is missing: `-v` does, `--mount` does not.
    #[serde(default)]
    pub(crate) create_source: bool,
    /// Fill an empty volume with what the image has there.
    #[serde(default)]
    pub(crate) copy_data: bool,
    /// A directory inside the volume.
    #[serde(default)]
    pub(crate) subpath: Option<String>,
    /// Of tmpfs: the mount options.
    #[serde(default)]
    pub(crate) data: String,
    /// The volume was made for this container only and has no name of the user's.
    #[serde(default)]
    pub(crate) anonymous: bool,
}

impl MountPoint {
    /// As `docker inspect` shows it.
    pub(crate) fn to_api(&self) -> m::MountPoint {
        m::MountPoint {
            typ: Some(self.kind.as_str().to_owned()),
            name: self.name.clone(),
            source: Some(self.source.clone()),
            destination: Some(self.destination.clone()),
            driver: (self.kind == MountKind::Volume).then(|| "local".to_owned()),
            mode: Some(self.mode.clone()),
            rw: Some(self.rw),
            propagation: Some(self.propagation.clone()),
        }
    }
}
