//! Debian packages, unpacked but not installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::{install, shell};

/// Unpacked packages below a directory of their own.
pub(super) struct Packages {
    dir: PathBuf,
}

impl Packages {
    pub(super) fn new(dir: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir: fs::canonicalize(dir)?,
        })
    }

    /// `name=version` of what apt would install now. A fresh machine first fetches its lists.
    pub(super) fn versions(names: &[&str]) -> anyhow::Result<Vec<String>> {
        if let Ok(versions) = candidates(names) {
            return Ok(versions);
        }
        install::refresh_package_lists()?;
        candidates(names)
    }

    /// A tree with the packages and the libraries they need.
    pub(super) fn tree(&self, names: &[&str]) -> anyhow::Result<Tree> {
        let wanted = with_libraries(names)?;
        let mut versions = Self::versions(&wanted.iter().map(String::as_str).collect::<Vec<_>>())?;
        versions.sort();
        let root = self.dir.join(names.join("+"));
        let done = root.join(".versions");
        let list = versions.join("\n");
        if fs::read_to_string(&done).is_ok_and(|old| old == list) {
            return Ok(Tree { root });
        }
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let downloads = root.join(".packages");
        fs::create_dir_all(&downloads)?;
        shell::output(
            Command::new("apt-get")
                .args(["download", "--quiet", "--option", "APT::Sandbox::User=root"])
                .args(&versions)
                .current_dir(&downloads)
                .stdin(Stdio::null()),
        )?;
        for package in fs::read_dir(&downloads)? {
            shell::run(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(package?.path())
                    .arg(&root),
            )?;
        }
        fs::remove_dir_all(&downloads)?;
        fs::write(&done, list)?;
        Ok(Tree { root })
    }
}

fn candidates(names: &[&str]) -> anyhow::Result<Vec<String>> {
    let policy = shell::output(
        Command::new("apt-cache")
            .arg("policy")
            .args(names)
            .env("LC_ALL", "C"),
    )?;
    let mut versions = Vec::new();
    let mut name = "";
    for line in policy.lines() {
        if !line.starts_with(' ') {
            name = line.trim_end_matches(':');
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ") {
            if version == "(none)" {
                bail!("apt knows no version of {name}");
            }
            versions.push(format!("{name}={version}"));
        }
    }
    if versions.len() < names.len() {
        bail!("apt does not know all of {}", names.join(" "));
    }
    Ok(versions)
}

/// The packages and, transitively, the libraries they depend on. Dependencies that are not
/// libraries (init scripts, account management) have no place in an image.
fn with_libraries(names: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let mut wanted: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut new: Vec<String> = wanted.iter().cloned().collect();
    while !new.is_empty() {
        let depends = shell::output(
            Command::new("apt-cache")
                .arg("depends")
                .args(&new)
                .env("LC_ALL", "C"),
        )?;
        new.clear();
        for line in depends.lines() {
            let line = line.trim_start_matches([' ', '|']);
            let name = line
                .strip_prefix("Depends: ")
                .or_else(|| line.strip_prefix("PreDepends: "));
            let Some(name) = name.map(|name| name.split(':').next().unwrap_or(name)) else {
                continue;
            };
            let library = name.starts_with("lib") || name.starts_with("zlib");
            if library && wanted.insert(name.to_owned()) {
                new.push(name.to_owned());
            }
        }
    }
    Ok(wanted)
}

/// Unpacked packages.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// A file by its path in the packages, whether they have merged `/usr` or not.
    pub(super) fn file(&self, path: &str) -> anyhow::Result<PathBuf> {
        let merged = self.root.join("usr").join(path);
        let plain = self.root.join(path);
        [plain, merged]
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("no package brings /{path}"))
    }

    /// The shared libraries a program needs and the loader that finds them, as (path in an image,
    /// file here). The packages' own loader is asked, so this machine's libraries play no part.
    pub(super) fn libraries(&self, program: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let (loader_name, multiarch) = match std::env::consts::ARCH {
            "x86_64" => ("lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
            "aarch64" => ("lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
            other => bail!("no recipe for the architecture {other}"),
        };
        let soname = loader_name.rsplit('/').next().unwrap_or(loader_name);
        let directories: Vec<PathBuf> = ["lib", "usr/lib"]
            .iter()
            .map(|lib| self.root.join(lib).join(multiarch))
            .filter(|dir| dir.is_dir())
            .collect();
        let loader = directories
            .iter()
            .map(|dir| dir.join(soname))
            .find(|path| path.is_file())
            .context("no package brings the dynamic loader")?;
        let path = std::env::join_paths(&directories)?;
        let listed = shell::output(
            Command::new(&loader)
                .args(["--inhibit-cache", "--library-path"])
                .arg(path)
                .arg("--list")
                .arg(program),
        )?;
        let mut found = vec![(format!("usr/{loader_name}"), loader)];
        for line in listed.lines() {
            let Some((name, rest)) = line.trim().split_once(" => ") else {
                continue;
            };
            let file = rest.split(" (").next().unwrap_or(rest);
            if !Path::new(file).starts_with(&self.root) {
                // The loader itself, under the name programs ask for.
                continue;
            }
            found.push((format!("usr/lib/{multiarch}/{name}"), PathBuf::from(file)));
        }
        Ok(found)
    }
}
