//! Debian packages that tests, the demo and the benchmarks need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::shell;

/// A program and the package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("faketime", "faketime"),
    ("ip", "iproute2"),
    ("kill", "procps"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("ps", "procps"),
    ("runc", "runc"),
    ("script", "bsdutils"),
];

/// Installs what is missing for running daemons in network namespaces.
pub(crate) fn for_tests() -> anyhow::Result<()> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|&(_, package)| package)
        .collect();
    packages(&missing)?;
    docker_cli().map(drop)
}

/// Installs packages with apt; nothing to do for an empty list.
pub(crate) fn packages(names: &[&str]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    println!("installing {}", names.join(" "));
    refresh_package_lists()?;
    shell::run(
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(names)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null()),
    )
    .context("can't install Debian packages (this needs root and Debian or a derivative)")
}

/// `apt-get update`, which a fresh machine needs before any install.
pub(crate) fn refresh_package_lists() -> anyhow::Result<()> {
    shell::run(
        Command::new("apt-get")
            .args(["update", "--quiet"])
            .stdout(Stdio::null()),
    )
}

/// The stock docker CLI: the one on the PATH, else Debian's.
pub(crate) fn docker_cli() -> anyhow::Result<PathBuf> {
    match find("docker") {
        Some(path) => Ok(path),
        None => debian_docker().map(|tree| tree.join("usr/bin/docker")),
    }
}

/// Debian's Docker, unpacked below `target/` and not installed: installing would start its daemon
/// in the host's network namespace.
pub(crate) fn debian_docker() -> anyhow::Result<PathBuf> {
    let tree = shell::target().join("peers/docker.io");
    if tree.join("usr/sbin/dockerd").exists() {
        return Ok(tree);
    }
    println!("fetching Debian's docker.io as the peer");
    refresh_package_lists()?;
    let downloads = shell::target().join("peers/packages");
    std::fs::create_dir_all(&downloads)?;
    shell::run(
        Command::new("apt-get")
            .args([
                "download",
                "--quiet",
                "docker.io",
                "containerd",
                "tini",
                "libltdl7",
                "libdevmapper1.02.1",
            ])
            .current_dir(&downloads)
            .stdout(Stdio::null()),
    )?;
    for package in std::fs::read_dir(&downloads)? {
        let package = package?.path();
        if package
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            unpack(&package, &tree)?;
        }
    }
    Ok(tree)
}

/// Debian's registry, unpacked as well: installing would start it on the host.
pub(crate) fn docker_registry() -> anyhow::Result<PathBuf> {
    let tree = shell::target().join("peers/docker-registry");
    let program = tree.join("usr/bin/docker-registry");
    if program.exists() {
        return Ok(program);
    }
    println!("fetching Debian's docker-registry for the tests");
    refresh_package_lists()?;
    let downloads = shell::target().join("peers/registry-package");
    std::fs::create_dir_all(&downloads)?;
    shell::run(
        Command::new("apt-get")
            .args(["download", "--quiet", "docker-registry"])
            .current_dir(&downloads)
            .stdout(Stdio::null()),
    )?;
    for package in std::fs::read_dir(&downloads)? {
        unpack(&package?.path(), &tree)?;
    }
    Ok(program)
}

fn unpack(package: &Path, tree: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(tree)?;
    shell::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package)
            .arg(tree),
    )
}

/// Whether a program is on the PATH.
pub(crate) fn on_path(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}
