use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::kit::{TestStore, archive, store, tar};
use crate::{CommitOptions, ErrorKind, ImageUser, RemoveOptions, Rootfs, RunConfig};

fn two_layers(test: &TestStore) {
    let base = tar()
        .dir("./", 0o751)
        .dir("etc", 0o750)
        .file("etc/hosts", "from the image")
        .file("etc/gone", "x")
        .dir("opaque", 0o755)
        .file("opaque/below", "x")
        .file("same", "base");
    let top = tar()
        .dir("etc", 0o750)
        .file("etc/.wh.gone", "")
        .dir("opaque", 0o755)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/above", "x")
        .file("same", "top");
    test.load(&archive("app:1", json!({}), &[base.bytes(), top.bytes()]))
        .unwrap();
}

/// Unmounts even when an assertion failed, so that the directory can go.
struct Mounted(Rootfs);

impl Drop for Mounted {
    fn drop(&mut self) {
        self.0.remove().unwrap();
    }
}

fn mounted(test: &TestStore, id: &str) -> Mounted {
    let rootfs = test
        .store
        .rootfs(&test.store.get("app:1").unwrap(), id)
        .unwrap();
    let mounted = Mounted(rootfs);
    mounted.0.mount().unwrap();
    mounted
}

fn shown(rootfs: &Rootfs) -> Vec<String> {
    let changes = rootfs.changes().unwrap();
    changes
        .iter()
        .map(|c| format!("{} {}", c.kind as u8, c.path))
        .collect()
}

#[test]
fn a_container_sees_all_layers_and_dockers_placeholders() {
    let test = store();
    two_layers(&test);
    let mounted = mounted(&test, "c1");
    let root = mounted.0.merged();
    assert_eq!(fs::read_to_string(root.join("same")).unwrap(), "top");
    assert!(!root.join("etc/gone").exists());
    assert!(!root.join("opaque/below").exists() && root.join("opaque/above").exists());
    assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "");
    for path in [
        ".dockerenv",
        "dev/console",
        "etc/resolv.conf",
        "etc/hostname",
        "dev/shm",
        "proc",
    ] {
        assert!(root.join(path).exists(), "{path}");
    }
    assert_eq!(
        fs::read_link(root.join("etc/mtab")).unwrap().to_str(),
        Some("/proc/mounts")
    );
    assert_eq!(
        fs::metadata(root.join("etc")).unwrap().mode() & 0o777,
        0o750
    );
    assert_eq!(fs::metadata(root).unwrap().mode() & 0o777, 0o751);
    assert_eq!(shown(&mounted.0), [] as [&str; 0]);
    assert_eq!(mounted.0.size_rw().unwrap(), 0);
}

#[test]
fn changes_are_told_as_docker_diff_tells_them() {
    let test = store();
    two_layers(&test);
    let mounted = mounted(&test, "c1");
    let root = mounted.0.merged();
    fs::write(root.join("etc/new"), "12345").unwrap();
    fs::remove_file(root.join("same")).unwrap();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::set_permissions(root.join("opaque/above"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        shown(&mounted.0),
        [
            "1 /a",
            "1 /a/b",
            "0 /etc",
            "1 /etc/new",
            "0 /opaque",
            "0 /opaque/above",
            "2 /same"
        ]
    );
    assert_eq!(mounted.0.size_rw().unwrap(), 6);
}

#[test]
fn a_mount_survives_the_daemon_and_is_found_again() {
    let test = store();
    two_layers(&test);
    {
        let rootfs = test
            .store
            .rootfs(&test.store.get("app:1").unwrap(), "c1")
            .unwrap();
        fs::write(rootfs.mount().unwrap().join("kept"), "x").unwrap();
    }
    let test = test.reopen();
    assert_eq!(test.store.rootfs_ids(), ["c1"]);
    let again = Mounted(test.store.open_rootfs("c1").unwrap());
    assert!(again.0.is_mounted().unwrap());
    again.0.mount().unwrap();
    assert_eq!(
        fs::read_to_string(again.0.merged().join("kept")).unwrap(),
        "x"
    );
    again.0.unmount().unwrap();
    again.0.unmount().unwrap();
    assert!(!again.0.is_mounted().unwrap());
    again.0.mount().unwrap();
    assert!(again.0.merged().join("kept").exists());
}

#[test]
fn layers_stay_until_the_last_container_on_them_is_gone() {
    let test = store();
    two_layers(&test);
    let image = test.store.get("app:1").unwrap();
    let rootfs = test.store.rootfs(&image, "c1").unwrap();
    let user = ImageUser {
        container_id: "c1".into(),
        image: image.id().clone(),
        running: false,
    };
    let force = RemoveOptions {
        force: true,
        no_prune: false,
    };
    let removed = test.store.remove("app:1", force, &[user]).unwrap();
    assert_eq!(removed.reclaimed, 0);
    drop(rootfs);
    let test = test.reopen();
    let rootfs_again = test.store.open_rootfs("c1").unwrap();
    rootfs_again.mount().unwrap();
    assert_eq!(
        fs::read_to_string(rootfs_again.merged().join("same")).unwrap(),
        "top"
    );
    rootfs_again.remove().unwrap();
    assert_eq!(test.files(), [] as [&str; 0]);
    assert_eq!(
        test.store.open_rootfs("c1").err().unwrap().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn more_than_a_hundred_layers_can_be_mounted() {
    let test = store();
    let layers: Vec<_> = (0..120)
        .map(|n| tar().file(&format!("f{n}"), n.to_string()).bytes())
        .collect();
    test.load(&archive("app:1", json!({}), &layers)).unwrap();
    let mounted = mounted(&test, &"c".repeat(64));
    assert_eq!(
        fs::read_to_string(mounted.0.merged().join("f0")).unwrap(),
        "0"
    );
    assert_eq!(
        fs::read_to_string(mounted.0.merged().join("f119")).unwrap(),
        "119"
    );
}

#[test]
fn an_image_without_layers_still_gives_a_root() {
    let test = store();
    test.load(&archive("app:1", json!({}), &[])).unwrap();
    let mounted = mounted(&test, "c1");
    assert!(mounted.0.merged().join("etc/hosts").exists());
}

#[test]
fn a_commit_makes_an_image_of_what_changed() {
    let test = store();
    two_layers(&test);
    let mounted = mounted(&test, "c1");
    let root = mounted.0.merged();
    fs::write(root.join("new"), "n").unwrap();
    fs::hard_link(root.join("new"), root.join("new2")).unwrap();
    fs::remove_file(root.join("same")).unwrap();
    fs::remove_dir_all(root.join("opaque")).unwrap();
    fs::create_dir(root.join("opaque")).unwrap();
    let image = test.store.get("app:1").unwrap();
    let options = CommitOptions {
        parent: Some(image.id().clone()),
        reference: Some("committed:1".parse().unwrap()),
        comment: "c".into(),
        config: RunConfig::default(),
        changes: vec!["CMD [\"x\"]".into()],
        ..CommitOptions::default()
    };
    let id = test.store.commit(&mounted.0, options).unwrap();
    let committed = test.store.by_id(&id).unwrap();
    assert_eq!(committed.parent(), Some(image.id()));
    assert_eq!(
        committed.run_config().unwrap().cmd.as_deref(),
        Some(&["x".to_owned()][..])
    );
    let other = Mounted(test.store.rootfs(&committed, "c2").unwrap());
    other.0.mount().unwrap();
    let root = other.0.merged();
    assert_eq!(fs::read_to_string(root.join("new")).unwrap(), "n");
    assert_eq!(fs::metadata(root.join("new")).unwrap().nlink(), 2);
    assert!(!root.join("same").exists());
    assert_eq!(fs::read_dir(root.join("opaque")).unwrap().count(), 0);
    let history = test.store.history("committed:1").unwrap();
    assert_eq!(
        (history[0].comment.as_str(), history[0].id.as_str()),
        ("c", id.as_str())
    );
}

#[test]
fn an_export_is_the_whole_tree() {
    let test = store();
    two_layers(&test);
    let mounted = mounted(&test, "c1");
    let mut bytes = Vec::new();
    mounted.0.export(&mut bytes).unwrap();
    let mut tar = tar::Archive::new(bytes.as_slice());
    let names: Vec<_> = tar
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(names.contains(&"same".to_owned()) && names.contains(&"etc/mtab".to_owned()));
    assert!(!names.iter().any(|name| name.contains(".wh.")), "{names:?}");
}

#[test]
fn mounting_takes_about_a_tenth_of_a_millisecond() {
    let test = store();
    two_layers(&test);
    let mounted = mounted(&test, "c1");
    let mut best = std::time::Duration::MAX;
    for _ in 0..20 {
        mounted.0.unmount().unwrap();
        let start = std::time::Instant::now();
        mounted.0.mount().unwrap();
        best = best.min(start.elapsed());
    }
    // Generous: the machine may be busy, but a spawned process would take longer.
    assert!(best < std::time::Duration::from_millis(5), "{best:?}");
    eprintln!("mount: {best:?}");
}
