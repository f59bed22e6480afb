//! `cargo xtask images`: real images made of Debian packages, for tests, benchmarks and the demo.
//!
//! Nothing is installed on this machine: packages are downloaded with apt, unpacked below the output
//! directory and packed again as docker-archive tarballs. The same packages always give the same
//! bytes. A tarball is made anew only when its packages' versions or its recipe have changed.

mod layer;
mod packages;
mod recipes;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::shell;
use packages::Packages;
use recipes::Recipe;

/// Where the tarballs are. Each holds all tags of its repository.
#[derive(Debug, Clone)]
#[expect(
    dead_code,
    reason = "callers so far find the tarballs by name in the directory"
)]
pub(crate) struct Images {
    /// `busybox:latest`
    pub(crate) busybox: PathBuf,
    /// `skep/timecheck:1.0` and `skep/timecheck:2.0`
    pub(crate) timecheck: PathBuf,
    /// `skep/whoami:1.0`
    pub(crate) whoami: PathBuf,
    /// `nginx:latest`
    pub(crate) nginx: PathBuf,
    /// `redis:latest`
    pub(crate) redis: PathBuf,
}

/// The command: builds into `target/images` and says what is there.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(args.is_empty(), "images takes no arguments");
    let dir = shell::target().join("images");
    ensure(&dir)?;
    for recipe in recipes::ALL {
        let path = dir.join(format!("{}.tar", recipe.file));
        println!(
            "{:>9} KB  {}",
            fs::metadata(&path)?.len() / 1024,
            path.display()
        );
    }
    Ok(())
}

/// Makes whatever is missing or out of date.
pub(crate) fn ensure(out_dir: &Path) -> anyhow::Result<Images> {
    fs::create_dir_all(out_dir)?;
    let packages = Packages::new(out_dir.join("work"))?;
    for recipe in recipes::ALL {
        build(recipe, &packages, out_dir).with_context(|| format!("image {}", recipe.file))?;
    }
    let tarball = |name: &str| out_dir.join(format!("{name}.tar"));
    Ok(Images {
        busybox: tarball("busybox"),
        timecheck: tarball("timecheck"),
        whoami: tarball("whoami"),
        nginx: tarball("nginx"),
        redis: tarball("redis"),
    })
}

fn build(recipe: &Recipe, packages: &Packages, out_dir: &Path) -> anyhow::Result<()> {
    let tarball = out_dir.join(format!("{}.tar", recipe.file));
    let key_file = out_dir.join(format!("{}.key", recipe.file));
    let versions = Packages::versions(recipe.packages)?;
    let key = key(&versions);
    if tarball.exists() && fs::read_to_string(&key_file).is_ok_and(|old| old == key) {
        return Ok(());
    }
    println!("building image {} of {}", recipe.file, versions.join(" "));
    let images = (recipe.build)(packages)?;
    // The key last and the tarball by rename: what an interruption leaves is never taken as done.
    let unfinished = out_dir.join(format!("{}.tar.unfinished", recipe.file));
    tarball::write(&unfinished, &images)?;
    fs::rename(&unfinished, &tarball)?;
    fs::write(&key_file, key)?;
    Ok(())
}

/// Changes with the packages' versions and with anything here that decides what comes out.
fn key(versions: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(include_str!("images/layer.rs"));
    hash.update(include_str!("images/packages.rs"));
    hash.update(include_str!("images/recipes.rs"));
    hash.update(include_str!("images/tarball.rs"));
    for version in versions {
        hash.update(version);
        hash.update("\n");
    }
    hex::encode(hash.finalize())
}
