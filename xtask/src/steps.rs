//! `verify`, `fix` and `test`: the same steps for people and for CI.

use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;

use crate::{images, install, layers, shell};

/// Formatting, the layer rule and lints.
pub(crate) fn verify() -> anyhow::Result<()> {
    step("layers", layers::check)?;
    step("format", || {
        shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))
    })?;
    step("lints", || {
        shell::run(&mut shell::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    })?;
    layers::long_files()
}

/// Formatting and machine-applicable lint fixes.
pub(crate) fn fix() -> anyhow::Result<()> {
    shell::run(&mut shell::cargo(&[
        "clippy",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
        "--workspace",
        "--all-targets",
    ]))?;
    shell::run(&mut shell::cargo(&["fmt", "--all"]))
}

/// Everything. Extra arguments go to the test runner (a test's name, say).
pub(crate) fn test(args: &[String]) -> anyhow::Result<()> {
    step("packages", install::for_tests)?;
    if args.is_empty() {
        verify()?;
    }
    let skep = step("build", shell::build_skep)?;
    let images = shell::target().join("images");
    step("images", || images::ensure(&images).map(drop))?;
    let debian = step("peer", install::debian_docker)?;
    let registry = step("registry", install::docker_registry)?;
    let mut runner = test_runner();
    runner
        .args(args)
        .env("SKEP_BIN", skep)
        .env("SKEP_IMAGES", images)
        .env("SKEP_DOCKER", install::docker_cli()?)
        .env("SKEP_DEBIAN_DOCKER", debian)
        .env("SKEP_REGISTRY", registry);
    step("tests", || shell::run(&mut runner).context("tests failed"))
}

/// nextest where it is installed (a process a test, so namespaces and children stay apart), else
/// cargo's own.
fn test_runner() -> Command {
    let has_nextest = shell::cargo(&["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if has_nextest {
        shell::cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        shell::cargo(&["test", "--workspace", "--no-fail-fast"])
    }
}

fn step<T>(name: &str, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    println!("== {name}");
    let started = Instant::now();
    let outcome = run()?;
    println!(
        "== {name}: done in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(outcome)
}
