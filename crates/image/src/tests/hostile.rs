use std::fs;

use serde_json::json;
use tar::EntryType;

use super::kit::{Tar, archive, gzip, store, tar};
use crate::{ImageStore, Limits};

/// Loads an image of one layer that must be refused, and makes sure nothing of it remains.
fn refused(layer: Tar) -> String {
    let test = store();
    let outside = test.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let error = test
        .load(&archive("evil:1", json!({}), &[layer.bytes()]))
        .unwrap_err();
    assert_eq!(test.store.count(), 0);
    assert_eq!(test.files(), [] as [&str; 0]);
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
    error.to_string()
}

#[test]
fn absolute_paths_and_dot_dot_are_refused() {
    assert!(refused(tar().file("/etc/passwd", "x")).contains("is absolute"));
    assert!(refused(tar().file("../escape", "x")).contains("points outside"));
    assert!(refused(tar().dir("a", 0o755).file("a/../../escape", "x")).contains("points outside"));
    assert!(refused(tar().file("a/.wh...", "")).contains("invalid whiteout"));
    assert!(refused(tar().file(".wh..", "")).contains("invalid whiteout"));
}

#[test]
fn symlinks_lead_nowhere_outside() {
    assert!(refused(tar().symlink("up", "../../outside")).contains("invalid symlink"));
    let through = refused(tar().symlink("evil", "/tmp").file("evil/pwned", "x"));
    assert!(through.contains("leads outside"), "{through}");
    let nested = refused(tar().symlink("evil", "/").dir("evil/outside/deep", 0o755));
    assert!(nested.contains("leads outside"), "{nested}");
    let whiteout = refused(tar().symlink("evil", "/etc").file("evil/.wh.passwd", ""));
    assert!(whiteout.contains("leads outside"), "{whiteout}");
    let turned = refused(
        tar()
            .dir("d", 0o755)
            .file("d/a", "x")
            .symlink("d", "/tmp")
            .file("d/b", "x"),
    );
    assert!(turned.contains("leads outside"), "{turned}");
}

#[test]
fn hard_links_stay_inside() {
    assert!(refused(tar().hard_link("h", "../../etc/passwd")).contains("invalid hardlink"));
    assert!(refused(tar().hard_link("h", "/etc/passwd")).contains("invalid hardlink"));
    let through = refused(tar().symlink("etc", "/etc").hard_link("h", "etc/passwd"));
    assert!(through.contains("invalid hardlink"), "{through}");
}

#[test]
fn symlinks_inside_the_layer_are_followed() {
    let test = store();
    let layer = tar()
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("lib/x", "inside");
    test.load(&archive("good:1", json!({}), &[layer.bytes()]))
        .unwrap();
    let inspect = test.store.inspect("good:1").unwrap();
    let diff = inspect.graph_driver.unwrap().data["UpperDir"].clone();
    assert_eq!(
        fs::read_to_string(format!("{diff}/usr/lib/x")).unwrap(),
        "inside"
    );
}

#[test]
fn later_members_replace_earlier_ones() {
    let test = store();
    let layer = tar()
        .dir("a", 0o755)
        .file("a/b", "x")
        .file("a", "now a file")
        .file("f", "1")
        .file("f", "2")
        .symlink("s", "f")
        .file("s", "not through the link");
    test.load(&archive("good:1", json!({}), &[layer.bytes()]))
        .unwrap();
    let inspect = test.store.inspect("good:1").unwrap();
    let diff = inspect.graph_driver.unwrap().data["UpperDir"].clone();
    assert_eq!(
        fs::read_to_string(format!("{diff}/a")).unwrap(),
        "now a file"
    );
    assert_eq!(fs::read_to_string(format!("{diff}/f")).unwrap(), "2");
    assert_eq!(
        fs::read_to_string(format!("{diff}/s")).unwrap(),
        "not through the link"
    );
}

#[test]
fn overlays_own_attributes_are_not_taken_from_images() {
    let test = store();
    let layer = tar()
        .pax("SCHILY.xattr.trusted.overlay.redirect", b"/../../etc")
        .dir("d", 0o755);
    test.load(&archive("good:1", json!({}), &[layer.bytes()]))
        .unwrap();
    let inspect = test.store.inspect("good:1").unwrap();
    let diff = inspect.graph_driver.unwrap().data["UpperDir"].clone();
    let mut value = [0; 16];
    let read = rustix::fs::lgetxattr(format!("{diff}/d"), "trusted.overlay.redirect", &mut value);
    assert_eq!(read, Err(rustix::io::Errno::NODATA));
}

#[test]
fn names_in_the_outer_archive_cannot_escape_either() {
    let test = store();
    for tar in [
        tar().file("../../evil", "x"),
        tar().file("/evil", "x"),
        tar().symlink("a", "../../../etc/passwd"),
        tar().hard_link("a", "../passwd"),
    ] {
        test.load(&tar.bytes()).unwrap_err();
    }
    let manifest = r#"[{"Config":"../../../../etc/passwd","Layers":[]}]"#;
    test.load(&tar().file("manifest.json", manifest).bytes())
        .unwrap_err();
    assert_eq!(test.files(), [] as [&str; 0]);
}

#[test]
fn bombs_over_the_limits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        layer_bytes: 1 << 20,
        entries: 50,
        document_bytes: 64 << 10,
    };
    let store = ImageStore::open_with(dir.path(), limits).unwrap();
    let error = |layer: Vec<u8>| {
        let image = archive("bomb:1", json!({}), &[layer]);
        store
            .load(image.as_slice(), &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    let zeros = gzip(&tar().file("zeros", vec![0; 8 << 20]).bytes());
    assert!(error(zeros).contains("larger than 1048576 bytes"));
    let mut behind = tar().file("small", "x").bytes();
    behind.resize(8 << 20, 0);
    assert!(error(gzip(&behind)).contains("larger than 1048576 bytes"));
    let many = (0..60).fold(tar(), |tar, n| tar.dir(&format!("d{n}"), 0o755));
    assert!(error(gzip(&many.bytes())).contains("more than 50 entries"));
    let long = tar().pax("comment", &vec![b'x'; 100 << 10]).file("a", "");
    assert!(error(gzip(&long.bytes())).contains("metadata is larger"));
    let manifest = tar().file("manifest.json", " ".repeat(100 << 10)).bytes();
    let error = store.load(manifest.as_slice(), &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("manifest.json is larger"),
        "{error}"
    );
    assert_eq!(store.count(), 0);
}

#[test]
fn devices_in_images_are_only_nodes() {
    let test = store();
    let layer = tar()
        .node(EntryType::Block, "disk", (8, 0))
        .node(EntryType::Char, "mem", (1, 1));
    test.load(&archive("devices:1", json!({}), &[layer.bytes()]))
        .unwrap();
}
