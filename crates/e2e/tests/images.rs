//! Images: load, list, tag, save, import, remove.

use std::io::Write as _;

use serde_json::Value;
use skep_testkit::Daemon;

#[test]
fn list_inspect_history_and_tag() {
    let daemon = Daemon::start();
    assert_eq!(
        daemon
            .docker()
            .run(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
            .ok(),
        "busybox:latest"
    );
    let image: Value = serde_json::from_str(&daemon.ok("image inspect busybox")).unwrap();
    assert!(image[0]["Id"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(image[0]["Os"], "linux");
    assert!(!daemon.ok("history -q busybox").is_empty());
    daemon.ok("tag busybox other/name:v2");
    let names = daemon
        .docker()
        .run(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .ok();
    assert_eq!(names.lines().count(), 2, "{names}");
    assert_eq!(daemon.ok("rmi other/name:v2"), "Untagged: other/name:v2");
    assert_eq!(daemon.ok("run --rm busybox echo still"), "still");
}

#[test]
fn save_and_load_bring_an_image_back() {
    let daemon = Daemon::start();
    let id = daemon.ok("images -q --no-trunc busybox");
    let file = daemon.scratch().join("saved.tar").display().to_string();
    daemon.ok(&format!("save -o {file} busybox"));
    let removed = daemon.ok("rmi busybox");
    assert!(
        removed.contains("Untagged: busybox:latest") && removed.contains("Deleted: sha256:"),
        "{removed}"
    );
    assert_eq!(daemon.ok("images -q"), "");
    assert_eq!(
        daemon.ok(&format!("load -i {file}")),
        "Loaded image: busybox:latest"
    );
    assert_eq!(daemon.ok("images -q --no-trunc busybox"), id);
    assert_eq!(daemon.ok("run --rm busybox echo back"), "back");
}

#[test]
fn import_makes_an_image_of_a_tree() {
    let daemon = Daemon::start();
    daemon.ok("run --name cc busybox touch /mark");
    let file = daemon.scratch().join("tree.tar").display().to_string();
    daemon.ok(&format!("export -o {file} cc"));
    let id = daemon
        .docker()
        .run([
            "import",
            "--change",
            "CMD [\"ls\",\"/mark\"]",
            &file,
            "flat:1",
        ])
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(daemon.ok("run --rm flat:1"), "/mark");
}

#[test]
fn an_image_in_use_is_kept() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name cc busybox sleep 1000");
    let error = daemon.sh("rmi busybox").fails_with(1);
    assert!(
        error.contains("conflict: unable to remove repository reference \"busybox\""),
        "{error}"
    );
    daemon.ok("rm -f cc");
    daemon.ok("rmi busybox");
}

#[test]
fn prune_removes_what_no_name_holds() {
    let daemon = Daemon::start();
    daemon.ok("tag busybox keep");
    daemon.ok("run --name cc busybox touch /x");
    let file = daemon.scratch().join("tree.tar").display().to_string();
    daemon.ok(&format!("export -o {file} cc"));
    let id = daemon.ok(&format!("import {file}"));
    let pruned = daemon.ok("image prune -f");
    assert!(pruned.contains(&id), "{pruned}");
    assert_eq!(daemon.ok("images -q").lines().count(), 2);
}

#[test]
fn what_is_no_image_is_refused_and_leaves_nothing() {
    let daemon = Daemon::start();
    let before = blobs(&daemon);
    let junk = daemon.scratch().join("junk.tar");
    std::fs::File::create(&junk)
        .unwrap()
        .write_all(&vec![7; 20_000])
        .unwrap();
    assert_ne!(daemon.sh(&format!("load -i {}", junk.display())).code, 0);

    let hostile = daemon.scratch().join("hostile.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&hostile).unwrap());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..16].copy_from_slice(b"../../etc/escape");
    header.set_size(0);
    header.set_cksum();
    tar.append(&header, std::io::empty()).unwrap();
    tar.finish().unwrap();
    assert_ne!(daemon.sh(&format!("load -i {}", hostile.display())).code, 0);
    assert_eq!(blobs(&daemon), before, "nothing half-made is left");
    let error = daemon.sh("run --rm no-such-image true").fails_with(125);
    assert!(error.contains("no-such-image"), "{error}");
    let error = daemon.sh("run --rm Upper/Case true").fails_with(125);
    assert!(error.contains("must be lowercase"), "{error}");
}

fn blobs(daemon: &Daemon) -> usize {
    fn count(directory: &std::path::Path) -> usize {
        std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    count(&entry.path())
                } else {
                    1
                }
            })
            .sum()
    }
    count(&daemon.data_root().join("image"))
}
