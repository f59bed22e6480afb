//! Which directories are a process's cgroups.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, CgroupVersion};

pub(super) fn host_version() -> CgroupVersion {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    match nix::sys::statfs::statfs("/sys/fs/cgroup") {
        Ok(information) if information.filesystem_type().0 == CGROUP2_SUPER_MAGIC => {
            CgroupVersion::V2
        }
        _ => CgroupVersion::V1,
    }
}

pub(super) fn of_process(pid: i32, name: &str) -> io::Result<Cgroup> {
    let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(locate(&membership, &mounts, name, host_version()))
}

/// The file that lists the processes of a cgroup in which this process is, in whichever hierarchy.
pub(super) fn own_processes() -> io::Result<Option<PathBuf>> {
    let membership = std::fs::read_to_string("/proc/self/cgroup")?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(processes_of(&membership, &mounts).filter(|path| path.exists()))
}

fn processes_of(membership: &str, mountinfo: &str) -> Option<PathBuf> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let controller = controllers.split(',').next()?;
        let mount = mounts.iter().find(|mount| mount.holds(controller))?;
        Some(mount.directory_of(path)?.join("cgroup.procs"))
    })
}

/// Mounts of v1 hierarchies that have controllers: where they are, and what they control.
pub(super) fn v1_hierarchies(mountinfo: &str) -> Vec<(PathBuf, Vec<String>)> {
    let is_controller = |option: &&str| {
        !option.contains('=')
            && !matches!(*option, "rw" | "ro" | "xattr" | "none" | "clone_children")
    };
    mountinfo
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| !mount.v2)
        .map(|mount| {
            let controllers = mount
                .options
                .split(',')
                .filter(is_controller)
                .map(str::to_owned);
            (PathBuf::from(mount.target), controllers.collect::<Vec<_>>())
        })
        .filter(|(_, controllers)| !controllers.is_empty())
        .collect()
}

fn locate(membership: &str, mountinfo: &str, name: &str, version: CgroupVersion) -> Cgroup {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    let mut paths = BTreeMap::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        // On a hybrid host the v2 hierarchy has no controllers and nobody makes a cgroup there.
        let of_this_version = controllers.is_empty() == (version == CgroupVersion::V2);
        if !of_this_version || Path::new(path).file_name() != Some(name.as_ref()) {
            continue;
        }
        for controller in controllers.split(',') {
            let found = mounts.iter().find(|mount| mount.holds(controller));
            if let Some(directory) = found.and_then(|mount| mount.directory_of(path)) {
                paths.insert(controller.trim_start_matches("name=").to_owned(), directory);
            }
        }
    }
    Cgroup { version, paths }
}

/// One cgroup mount of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    target: &'a str,
    v2: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, target) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let v2 = match after.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Self {
            root,
            target,
            v2,
            options: after.nth(1)?,
        })
    }

    fn holds(&self, controller: &str) -> bool {
        if controller.is_empty() {
            self.v2
        } else {
            !self.v2 && self.options.split(',').any(|option| option == controller)
        }
    }

    /// Where `path` of the hierarchy is below this mount; a mount may show a part of it only, as in
    /// a container that runs a daemon of its own.
    fn directory_of(&self, path: &str) -> Option<PathBuf> {
        let relative = Path::new(path).strip_prefix(self.root).ok()?;
        Some(Path::new(self.target).join(relative))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
31 25 0:27 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
33 25 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn finds_the_containers_cgroups_and_never_an_ancestors() {
        let membership = "5:name=systemd:/\n4:memory:/docker/abc\n3:cpu:/docker/abc\n0::/\n";
        let cgroup = locate(membership, MOUNTS, "abc", CgroupVersion::V1);
        let expected = [
            ("cpu", "/sys/fs/cgroup/cpu/docker/abc"),
            ("memory", "/sys/fs/cgroup/memory/docker/abc"),
        ];
        let found: Vec<_> = cgroup
            .paths
            .iter()
            .map(|(key, path)| (key.as_str(), path.to_str().unwrap()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_own_cgroup_is_found_in_any_hierarchy() {
        let of = |membership| processes_of(membership, MOUNTS).unwrap();
        assert_eq!(
            of("9:gone:/x\n4:memory:/a/b\n0::/\n"),
            Path::new("/sys/fs/cgroup/memory/a/b/cgroup.procs")
        );
        assert_eq!(
            of("0::/service\n"),
            Path::new("/sys/fs/cgroup/unified/service/cgroup.procs")
        );
        assert_eq!(processes_of("0::/\n", ""), None);
    }

    #[test]
    fn named_hierarchies_control_nothing() {
        let found = v1_hierarchies(MOUNTS);
        let names: Vec<_> = found
            .iter()
            .flat_map(|(_, controllers)| controllers)
            .collect();
        assert_eq!(names, ["cpu", "memory"]);
    }

    #[test]
    fn a_mount_that_shows_a_part_of_the_hierarchy_is_understood() {
        let mounts = "33 25 0:29 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let cgroup = locate("0::/outer/docker/abc\n", mounts, "abc", CgroupVersion::V2);
        assert_eq!(
            cgroup.directory("memory"),
            Some(Path::new("/sys/fs/cgroup/docker/abc"))
        );
    }
}
