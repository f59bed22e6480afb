//! What this machine is and can do.

use std::fs;
use std::path::Path;

/// Facts that decide which limits work, and that `docker info` shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HostFacts {
    pub(crate) cgroup_v2: bool,
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) cpu_cfs: bool,
    pub(crate) cpu_shares: bool,
    pub(crate) cpuset: bool,
    pub(crate) pids: bool,
    pub(crate) blkio: bool,
    /// "0-3"
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    pub(crate) cpus: i64,
    pub(crate) memory_total: i64,
    pub(crate) kernel: String,
    pub(crate) architecture: String,
    pub(crate) operating_system: String,
    pub(crate) os_version: String,
    pub(crate) apparmor: bool,
}

impl HostFacts {
    /// Looks at the machine.
    pub(crate) fn read() -> Self {
        let uname = rustix::system::uname();
        let v2 = matches!(
            skep_runtime::cgroup::host_version(),
            skep_runtime::cgroup::CgroupVersion::V2
        );
        let (operating_system, os_version) = os_release();
        let mut facts = Self {
            cgroup_v2: v2,
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| i64::try_from(count.get()).unwrap_or(1)),
            memory_total: memory_total(),
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            operating_system,
            os_version,
            apparmor: apparmor(),
            ..Self::default()
        };
        if v2 {
            facts.read_v2(Path::new("/sys/fs/cgroup"));
        } else {
            facts.read_v1(Path::new("/sys/fs/cgroup"));
        }
        facts
    }

    fn read_v2(&mut self, root: &Path) {
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &str| {
            controllers
                .split_whitespace()
                .any(|controller| controller == name)
        };
        self.memory = has("memory");
        // The root cgroup has no memory.swap.max; the kernel says elsewhere whether swap is accounted.
        self.swap = self.memory && Path::new("/proc/swaps").exists();
        self.cpu_cfs = has("cpu");
        self.cpu_shares = has("cpu");
        self.cpuset = has("cpuset");
        self.pids = has("pids");
        self.blkio = has("io");
        self.cpuset_cpus = trimmed(&root.join("cpuset.cpus.effective"));
        self.cpuset_mems = trimmed(&root.join("cpuset.mems.effective"));
    }

    fn read_v1(&mut self, root: &Path) {
        self.memory = root.join("memory/memory.limit_in_bytes").exists();
        self.swap = root.join("memory/memory.memsw.limit_in_bytes").exists();
        self.cpu_cfs = root.join("cpu/cpu.cfs_quota_us").exists();
        self.cpu_shares = root.join("cpu/cpu.shares").exists();
        self.cpuset = root.join("cpuset/cpuset.cpus").exists();
        self.pids = root.join("pids").is_dir();
        self.blkio = root.join("blkio").is_dir();
        self.cpuset_cpus = trimmed(&root.join("cpuset/cpuset.cpus"));
        self.cpuset_mems = trimmed(&root.join("cpuset/cpuset.mems"));
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            memory: true,
            swap: true,
            cpu_cfs: true,
            cpu_shares: true,
            cpuset: true,
            pids: true,
            blkio: true,
            cpuset_cpus: "0-1".to_owned(),
            cpuset_mems: "0".to_owned(),
            cpus: 2,
            memory_total: 8 << 30,
            ..Self::default()
        }
    }
}

fn trimmed(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn memory_total() -> i64 {
    fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<i64>()
                .ok()
        })
        .map_or(0, |kilobytes| kilobytes * 1024)
}

/// PRETTY_NAME and VERSION_ID.
fn os_release() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    let pretty = field("PRETTY_NAME");
    (
        if pretty.is_empty() {
            "Linux".to_owned()
        } else {
            pretty
        },
        field("VERSION_ID"),
    )
}

pub(crate) fn apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
        && Path::new("/sys/kernel/security/apparmor").exists()
}

/// Go's name for the processor, as images and `docker version` use it.
pub(crate) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Whether the kernel knows this profile.
pub(crate) fn apparmor_profile_loaded(name: &str) -> bool {
    fs::read_to_string("/sys/kernel/security/apparmor/profiles").is_ok_and(|text| {
        text.lines()
            .any(|line| line.split(' ').next() == Some(name))
    })
}
