//! docker-archive tarballs, as `docker load` takes them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use super::layer::{CREATED, TIME};

/// One image: its layers' tars, how it runs, its names.
pub(super) struct Image {
    pub(super) names: Vec<String>,
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) config: Value,
}

pub(super) fn write(path: &Path, images: &[Image]) -> anyhow::Result<()> {
    let mut tar = Builder::new(io::BufWriter::new(File::create(path)?));
    let mut written = BTreeSet::new();
    let mut manifest = Vec::new();
    for image in images {
        let mut diff_ids = Vec::new();
        let mut layers = Vec::new();
        for layer in &image.layers {
            let digest = sha256(layer);
            let name = format!("{digest}/layer.tar");
            if written.insert(name.clone()) {
                append(&mut tar, &name, layer)?;
            }
            diff_ids.push(format!("sha256:{digest}"));
            layers.push(name);
        }
        let history: Vec<_> = diff_ids
            .iter()
            .map(|_| json!({"created": CREATED, "created_by": "cargo xtask images"}))
            .collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        })
        .to_string();
        let name = format!("{}.json", sha256(config.as_bytes()));
        append(&mut tar, &name, config.as_bytes())?;
        manifest.push(json!({"Config": name, "RepoTags": image.names, "Layers": layers}));
    }
    append(
        &mut tar,
        "manifest.json",
        Value::from(manifest).to_string().as_bytes(),
    )?;
    tar.into_inner()?.flush()?;
    Ok(())
}

fn append(tar: &mut Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(TIME);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Go's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
