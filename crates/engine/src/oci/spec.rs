//! Putting a container's spec together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard_stubs::models as m;
use serde_json::json;
use skep_runtime::oci_spec::runtime::{PosixRlimit, Spec};
use skep_runtime::spec::ContainerSpec;

use super::namespaces::{self, Joined};
use super::{ResolvedUser, devices, environment, mounts, resources};
use crate::container::Record;
use crate::error::{EngineError, Result};

/// Everything a spec depends on.
pub(crate) struct SpecInput<'a> {
    pub(crate) record: &'a Record,
    /// Mounted.
    pub(crate) rootfs: &'a Path,
    /// The container's directory, with its `hosts` and the others.
    pub(crate) dir: &'a Path,
    pub(crate) user: &'a ResolvedUser,
    pub(crate) joined: &'a Joined,
    /// A `/dev/shm` that is shared with other containers.
    pub(crate) shm: Option<&'a Path>,
    /// Secrets and configs: target and where they are on the host.
    pub(crate) task_files: &'a [(String, PathBuf)],
    pub(crate) cgroup_parent: Option<&'a str>,
    pub(crate) default_ulimits: &'a [m::ResourcesUlimits],
    /// The init program on the host, if one shall run.
    pub(crate) init: Option<PathBuf>,
    pub(crate) apparmor: Option<String>,
    pub(crate) console_size: Option<(u16, u16)>,
    /// What `--link` says of other containers.
    pub(crate) link_variables: &'a [String],
}

/// Where the init program is inside.
const INIT: &str = "/sbin/docker-init";

/// Makes the spec.
pub(crate) fn build(input: &SpecInput<'_>) -> Result<Spec> {
    let record = input.record;
    let host = &record.host_config;
    let system = |error: skep_runtime::spec::SpecError| EngineError::system(error.to_string());

    let mut spec = ContainerSpec::new(input.rootfs);
    if host.privileged == Some(true) {
        spec = spec.privileged();
    }
    spec = spec
        .capabilities(
            host.cap_add.as_deref().unwrap_or_default(),
            host.cap_drop.as_deref().unwrap_or_default(),
        )
        .map_err(system)?;
    spec = process(spec, input);
    spec = namespaces::choose(spec, host, input.joined);
    spec = spec
        .cgroups_path(cgroup_path(record, input.cgroup_parent))
        .resources(resources::resources(host)?)
        .readonly_rootfs(host.readonly_rootfs.unwrap_or(false))
        .sysctls(sysctls(record));
    spec = devices::add(spec, host)?;
    spec = mounts::add(spec, record, input.dir, input.shm);
    for (target, source) in input.task_files {
        let source = source.display().to_string();
        spec = spec.mount(skep_runtime::spec::mount(
            target,
            "bind",
            &source,
            &["rbind", "rprivate", "ro"],
        ));
    }
    if let Some(paths) = &host.masked_paths {
        spec = spec.masked_paths(paths.clone());
    }
    if let Some(paths) = &host.readonly_paths {
        spec = spec.readonly_paths(paths.clone());
    }
    if let Some(init) = &input.init {
        let source = init.display().to_string();
        spec = spec.mount(skep_runtime::spec::mount(
            INIT,
            "bind",
            &source,
            &["bind", "ro"],
        ));
    }
    let propagation = mounts::root_propagation(record);
    let annotations: Option<HashMap<String, String>> = host.annotations.clone();
    let tty = record.tty();
    spec = spec.with(|spec| {
        if let Some(process) = spec.process_mut() {
            process.set_terminal(Some(tty));
        }
        if let (Some(linux), Some(propagation)) = (spec.linux_mut(), propagation) {
            linux.set_rootfs_propagation(Some(propagation.to_owned()));
        }
        if annotations.is_some() {
            spec.set_annotations(annotations);
        }
    });
    if record.security.writable_cgroups == Some(true) {
        spec = spec.with(writable_cgroups);
    }
    Ok(spec.build())
}

fn process(spec: ContainerSpec, input: &SpecInput<'_>) -> ContainerSpec {
    let record = input.record;
    let host = &record.host_config;
    let hostname = record.config.hostname.clone().unwrap_or_default();
    let (path, args) = record.command();
    let mut command = Vec::new();
    if input.init.is_some() {
        command.extend([INIT.to_owned(), "--".to_owned()]);
    }
    command.push(path);
    command.extend(args);
    let links = input.link_variables.to_vec();
    let mut env = environment(record.config.env.as_ref(), &hostname, record.tty(), links);
    // An empty one counts as none, as in runc.
    env.retain(|variable| variable != "HOME=");
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", input.user.home));
    }
    let cwd = record
        .config
        .working_dir
        .as_deref()
        .filter(|dir| !dir.is_empty())
        .unwrap_or("/");
    let mut spec = spec
        .args(command)
        .env(env)
        .cwd(cwd)
        .user(input.user.uid, input.user.gid, input.user.groups.clone())
        .no_new_privileges(record.security.no_new_privileges)
        .apparmor_profile(input.apparmor.clone())
        .oom_score_adj(i32::try_from(host.oom_score_adj.unwrap_or(0)).unwrap_or(0))
        .rlimits(rlimits(host, input.default_ulimits));
    // With the host's UTS namespace there is nothing to name.
    if host.uts_mode.as_deref() != Some("host") {
        spec = spec.hostname(hostname);
        if let Some(domain) = record
            .config
            .domainname
            .as_deref()
            .filter(|domain| !domain.is_empty())
        {
            spec = spec.domainname(domain);
        }
    }
    if let Some((rows, columns)) = input.console_size.filter(|_| record.tty()) {
        spec = spec.console_size(rows, columns);
    }
    spec
}

fn cgroup_path(record: &Record, daemon: Option<&str>) -> PathBuf {
    let own = record
        .host_config
        .cgroup_parent
        .as_deref()
        .filter(|parent| !parent.is_empty());
    let parent = own.or(daemon).unwrap_or("/docker");
    // Cleaned as an absolute path, so that "../.." stays below the root.
    let parent = crate::mounts::clean_path(&format!("/{parent}"));
    Path::new(&parent).join(&record.id)
}

fn sysctls(record: &Record) -> HashMap<String, String> {
    let mut sysctls = HashMap::new();
    let mode = record.network_mode();
    if mode != "host" && !mode.starts_with("container:") {
        // Ping and low ports need no privilege inside, as in Docker.
        for (key, value) in [
            ("net.ipv4.ping_group_range", "0 2147483647"),
            ("net.ipv4.ip_unprivileged_port_start", "0"),
        ] {
            if Path::new("/proc/sys").join(key.replace('.', "/")).exists() {
                sysctls.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    sysctls.extend(record.host_config.sysctls.clone().unwrap_or_default());
    sysctls
}

fn rlimits(host: &m::HostConfig, defaults: &[m::ResourcesUlimits]) -> Vec<PosixRlimit> {
    let own = host.ulimits.as_deref().unwrap_or_default();
    let missing = defaults
        .iter()
        .filter(|default| !own.iter().any(|limit| limit.name == default.name));
    own.iter()
        .chain(missing)
        .filter_map(|limit| {
            let name = limit.name.as_deref()?.to_ascii_uppercase();
            // -1 is "unlimited", which the kernel writes as the largest number.
            let number = |value: Option<i64>| value.unwrap_or(0) as u64;
            let json = json!({
                "type": format!("RLIMIT_{name}"),
                "soft": number(limit.soft),
                "hard": number(limit.hard),
            });
            serde_json::from_value(json).ok()
        })
        .collect()
}

fn writable_cgroups(spec: &mut Spec) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in mounts
        .iter_mut()
        .filter(|mount| mount.typ().as_deref() == Some("cgroup"))
    {
        let options = mount.options().clone().unwrap_or_default();
        mount.set_options(Some(
            options
                .into_iter()
                .filter(|option| option != "ro")
                .collect(),
        ));
    }
    spec.set_mounts(Some(mounts));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    fn spec_of(record: &Record) -> serde_json::Value {
        let user = ResolvedUser {
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: "/root".to_owned(),
        };
        let input = SpecInput {
            record,
            rootfs: Path::new("/rootfs"),
            dir: Path::new("/data/c"),
            user: &user,
            joined: &Joined::default(),
            shm: None,
            task_files: &[],
            cgroup_parent: None,
            default_ulimits: &[],
            init: None,
            apparmor: None,
            console_size: None,
            link_variables: &[],
        };
        serde_json::to_value(build(&input).unwrap()).unwrap()
    }

    #[test]
    fn a_plain_container() {
        let spec = spec_of(&record());
        assert_eq!(spec["process"]["args"], json!(["true"]));
        assert_eq!(spec["hostname"], "box");
        assert_eq!(spec["process"]["env"][1], "HOSTNAME=box");
        assert_eq!(spec["process"]["env"][2], "HOME=/root");
        assert_eq!(
            spec["linux"]["cgroupsPath"],
            format!("/docker/{}", "a".repeat(64))
        );
        let hosts = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["destination"] == "/etc/hosts")
            .unwrap();
        assert_eq!(hosts["source"], "/data/c/hosts");
    }

    #[test]
    fn limits_and_ulimits_reach_the_spec() {
        let mut record = record();
        record.host_config.memory = Some(64 << 20);
        record.host_config.ulimits = Some(vec![m::ResourcesUlimits {
            name: Some("nofile".to_owned()),
            soft: Some(10),
            hard: Some(20),
        }]);
        let spec = spec_of(&record);
        assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 64 << 20);
        assert_eq!(
            spec["process"]["rlimits"],
            json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }])
        );
    }

    #[test]
    fn cgroup_parents_cannot_climb() {
        let mut record = record();
        record.host_config.cgroup_parent = Some("../../x".to_owned());
        assert_eq!(cgroup_path(&record, None), Path::new("/x").join(&record.id));
    }

    #[test]
    fn host_modes_leave_namespaces_out() {
        let mut record = record();
        record.host_config.network_mode = Some("host".to_owned());
        record.host_config.pid_mode = Some("host".to_owned());
        let spec = spec_of(&record);
        let kinds: Vec<_> = spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ns| ns["type"].as_str().unwrap())
            .collect();
        assert!(
            !kinds.contains(&"network") && !kinds.contains(&"pid"),
            "{kinds:?}"
        );
    }
}
