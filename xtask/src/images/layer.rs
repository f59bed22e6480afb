//! A layer's content, and its tar: sorted, owned by root, with one fixed time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use tar::{Builder, EntryType, Header};

/// 2026-01-01, for every file and image.
pub(super) const TIME: u64 = 1_767_225_600;
pub(super) const CREATED: &str = "2026-01-01T00:00:00Z";

#[derive(Default)]
pub(super) struct Layer {
    nodes: BTreeMap<String, Node>,
}

enum Node {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: String },
}

impl Layer {
    pub(super) fn directory(mut self, path: &str, mode: u32) -> Self {
        self.put(path, Node::Directory { mode });
        self
    }

    pub(super) fn file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.put(
            path,
            Node::File {
                mode,
                content: content.into(),
            },
        );
        self
    }

    /// A copy of a file here.
    pub(super) fn copy(self, path: &str, mode: u32, from: &Path) -> anyhow::Result<Self> {
        let content = fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
        Ok(self.file(path, mode, content))
    }

    pub(super) fn symlink(mut self, path: &str, target: &str) -> Self {
        self.put(
            path,
            Node::Symlink {
                target: target.to_owned(),
            },
        );
        self
    }

    /// Directories above come of themselves.
    fn put(&mut self, path: &str, node: Node) {
        // One spelling for each path: dockerd refuses a layer that names one twice.
        let segments: Vec<&str> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let path = segments.join("/");
        for (slash, _) in path.match_indices('/') {
            let above = Node::Directory { mode: 0o755 };
            self.nodes.entry(path[..slash].to_owned()).or_insert(above);
        }
        self.nodes.insert(path, node);
    }

    pub(super) fn tar(&self) -> io::Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, node) in &self.nodes {
            let mut header = Header::new_gnu();
            header.set_mtime(TIME);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match node {
                Node::Directory { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Node::File { mode, content } => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content.as_slice())?;
                }
                Node::Symlink { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        tar.into_inner()
    }
}
