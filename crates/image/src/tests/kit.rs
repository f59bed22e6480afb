use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::chain::digest_of;
use crate::{ImageError, ImageStore, Loaded};

/// A store in a directory of its own.
pub(super) struct TestStore {
    pub(super) dir: TempDir,
    pub(super) store: ImageStore,
}

pub(super) fn store() -> TestStore {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    TestStore { dir, store }
}

impl TestStore {
    pub(super) fn load(&self, tar: &[u8]) -> Result<Vec<Loaded>, ImageError> {
        self.store.load(tar, &mut |_| {})
    }

    /// All that is in the store's directories, besides the database.
    pub(super) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["image/tmp", "image/blobs/sha256", "overlay2", "overlay2/l"] {
            for entry in std::fs::read_dir(self.dir.path().join(dir)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name != "l" {
                    found.push(format!("{dir}/{name}"));
                }
            }
        }
        found
    }

    pub(super) fn reopen(self) -> Self {
        drop(self.store);
        let store = ImageStore::open(self.dir.path()).unwrap();
        Self {
            dir: self.dir,
            store,
        }
    }
}

/// A tar under construction.
pub(super) struct Tar(Builder<Vec<u8>>);

pub(super) fn tar() -> Tar {
    Tar(Builder::new(Vec::new()))
}

impl Tar {
    pub(super) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_as(path, content, 0o644, 0, 0)
    }

    pub(super) fn file_as(
        mut self,
        path: &str,
        content: impl AsRef<[u8]>,
        mode: u32,
        uid: u64,
        mtime: u64,
    ) -> Self {
        let content = content.as_ref();
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_mtime(mtime);
        self.raw(&mut header, path, content);
        self
    }

    pub(super) fn dir(self, path: &str, mode: u32) -> Self {
        self.dir_at(path, mode, 0)
    }

    pub(super) fn dir_at(mut self, path: &str, mode: u32, mtime: u64) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        header.set_mode(mode);
        header.set_mtime(mtime);
        self.raw(&mut header, path, &[]);
        self
    }

    pub(super) fn link(mut self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o777);
        let field = &mut header.as_gnu_mut().unwrap().linkname;
        field[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(&mut header, path, &[]);
        self
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    pub(super) fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    pub(super) fn node(mut self, kind: EntryType, path: &str, device: (u32, u32)) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o600);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        self.raw(&mut header, path, &[]);
        self
    }

    pub(super) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(key, value)]).unwrap();
        self
    }

    /// Writes the name as it is: the builder's own methods refuse hostile ones.
    fn raw(&mut self, header: &mut Header, path: &str, content: &[u8]) {
        let field = &mut header.as_gnu_mut().unwrap().name;
        field[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(header, content).unwrap();
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A docker-archive of one image; layers may be compressed.
pub(super) fn archive(name: &str, config: Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids = layers
        .iter()
        .map(|layer| digest_of(&unpacked(layer)))
        .collect::<Vec<_>>();
    archive_claiming(name, config, layers, &json!(diff_ids))
}

pub(super) fn archive_claiming(
    name: &str,
    mut config: Value,
    layers: &[Vec<u8>],
    diff_ids: &Value,
) -> Vec<u8> {
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    config["architecture"] = json!("amd64");
    config["os"] = json!("linux");
    let mut tar = tar();
    let mut names = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        names.push(format!("{index}/layer.tar"));
        tar = tar.file(&names[index], layer);
    }
    let tags = if name.is_empty() {
        json!(null)
    } else {
        json!([name])
    };
    let manifest = json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]);
    tar.file("config.json", config.to_string())
        .file("manifest.json", manifest.to_string())
        .bytes()
}

/// An image whose layer holds one file.
pub(super) fn simple(name: &str, content: &str) -> Vec<u8> {
    archive(name, json!({}), &[tar().file("file", content).bytes()])
}

fn unpacked(layer: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::compression::decompress(layer)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A file system of its own, of limited size.
pub(super) struct SmallDisk(pub(super) TempDir);

pub(super) fn small_disk(megabytes: u32) -> SmallDisk {
    let dir = tempfile::tempdir().unwrap();
    let options = format!("size={megabytes}m");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(
        Some("tmpfs"),
        dir.path(),
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .unwrap();
    SmallDisk(dir)
}

impl SmallDisk {
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}
