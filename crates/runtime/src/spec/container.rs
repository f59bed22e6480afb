//! The builder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType,
    LinuxResources, Mount, PosixRlimit, Process, Spec, User,
};
use serde_json::{Value, json};

use super::{SpecError, available_capabilities, devices, tweak_capabilities};
use crate::cgroup::{CgroupVersion, host_version};

/// A container's spec in the making; starts as Docker's default.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    spec: Spec,
    capabilities: Vec<String>,
    privileged: bool,
    devices: Vec<LinuxDevice>,
    device_rules: Vec<LinuxDeviceCgroup>,
    mounts: Vec<Mount>,
    writable_cgroups: bool,
}

/// Which namespace of a kind a container lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// One of its own.
    Private,
    /// The daemon's, that is normally the host's.
    Host,
    /// An existing one, such as `/proc/1234/ns/ipc` or what `networks.sandbox()` returns.
    Path(PathBuf),
}

/// A mount from its parts.
pub fn mount(destination: impl AsRef<Path>, typ: &str, source: &str, options: &[&str]) -> Mount {
    serde_json::from_value(json!({
        "destination": destination.as_ref(),
        "type": typ,
        "source": source,
        "options": options,
    }))
    .expect("a mount of strings is a mount")
}

impl ContainerSpec {
    /// Docker's default for a container whose root file system is mounted at `rootfs`.
    pub fn new(rootfs: impl AsRef<Path>) -> Self {
        let spec = serde_json::from_value(default_spec(rootfs.as_ref(), host_version()))
            .expect("the default spec is a spec");
        Self {
            spec,
            capabilities: super::DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            privileged: false,
            devices: Vec::new(),
            device_rules: Vec::new(),
            mounts: Vec::new(),
            writable_cgroups: false,
        }
    }

    /// All capabilities that there are to give, all devices, nothing masked or read-only. The caller
    /// chooses [`crate::SeccompProfile::Unconfined`], as Docker does.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self.writable_cgroups = true;
        self.capabilities = available_capabilities()
            .into_iter()
            .map(str::to_owned)
            .collect();
        self.devices = devices::host_devices(Path::new("/dev"));
        let linux = self.linux();
        linux.set_masked_paths(None);
        linux.set_readonly_paths(None);
        self
    }

    /// `--cap-add`, `--cap-drop`. No effect on a privileged container, as in Docker.
    pub fn capabilities<S: AsRef<str>>(mut self, add: &[S], drop: &[S]) -> Result<Self, SpecError> {
        let tweaked = tweak_capabilities(add, drop)?;
        if !self.privileged {
            self.capabilities = tweaked;
        }
        Ok(self)
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, args: I) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        self.process().set_args(Some(args));
        self
    }

    /// `KEY=value` entries, complete: nothing is added, not even a `PATH`.
    #[must_use]
    pub fn env<I: IntoIterator<Item = S>, S: Into<String>>(mut self, env: I) -> Self {
        let env = env.into_iter().map(Into::into).collect();
        self.process().set_env(Some(env));
        self
    }

    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.process().set_cwd(cwd.into());
        self
    }

    /// The ids the process runs with.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32, additional_gids: Vec<u32>) -> Self {
        let mut user = User::default();
        user.set_uid(uid);
        user.set_gid(gid);
        user.set_additional_gids(Some(additional_gids));
        self.process().set_user(user);
        self
    }

    /// Initial size of the terminal.
    #[must_use]
    pub fn console_size(mut self, rows: u16, columns: u16) -> Self {
        let size = serde_json::from_value(json!({ "height": rows, "width": columns }));
        self.process().set_console_size(size.ok());
        self
    }

    #[must_use]
    pub fn no_new_privileges(mut self, wanted: bool) -> Self {
        // Presence alone counts for a yes in some runtimes.
        self.process().set_no_new_privileges(wanted.then_some(true));
        self
    }

    #[must_use]
    pub fn apparmor_profile(mut self, profile: Option<String>) -> Self {
        self.process().set_apparmor_profile(profile);
        self
    }

    #[must_use]
    pub fn oom_score_adj(mut self, adjustment: i32) -> Self {
        self.process().set_oom_score_adj(Some(adjustment));
        self
    }

    #[must_use]
    pub fn rlimits(mut self, rlimits: Vec<PosixRlimit>) -> Self {
        self.process().set_rlimits(Some(rlimits));
        self
    }

    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.spec.set_hostname(Some(name.into()));
        self
    }

    #[must_use]
    pub fn domainname(mut self, name: impl Into<String>) -> Self {
        self.spec.set_domainname(Some(name.into()));
        self
    }

    #[must_use]
    pub fn readonly_rootfs(mut self, readonly: bool) -> Self {
        if let Some(root) = self.spec.root_mut() {
            root.set_readonly(Some(readonly));
        }
        self
    }

    /// Absolute below each hierarchy's root (`/docker/<id>`), or `slice:prefix:name` with the systemd
    /// driver.
    #[must_use]
    pub fn cgroups_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.linux().set_cgroups_path(Some(path.into()));
        self
    }

    #[must_use]
    pub fn namespace(mut self, kind: LinuxNamespaceType, which: Namespace) -> Self {
        let linux = self.linux();
        let mut all = linux.namespaces().clone().unwrap_or_default();
        all.retain(|namespace| namespace.typ() != kind);
        if which != Namespace::Host {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            if let Namespace::Path(path) = which {
                namespace.set_path(Some(path));
            }
            all.push(namespace);
        }
        linux.set_namespaces(Some(all));
        self
    }

    #[must_use]
    pub fn sysctls(mut self, sysctls: HashMap<String, String>) -> Self {
        self.linux().set_sysctl(Some(sysctls));
        self
    }

    /// Replaces the resources; device rules are kept apart and stay.
    #[must_use]
    pub fn resources(mut self, resources: LinuxResources) -> Self {
        self.linux().set_resources(Some(resources));
        self
    }

    #[must_use]
    pub fn masked_paths(mut self, paths: Vec<String>) -> Self {
        self.linux().set_masked_paths(Some(paths));
        self
    }

    #[must_use]
    pub fn readonly_paths(mut self, paths: Vec<String>) -> Self {
        self.linux().set_readonly_paths(Some(paths));
        self
    }

    /// One more mount; one of Docker's own for the same place gives way.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts
            .retain(|other| other.destination() != mount.destination());
        self.mounts.push(mount);
        self
    }

    /// Bytes of `/dev/shm`.
    #[must_use]
    pub fn shm_size(self, bytes: i64) -> Self {
        let size = format!("size={bytes}");
        let options = ["nosuid", "noexec", "nodev", "mode=1777", &size];
        self.mount(mount("/dev/shm", "tmpfs", "shm", &options))
    }

    /// A node in the container and the rule that lets it be used.
    #[must_use]
    pub fn device(mut self, device: LinuxDevice, rule: LinuxDeviceCgroup) -> Self {
        self.devices.retain(|other| other.path() != device.path());
        self.devices.push(device);
        self.device_rules.push(rule);
        self
    }

    #[must_use]
    pub fn device_rule(mut self, rule: LinuxDeviceCgroup) -> Self {
        self.device_rules.push(rule);
        self
    }

    /// What this builder has no method for. Capabilities, devices, device rules and added mounts are
    /// put in later, by [`Self::build`].
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    pub fn build(mut self) -> Spec {
        self.place_capabilities();
        self.place_mounts();
        let mut rules = if self.privileged {
            vec![allow_all()]
        } else {
            default_rules()
        };
        rules.append(&mut self.device_rules);
        let nodes = std::mem::take(&mut self.devices);
        let linux = self.linux();
        linux.set_devices(Some(nodes));
        let mut resources = linux.resources().clone().unwrap_or_default();
        resources.set_devices(Some(rules));
        linux.set_resources(Some(resources));
        self.spec
    }

    /// A process that is not root starts with nothing but a bounding set: what `execve` would leave it.
    fn place_capabilities(&mut self) {
        let root = self.process().user().uid() == 0;
        let all = json!(self.capabilities);
        let none = Value::Null;
        let active = if root { &all } else { &none };
        let sets = serde_json::from_value(json!({
            "bounding": all, "effective": active, "permitted": active,
            "inheritable": none, "ambient": none,
        }));
        self.process().set_capabilities(sets.ok());
    }

    fn place_mounts(&mut self) {
        let mut added = std::mem::take(&mut self.mounts);
        let writable = self.writable_cgroups;
        let private_ipc = self.has_namespace(LinuxNamespaceType::Ipc);
        let mut mounts = self.spec.mounts().clone().unwrap_or_default();
        mounts.retain(|default| {
            let replaced = added
                .iter()
                .any(|mount| mount.destination() == default.destination());
            // Without an IPC namespace of its own the kernel refuses a new mqueue.
            let impossible = !private_ipc && default.destination() == Path::new("/dev/mqueue");
            !replaced && !impossible
        });
        for mount in &mut mounts {
            let kind = mount.typ().clone().unwrap_or_default();
            if writable && (kind == "sysfs" || kind == "cgroup") {
                let options = mount.options().clone().unwrap_or_default();
                mount.set_options(Some(
                    options
                        .into_iter()
                        .filter(|option| option != "ro")
                        .collect(),
                ));
            }
        }
        // Parents before children; otherwise the order given.
        added.sort_by_key(|mount| mount.destination().components().count());
        mounts.extend(added);
        self.spec.set_mounts(Some(mounts));
    }

    fn has_namespace(&self, kind: LinuxNamespaceType) -> bool {
        let namespaces = self
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.namespaces().as_ref());
        namespaces.is_some_and(|all| all.iter().any(|namespace| namespace.typ() == kind))
    }

    fn process(&mut self) -> &mut Process {
        self.spec
            .process_mut()
            .as_mut()
            .expect("the default spec has a process and nobody removes it")
    }

    fn linux(&mut self) -> &mut Linux {
        self.spec
            .linux_mut()
            .as_mut()
            .expect("the default spec has a linux part and nobody removes it")
    }
}

fn allow_all() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(LinuxDeviceType::A));
    rule.set_access(Some("rwm".to_owned()));
    rule
}

/// Nothing but null, zero, full, random, urandom, tty, console; the runtime adds ptmx and pts.
fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let mut deny_all = allow_all();
    deny_all.set_allow(false);
    let mut rules = vec![deny_all];
    for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
        rules.push(devices::rule(
            LinuxDeviceType::C,
            Some(major),
            Some(minor),
            "rwm",
        ));
    }
    let mut fuse = devices::rule(LinuxDeviceType::C, Some(10), Some(229), "rwm");
    fuse.set_allow(false);
    rules.push(fuse);
    rules
}

fn default_spec(rootfs: &Path, version: CgroupVersion) -> Value {
    let mut namespaces = vec!["mount", "network", "uts", "pid", "ipc"];
    if version == CgroupVersion::V2 {
        // Docker's default: a cgroup namespace of its own on v2, the host's on v1.
        namespaces.push("cgroup");
    }
    let namespaces: Vec<Value> = namespaces
        .into_iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    let shm = format!("size={}", super::DEFAULT_SHM_SIZE);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": [],
            "cwd": "/",
        },
        "root": { "path": rootfs, "readonly": false },
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {},
            "devices": [],
            "maskedPaths": masked_paths(),
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Docker's list: what would tell a container too much about the machine, or about others on it.
fn masked_paths() -> Vec<String> {
    const ALWAYS: [&str; 12] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    let mut paths = ALWAYS.map(str::to_owned).to_vec();
    let cpus = std::fs::read_dir("/sys/devices/system/cpu")
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    paths.extend(
        cpus.map(|cpu| cpu.path().join("thermal_throttle"))
            .filter(|path| path.exists())
            .map(|path| path.to_string_lossy().into_owned()),
    );
    paths
}
