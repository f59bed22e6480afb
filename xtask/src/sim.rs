//! `cargo xtask sim`: many seeds of the simulated cluster, or one of them again.

use anyhow::{Context as _, bail};

use crate::shell;

/// Runs the seeds and shows what they found; with a single seed, everything that happened.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (mut seeds, mut from) = (2_000, 0);
    let mut rest = args.iter();
    while let Some(flag) = rest.next() {
        let value = rest
            .next()
            .with_context(|| format!("{flag} needs a value"))?;
        let value: u64 = value
            .parse()
            .with_context(|| format!("{flag} wants a number"))?;
        match flag.as_str() {
            "--seeds" => seeds = value,
            "--from" => from = value,
            other => bail!("no such option: {other}; there are --seeds N and --from S"),
        }
    }
    // A thousand seeds are worth an optimized build, one is not.
    let mut words = vec!["test", "--package", "skep-sim", "--test", "seeds"];
    if seeds > 1_000 {
        words.push("--release");
    }
    words.extend(["--", "--nocapture"]);
    let mut command = shell::cargo(&words);
    command
        .env("SKEP_SIM_SEEDS", seeds.to_string())
        .env("SKEP_SIM_FROM", from.to_string());
    shell::run(&mut command)
}
