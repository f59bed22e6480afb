//! Running programs, with errors that name the command.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

/// `cargo` as this xtask was started with.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs to the end, showing the output; fails when the command fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Runs to the end and returns standard output; fails with the command's own error text.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where cargo puts its results.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds and returns `target/release/skep`.
pub(crate) fn build_skep() -> anyhow::Result<PathBuf> {
    run(&mut cargo(&["build", "--release", "--package", "skep"]))?;
    Ok(target().join("release/skep"))
}

/// Sets a variable that the test kit's daemons read. Only for the start of a command, while this
/// program has one thread.
pub(crate) fn export(name: &str, value: &std::path::Path) {
    #[expect(unsafe_code, reason = "set_var is unsafe while other threads may read")]
    // SAFETY: commands call this before they start any thread.
    unsafe {
        std::env::set_var(name, value);
    }
}
