//! Where the programs and images of the tests are.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// `SKEP_BIN`, or what `cargo build --release` made.
pub(crate) fn skep_program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("SKEP_BIN")
        .map_or_else(|| workspace().join("target/release/skep"), PathBuf::from);
    if !path.exists() {
        bail!(
            "{} is not there: run these tests with `cargo xtask test`",
            path.display()
        );
    }
    Ok(path)
}

pub(crate) fn docker_program() -> PathBuf {
    std::env::var_os("SKEP_DOCKER").map_or_else(|| PathBuf::from("docker"), PathBuf::from)
}

/// A tarball that `cargo xtask images` made.
#[must_use]
pub fn image_tarball(name: &str) -> PathBuf {
    std::env::var_os("SKEP_IMAGES")
        .map_or_else(|| workspace().join("target/images"), PathBuf::from)
        .join(format!("{name}.tar"))
}

/// `SKEP_DEBIAN_DOCKER`, or where `cargo xtask` unpacks Debian's Docker.
pub(crate) fn debian_docker() -> anyhow::Result<PathBuf> {
    let tree = std::env::var_os("SKEP_DEBIAN_DOCKER")
        .map_or_else(|| workspace().join("target/peers/docker.io"), PathBuf::from);
    if !tree.join("usr/sbin/dockerd").exists() {
        bail!(
            "Debian's dockerd is not below {}: run these tests with `cargo xtask test`",
            tree.display()
        );
    }
    Ok(tree)
}

/// Of Debian's package `faketime`, in the directory of whichever architecture this is.
pub(crate) fn faketime_library() -> anyhow::Result<String> {
    let directories = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok);
    let mut libraries = directories.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    match libraries.find(|path| path.exists()) {
        Some(path) => Ok(path.display().to_string()),
        None => bail!("the package faketime is missing: run these tests with `cargo xtask test`"),
    }
}

fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}
