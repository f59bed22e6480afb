//! The device program at work on a cgroup v2 hierarchy; a hybrid host's will do. Needs root.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::sys;
use crate::cgroup::devices::program;
use crate::spec::ContainerSpec;

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn scratch(name: &str) -> Scratch {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .expect("a cgroup2 mount");
    let path = Path::new(line.split(' ').nth(4).unwrap())
        .join(format!("skep-test-{name}-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    Scratch(path)
}

/// Whether a shell in the cgroup can do it.
fn works(cgroup: &Scratch, command: &str) -> bool {
    let script = format!("echo $$ > {}/cgroup.procs && {command}", cgroup.0.display());
    Command::new("/bin/busybox")
        .args(["sh", "-c", &script])
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
fn only_what_the_rules_allow_can_be_opened() {
    let cgroup = scratch("devices");
    assert!(
        works(&cgroup, "head -c 1 /dev/zero && true < /dev/kmsg"),
        "without rules everything can"
    );
    let spec = ContainerSpec::new("/")
        .device_rule(crate::spec::device_cgroup_rule("c 10:229 r").unwrap())
        .build();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    let code = program(resources.devices().as_ref().unwrap());
    sys::attach_device_program(&code, File::open(&cgroup.0).unwrap().as_fd()).unwrap();
    for allowed in [
        "head -c 1 /dev/zero",
        "echo x > /dev/null",
        "head -c 1 /dev/urandom",
    ] {
        assert!(works(&cgroup, allowed), "{allowed}");
    }
    assert!(!works(&cgroup, "true < /dev/kmsg"), "not in the rules");
    let node = std::env::temp_dir().join(format!("skep-node-{}", std::process::id()));
    let make = format!("mknod {} c 1 11", node.display());
    assert!(
        works(&cgroup, &make),
        "nodes may be made, as everywhere in Docker"
    );
    assert!(
        !works(&cgroup, &format!("true < {}", node.display())),
        "but not opened"
    );
    std::fs::remove_file(node).unwrap();
}

#[test]
fn a_privileged_containers_rules_allow_everything() {
    let cgroup = scratch("privileged");
    let spec = ContainerSpec::new("/").privileged().build();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    let code = program(resources.devices().as_ref().unwrap());
    sys::attach_device_program(&code, File::open(&cgroup.0).unwrap().as_fd()).unwrap();
    assert!(works(&cgroup, "true < /dev/kmsg"));
}

#[test]
fn partial_access_is_told_apart() {
    let cgroup = scratch("partial");
    let spec = ContainerSpec::new("/")
        .device_rule(crate::spec::device_cgroup_rule("c 1:11 r").unwrap())
        .build();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    let code = program(resources.devices().as_ref().unwrap());
    sys::attach_device_program(&code, File::open(&cgroup.0).unwrap().as_fd()).unwrap();
    assert!(works(&cgroup, "true < /dev/kmsg"));
    assert!(
        !works(&cgroup, ": >> /dev/kmsg"),
        "reading was allowed, not writing"
    );
}
