use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde_json::json;
use tar::EntryType;

use super::kit::{archive, archive_claiming, gzip, simple, small_disk, store, tar};
use crate::chain::digest_of;
use crate::{ErrorKind, ImageStore, load_messages};

#[test]
fn a_loaded_image_is_found_by_name_id_and_prefix() {
    let test = store();
    let loaded = test.load(&simple("me/app:1.0", "x")).unwrap();
    assert_eq!(load_messages(&loaded), ["Loaded image: me/app:1.0"]);
    let id = loaded[0].image.clone();
    let hex = id.0.hex().to_owned();
    for name in [
        "me/app:1.0",
        "docker.io/me/app:1.0",
        id.as_str(),
        &hex,
        &hex[..12],
        &hex[..4],
    ] {
        assert_eq!(test.store.get(name).unwrap().id(), &id, "{name}");
    }
    let error = test.store.get("me/app").unwrap_err();
    assert_eq!(error.to_string(), "No such image: me/app:latest");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = test.store.get("Foo").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
}

#[test]
fn what_was_loaded_is_there_after_a_restart() {
    let test = store();
    let loaded = test.load(&simple("app:1", "x")).unwrap();
    let test = test.reopen();
    assert_eq!(test.store.get("app:1").unwrap().id(), &loaded[0].image);
    assert_eq!(test.store.get("app:1").unwrap().size(), 1);
}

#[test]
fn a_name_loaded_again_moves_to_the_new_image() {
    let test = store();
    let old = test.load(&simple("app:1", "old")).unwrap();
    let new = test.load(&simple("app:1", "new")).unwrap();
    assert_eq!(
        load_messages(&new),
        [
            format!(
                "The image app:1 already exists, renaming the old one with ID {} to empty string",
                old[0].image
            ),
            "Loaded image: app:1".to_owned()
        ]
    );
    assert!(
        test.store
            .by_id(&old[0].image)
            .unwrap()
            .references()
            .is_empty()
    );
}

#[test]
fn an_image_without_a_name_is_told_by_its_id() {
    let test = store();
    let loaded = test.load(&simple("", "x")).unwrap();
    assert_eq!(
        load_messages(&loaded),
        [format!("Loaded image ID: {}", loaded[0].image)]
    );
}

#[test]
fn compressed_streams_and_layers_are_taken() {
    let test = store();
    let layer = tar().file("a", "1").bytes();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let gz = archive("gz:1", json!({}), &[gzip(&layer)]);
    let zst = archive("zst:1", json!({"author": "x"}), &[zstd(&layer)]);
    test.load(&gzip(&gz)).unwrap();
    test.load(&zstd(&zst)).unwrap();
    assert_eq!(
        test.store.get("gz:1").unwrap().top_layer(),
        test.store.get("zst:1").unwrap().top_layer()
    );
    // Shared: one directory, its short name and its blob.
    assert_eq!(test.files().len(), 3, "{:?}", test.files());
}

#[test]
fn layers_become_what_overlayfs_wants_of_a_lower_directory() {
    let test = store();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = tar()
        .dir_at("dir", 0o1777, 1000)
        .file_as("dir/setuid", "s", 0o4755, 33, 12345)
        .pax("SCHILY.xattr.security.capability", &capability)
        .file_as("dir/ping", "p", 0o755, 0, 0)
        .hard_link("dir/ping2", "dir/ping")
        .symlink("link", "/absolute/elsewhere")
        .node(EntryType::Char, "null", (1, 3))
        .node(EntryType::Fifo, "fifo", (0, 0))
        .file(".wh.gone", "")
        .file("dir/.wh..wh..opq", "")
        .file("implied/parents/file", "f")
        .file("big", vec![0; 3 << 20])
        .bytes();
    test.load(&archive("app:1", json!({}), &[layer])).unwrap();
    let inspect = test.store.inspect("app:1").unwrap();
    let diff = std::path::PathBuf::from(&inspect.graph_driver.unwrap().data["UpperDir"]);
    let stat = |name: &str| fs::symlink_metadata(diff.join(name)).unwrap();
    assert_eq!(stat("dir/setuid").mode() & 0o7777, 0o4755);
    assert_eq!(
        (stat("dir/setuid").uid(), stat("dir/setuid").mtime()),
        (33, 12345)
    );
    assert_eq!(
        (stat("dir").mode() & 0o7777, stat("dir").mtime()),
        (0o1777, 1000)
    );
    assert_eq!(stat("dir/ping").ino(), stat("dir/ping2").ino());
    assert!(stat("null").file_type().is_char_device() && stat("null").rdev() == 0x103);
    assert!(stat("fifo").file_type().is_fifo());
    assert!(stat("gone").file_type().is_char_device() && stat("gone").rdev() == 0);
    assert_eq!(stat("implied/parents").mode() & 0o777, 0o755);
    assert_eq!(
        (stat("big").len(), stat("big").blocks()),
        (3 << 20, 0),
        "holes stay holes"
    );
    assert_eq!(
        fs::read_link(diff.join("link")).unwrap().to_str(),
        Some("/absolute/elsewhere")
    );
    let mut value = [0; 32];
    let length = rustix::fs::lgetxattr(diff.join("dir/ping"), "security.capability", &mut value);
    assert_eq!(&value[..length.unwrap()], &capability);
    let length = rustix::fs::lgetxattr(diff.join("dir"), "trusted.overlay.opaque", &mut value);
    assert_eq!(&value[..length.unwrap()], b"y");
    assert_eq!(inspect.size, Some(3 + (3 << 20)));
}

#[test]
fn shared_layers_written_as_links_are_followed() {
    let test = store();
    let layer = tar().file("a", "1").bytes();
    let diff_id = digest_of(&layer);
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["old:style"], "Layers": ["b/layer.tar"]}]);
    let tar = tar()
        .file("a/layer.tar", &layer)
        .symlink("b/layer.tar", "../a/layer.tar")
        .file("c.json", config.to_string())
        .file("manifest.json", manifest.to_string());
    test.load(&tar.bytes()).unwrap();
    assert_eq!(test.store.get("old:style").unwrap().size(), 1);
}

#[test]
fn an_oci_layout_is_loaded_with_the_hosts_platform() {
    let test = store();
    let layer = gzip(&tar().file("a", "1").bytes());
    let config = json!({"os": "linux", "rootfs": {"type": "layers",
        "diff_ids": [digest_of(&tar().file("a", "1").bytes())]}})
    .to_string();
    let manifest = json!({"schemaVersion": 2,
        "config": {"digest": digest_of(config.as_bytes())},
        "layers": [{"digest": digest_of(&layer)}]})
    .to_string();
    let arch = crate::platform::host().architecture;
    let index = json!({"manifests": [
        {"digest": digest_of(b"absent"), "platform": {"os": "plan9", "architecture": "mips"}},
        {"digest": digest_of(manifest.as_bytes()), "platform": {"os": "linux", "architecture": arch}},
        {"digest": digest_of(b"absent"), "annotations": {"vnd.docker.reference.type": "x"}},
    ]})
    .to_string();
    let top = json!({"manifests": [{"digest": digest_of(index.as_bytes()),
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "annotations": {"io.containerd.image.name": "docker.io/me/oci:2"}}]})
    .to_string();
    let mut tar = tar().file("index.json", &top).file("oci-layout", "{}");
    for blob in [
        config.as_bytes(),
        manifest.as_bytes(),
        index.as_bytes(),
        &layer,
    ] {
        tar = tar.file(&format!("blobs/sha256/{}", digest_of(blob).hex()), blob);
    }
    let loaded = test.load(&tar.bytes()).unwrap();
    assert_eq!(load_messages(&loaded), ["Loaded image: me/oci:2"]);
    assert_eq!(loaded[0].image.0, digest_of(config.as_bytes()));
}

#[test]
fn what_is_not_an_image_is_refused_in_dockerds_words_and_leaves_nothing() {
    let test = store();
    let layer = tar().file("a", "1").bytes();
    let other = digest_of(b"other");
    let cases = [
        (
            b"x".repeat(2048),
            "archive/tar: invalid tar header".to_owned(),
        ),
        (b"short".to_vec(), "unexpected EOF".to_owned()),
        (
            Vec::new(),
            "invalid archive: does not contain a manifest.json".to_owned(),
        ),
        (
            layer.clone(),
            "invalid archive: does not contain a manifest.json".to_owned(),
        ),
        (
            tar().file("manifest.json", "null").bytes(),
            "invalid manifest, manifest cannot be null (but can be [])".to_owned(),
        ),
        (
            tar().file("manifest.json", r#"[{"Config":"c"}]"#).bytes(),
            "invalid archive: open c: no such file or directory".to_owned(),
        ),
        (
            archive_claiming(
                "a:1",
                json!({}),
                std::slice::from_ref(&layer),
                &json!([other]),
            ),
            format!(
                "invalid diffID for layer 0: expected \"{other}\", got \"{}\"",
                digest_of(&layer)
            ),
        ),
        (
            archive_claiming("a:1", json!({}), &[gzip(&layer)], &json!([other])),
            format!(
                "invalid diffID for layer 0: expected \"{other}\", got \"{}\"",
                digest_of(&layer)
            ),
        ),
        (
            archive_claiming("a:1", json!({}), std::slice::from_ref(&layer), &json!([])),
            "invalid manifest, layers length mismatch: expected 1, got 0".to_owned(),
        ),
        (
            archive("Bad:1", json!({}), std::slice::from_ref(&layer)),
            "invalid reference format: repository name (library/Bad) must be lowercase".to_owned(),
        ),
        (
            archive("untagged", json!({}), &[layer]),
            "invalid tag \"untagged\"".to_owned(),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(test.load(&bytes).unwrap_err().to_string(), expected);
    }
    let full = simple("a:1", &"x".repeat(100_000));
    for cut in [100, 600, 50_000, 101_000] {
        test.load(&full[..cut]).unwrap_err();
        let packed = gzip(&full);
        test.load(&packed[..packed.len() * cut / 102_000])
            .unwrap_err();
    }
    assert_eq!(test.store.count(), 0);
    assert_eq!(test.files(), [] as [&str; 0]);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let disk = small_disk(8);
    let store = ImageStore::open(disk.path()).unwrap();
    // Incompressible, or it would fit.
    let mut seed = 1_u32;
    let mut noise = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        (seed >> 8) as u8
    };
    let content: Vec<u8> = (0..6 << 20).map(|_| noise()).collect();
    let image = archive("big:1", json!({}), &[tar().file("noise", content).bytes()]);
    let error = store.load(image.as_slice(), &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().ends_with("no space left on device"),
        "{error}"
    );
    assert_eq!(store.count(), 0);
    for dir in ["image/tmp", "image/blobs/sha256", "overlay2/l"] {
        assert_eq!(
            fs::read_dir(disk.path().join(dir)).unwrap().count(),
            0,
            "{dir}"
        );
    }
    store
        .load(simple("small:1", "x").as_slice(), &mut |_| {})
        .unwrap();
}

#[test]
fn leftovers_of_a_killed_load_are_collected_at_the_next_start() {
    let test = store();
    test.load(&simple("kept:1", "x")).unwrap();
    let before = test.files();
    let root = test.dir.path();
    fs::create_dir_all(root.join("image/tmp/load/x")).unwrap();
    fs::write(root.join("image/blobs/sha256/orphan.zst"), "x").unwrap();
    fs::create_dir_all(root.join("overlay2/orphan/diff")).unwrap();
    std::os::unix::fs::symlink("../orphan/diff", root.join("overlay2/l/orphan")).unwrap();
    fs::create_dir_all(root.join("overlay2/c-unfinished/diff")).unwrap();
    let test = test.reopen();
    assert_eq!(test.files(), before);
    test.store.get("kept:1").unwrap();
}

#[test]
fn a_relative_data_root_is_made_absolute() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let relative = std::path::Path::new(dir.path().file_name().unwrap());
    let store = ImageStore::open(relative).unwrap();
    store
        .load(simple("app:1", "x").as_slice(), &mut |_| {})
        .unwrap();
    let rootfs = store.rootfs(&store.get("app:1").unwrap(), "c1").unwrap();
    assert!(rootfs.mount().unwrap().is_absolute());
    rootfs.remove().unwrap();
}

#[test]
fn one_data_root_is_for_one_daemon() {
    let test = store();
    let error = ImageStore::open(test.dir.path()).err().unwrap();
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
}

#[test]
fn progress_tells_each_layer() {
    let test = store();
    let layer = tar().file("a", vec![7; 4 << 20]).bytes();
    let image = archive("a:1", json!({}), std::slice::from_ref(&layer));
    let mut told = Vec::new();
    test.store
        .load(image.as_slice(), &mut |progress| told.push(progress))
        .unwrap();
    let last = told.last().unwrap();
    assert_eq!(
        (last.current, last.total),
        (layer.len() as u64, layer.len() as u64)
    );
    assert_eq!(last.id, digest_of(&layer).short());
}
