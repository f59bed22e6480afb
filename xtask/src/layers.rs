//! The layer rule of ARCHITECTURE.md: a crate depends on crates of its own layer or below.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::shell;

/// Every crate of the workspace and its layer. A new crate must be put here, on purpose.
const LAYERS: &[(&str, u8)] = &[
    // L0 vocabulary
    ("skep-proto", 0),
    ("skep-model", 0),
    // L1 decisions (pure)
    ("skep-reference", 1),
    ("skep-dockerfile", 1),
    ("skep-orchestrator", 1),
    ("skep-scheduler", 1),
    ("skep-allocator", 1),
    // L2 mechanisms
    ("skep-store", 2),
    ("skep-raft", 2),
    ("skep-ca", 2),
    ("skep-image", 2),
    ("skep-registry", 2),
    ("skep-runtime", 2),
    ("skep-netlink", 2),
    // L3 services
    ("skep-network", 3),
    ("skep-engine", 3),
    ("skep-build", 3),
    ("skep-agent", 3),
    ("skep-manager", 3),
    ("skep-rpc", 3),
    ("skep-swarm", 3),
    // L4 surfaces
    ("skep-api", 4),
    ("skep-lab", 4),
    // L5 composition
    ("skep", 5),
    ("xtask", DEV),
    // dev: only tests may use these
    ("skep-testkit", DEV),
    ("skep-e2e", DEV),
    ("skep-sim", DEV),
    ("skep-bench", DEV),
];

const DEV: u8 = u8::MAX;

/// What pure crates must never pull in, with the reason told to whoever tries.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "decisions are synchronous"),
    ("tonic", "decisions know no wire"),
    ("rand", "randomness comes in as a value"),
];

/// Fails with every edge that points upward.
pub(crate) fn check() -> anyhow::Result<()> {
    let text = shell::output(&mut shell::cargo(&[
        "metadata",
        "--format-version=1",
        "--no-deps",
    ]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata without packages")?;
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(&layer) = layers.get(name) else {
            faults.push(format!(
                "{name} has no layer: add it to xtask/src/layers.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            if let Some(&below) = layers.get(on)
                && normal
                && below > layer
            {
                faults.push(format!(
                    "{name} (L{layer}) must not depend on {on} (above it)"
                ));
            }
            if let Some((_, reason)) = IMPURE.iter().find(|(crate_name, _)| *crate_name == on)
                && normal
                && layer == 1
            {
                faults.push(format!(
                    "{name} is a pure crate and must not depend on {on}: {reason}"
                ));
            }
        }
    }
    if !faults.is_empty() {
        bail!("the layer rule is broken:\n  {}", faults.join("\n  "));
    }
    println!("layers: {} crates, every edge points down", packages.len());
    Ok(())
}

/// Size of every source file that may hold two subjects, largest first; advice, not a failure.
pub(crate) fn long_files() -> anyhow::Result<()> {
    let listed = shell::output(
        Command::new("git")
            .args(["ls-files", "*.rs"])
            .current_dir(shell::root()),
    )?;
    let mut long: Vec<(usize, &str)> = Vec::new();
    for file in listed.lines() {
        let lines = std::fs::read_to_string(shell::root().join(file))?
            .lines()
            .count();
        if lines > 900 {
            long.push((lines, file));
        }
    }
    long.sort_unstable_by(|a, b| b.cmp(a));
    for (lines, file) in long {
        println!("note: {file} has {lines} lines; are there two subjects in it?");
    }
    Ok(())
}
