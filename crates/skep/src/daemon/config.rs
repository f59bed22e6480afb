//! From settings (names and JSON) to the engine's typed configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bollard_stubs::models as m;
use serde_json::Value;
use skep_engine::{
    EngineConfig, NetworkOptions, OciRuntime, ProxyConfig, RegistrySettings, ReloadableConfig,
    check_mirror,
};

use super::settings::Settings;

/// Names of the runtime that is built in: Docker's name for the default, and its own.
const BUILT_IN_RUNTIMES: &[&str] = &["runc", "io.containerd.runc.v2", "skep"];

/// Checks every value and builds the engine's configuration.
pub(crate) fn engine(settings: &Settings) -> anyhow::Result<EngineConfig> {
    check(settings)?;
    let shim = std::env::current_exe().context("can't find this program's own file")?;
    let absolute = |name: &'static str| std::path::absolute(settings.text(name));
    let mut config = EngineConfig::new(absolute("data-root")?, absolute("exec-root")?, shim);
    config.runtimes = runtimes(settings)?;
    let default_runtime = settings.text("default-runtime");
    if !BUILT_IN_RUNTIMES.contains(&default_runtime.as_str()) {
        if !config.runtimes.contains_key(&default_runtime) {
            bail!("specified default runtime '{default_runtime}' does not exist");
        }
        config.default_runtime = Some(default_runtime);
    }
    config.default_ulimits = ulimits(settings)?;
    config.default_shm_size = size("default-shm-size", &settings.text("default-shm-size"))?;
    config.default_cgroupns_mode = one_of(settings, "default-cgroupns-mode", &["host", "private"])?;
    if let Some(mode) = one_of(settings, "default-ipc-mode", &["shareable", "private"])? {
        config.default_ipc_mode = mode;
    }
    config.seccomp_profile = settings
        .optional("seccomp-profile")
        .filter(|profile| profile != "builtin");
    config.no_new_privileges = settings.bool("no-new-privileges");
    config.cgroup_parent = settings.optional("cgroup-parent");
    config.init = settings.bool("init");
    config.init_path = settings
        .optional("init-path")
        .or_else(|| settings.optional("default-init"))
        .map(PathBuf::from);
    config.network = network(settings)?;
    config.debug = settings.bool("debug");
    config.experimental = settings.bool("experimental");
    config.insecure_registries = settings.list("insecure-registry");
    config.registry_mirrors = settings
        .list("registry-mirror")
        .iter()
        .map(|mirror| check_mirror(mirror))
        .collect::<Result<_, _>>()?;
    config.registry = registry(settings)?;
    config.shutdown_timeout = settings.int("shutdown-timeout");
    config.generic_resources =
        skep_engine::parse_generic_resources(&settings.list("node-generic-resource"))
            .map_err(anyhow::Error::msg)?;
    config.swarm_allow = swarm_allow(settings)?;
    config.reloadable = reloadable(settings)?;
    Ok(config)
}

/// What services may ask of this node; a word that grants nothing is a mistake.
fn swarm_allow(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let known = skep_engine::executor::GRANTS;
    let allowed = settings.list("swarm-allow");
    match allowed.iter().find(|word| !known.contains(&word.as_str())) {
        Some(word) => bail!("swarm-allow: unknown \"{word}\": use {}", known.join(", ")),
        None => Ok(allowed),
    }
}

/// Proxies come from the flags or daemon.json's `proxies`, else from the environment.
fn registry(settings: &Settings) -> anyhow::Result<RegistrySettings> {
    let file = settings.map("proxies");
    if let Some(unknown) = file
        .keys()
        .find(|key| !["http-proxy", "https-proxy", "no-proxy"].contains(&key.as_str()))
    {
        bail!("the following directives don't match any configuration option: proxies.{unknown}");
    }
    let of = |name: &'static str| -> anyhow::Result<String> {
        let from_file = file.get(name).and_then(Value::as_str).unwrap_or_default();
        match settings.optional(name) {
            Some(_) if !from_file.is_empty() => bail!(
                "the following directives are specified both as a flag and in the configuration file: {name}"
            ),
            Some(flag) => Ok(flag),
            None => Ok(from_file.to_owned()),
        }
    };
    let proxy = ProxyConfig {
        http: of("http-proxy")?,
        https: of("https-proxy")?,
        no_proxy: of("no-proxy")?,
    };
    let count = |name: &'static str, what: &str| {
        let given = settings.int(name);
        // dockerd takes 0 as "the default".
        match usize::try_from(given) {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(count)),
            Err(_) => bail!("invalid {what}: {given}"),
        }
    };
    let default = RegistrySettings::default();
    let attempts = count("max-download-attempts", "max download attempts")?;
    Ok(RegistrySettings {
        proxy: proxy.or_environment(),
        downloads: count("max-concurrent-downloads", "max concurrent downloads")?
            .unwrap_or(default.downloads),
        uploads: count("max-concurrent-uploads", "max concurrent uploads")?
            .unwrap_or(default.uploads),
        attempts: attempts
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(default.attempts),
    })
}

/// The part that SIGHUP may change.
pub(crate) fn reloadable(settings: &Settings) -> anyhow::Result<ReloadableConfig> {
    let mut log_opts = BTreeMap::new();
    for (key, value) in settings.map("log-opt") {
        let Value::String(value) = value else {
            bail!("log-opts: the value of \"{key}\" must be a string");
        };
        log_opts.insert(key, value);
    }
    Ok(ReloadableConfig {
        labels: labels(&settings.list("label"))?,
        live_restore: settings.bool("live-restore"),
        log_driver: settings.text("log-driver"),
        log_opts,
        default_stop_timeout: settings.int("default-stop-timeout"),
    })
}

fn check(settings: &Settings) -> anyhow::Result<()> {
    if let Some(driver) = settings.optional("storage-driver")
        && driver != "overlay2"
    {
        bail!("driver not supported: {driver}: skep stores layers with overlay2");
    }
    if settings.int("mtu") < 0 {
        bail!("invalid default MTU: {}", settings.int("mtu"));
    }
    if settings.int("shutdown-timeout") < -1 {
        bail!(
            "invalid shutdown timeout: {}",
            settings.int("shutdown-timeout")
        );
    }
    if settings.int("default-stop-timeout") < 0 {
        bail!(
            "invalid default stop timeout: {}",
            settings.int("default-stop-timeout")
        );
    }
    for option in settings.list("exec-opt") {
        match option.split_once('=') {
            Some(("native.cgroupdriver", "cgroupfs")) => {}
            Some(("native.cgroupdriver", other)) => {
                bail!(
                    "invalid exec-opt ({option}): cgroup driver \"{other}\" is not supported: use cgroupfs"
                )
            }
            Some((key, _)) => bail!("invalid exec-opt ({option}): unknown option: '{key}'"),
            None => bail!("invalid exec-opt ({option}): must be formatted 'opt=value'"),
        }
    }
    Ok(())
}

fn labels(given: &[String]) -> anyhow::Result<Vec<String>> {
    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    for label in given {
        let Some((key, value)) = label.split_once('=') else {
            bail!("bad attribute format: {label}");
        };
        if let Some(other) = by_key.insert(key, value)
            && other != value
        {
            bail!("conflict labels for {key}={value} and {key}={other}");
        }
    }
    Ok(by_key
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect())
}

fn runtimes(settings: &Settings) -> anyhow::Result<BTreeMap<String, OciRuntime>> {
    let mut found = BTreeMap::new();
    for (name, value) in settings.map("add-runtime") {
        if BUILT_IN_RUNTIMES.contains(&name.as_str()) {
            bail!("runtime name '{name}' is reserved");
        }
        let runtime = match &value {
            Value::String(path) => OciRuntime {
                path: PathBuf::from(path),
                args: Vec::new(),
            },
            Value::Object(entry) => {
                if entry.get("runtimeType").is_some_and(|kind| kind != "") {
                    bail!(
                        "runtime '{name}': skep runs OCI runtimes by path, not containerd shims (runtimeType)"
                    );
                }
                let path = entry
                    .get("path")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let args = entry.get("runtimeArgs").and_then(Value::as_array);
                OciRuntime {
                    path: PathBuf::from(path),
                    args: args
                        .into_iter()
                        .flatten()
                        .filter_map(|arg| Some(arg.as_str()?.to_owned()))
                        .collect(),
                }
            }
            _ => bail!("runtime '{name}': must be an object with a path"),
        };
        if runtime.path.as_os_str().is_empty() {
            bail!("runtime '{name}': either a runtimeType or a path must be configured");
        }
        found.insert(name, runtime);
    }
    Ok(found)
}

/// `name=soft[:hard]` on the command line; an object of `{Name, Soft, Hard}` in the file.
fn ulimits(settings: &Settings) -> anyhow::Result<Vec<m::ResourcesUlimits>> {
    match settings.json("default-ulimit") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| ulimit(item.as_str().unwrap_or_default()))
            .collect(),
        Some(Value::Object(entries)) => entries
            .iter()
            .map(|(name, entry)| {
                let number = |key: &str| {
                    entry
                        .get(key)
                        .and_then(Value::as_i64)
                        .with_context(|| format!("default-ulimits: {name} needs {key}"))
                };
                Ok(m::ResourcesUlimits {
                    name: Some(name.clone()),
                    soft: Some(number("Soft")?),
                    hard: Some(number("Hard")?),
                })
            })
            .collect(),
        Some(_) => bail!("default-ulimits must be an object"),
    }
}

fn ulimit(text: &str) -> anyhow::Result<m::ResourcesUlimits> {
    let (name, values) = text
        .split_once('=')
        .with_context(|| format!("invalid ulimit argument: {text}"))?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |digits: &str| {
        digits
            .parse::<i64>()
            .with_context(|| format!("invalid ulimit argument: {text}"))
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        bail!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}");
    }
    Ok(m::ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft),
        hard: Some(hard),
    })
}

fn network(settings: &Settings) -> anyhow::Result<NetworkOptions> {
    let bridge = settings.optional("bridge");
    let bip = settings.optional("bip");
    if bridge.is_some() && bip.is_some() {
        bail!("you specified -b & --bip, mutually exclusive options. Please specify only one");
    }
    if !settings.bool("iptables") && !settings.bool("icc") {
        bail!(
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or --iptables to true"
        );
    }
    let mut gateways = addresses("host-gateway-ip", &settings.list("host-gateway-ip"))?;
    gateways.extend(
        addresses(
            "host-gateway-ip",
            settings.optional("host-gateway-ip").as_slice(),
        )
        .unwrap_or_default(),
    );
    gateways.dedup();
    Ok(NetworkOptions {
        bridge,
        bip,
        fixed_cidr: settings.optional("fixed-cidr"),
        ipv6: settings.bool("ipv6"),
        fixed_cidr_v6: settings.optional("fixed-cidr-v6"),
        default_gateway: address(settings, "default-gateway")?,
        default_address_pools: pools(settings)?,
        mtu: u32::try_from(settings.int("mtu"))
            .ok()
            .filter(|_| settings.is_set("mtu")),
        iptables: settings.bool("iptables"),
        ip6tables: settings.bool("ip6tables"),
        ip_forward: settings.bool("ip-forward"),
        ip_masq: settings.bool("ip-masq"),
        icc: settings.bool("icc"),
        userland_proxy: settings.bool("userland-proxy"),
        ip: address(settings, "ip")?,
        resolv_conf: settings.optional("resolv-conf").map(PathBuf::from),
        dns: addresses("dns", &settings.list("dns"))?
            .iter()
            .map(IpAddr::to_string)
            .collect(),
        dns_opts: settings.list("dns-opt"),
        dns_search: settings.list("dns-search"),
        host_gateway_ips: gateways,
        host_namespace: None,
    })
}

/// `base=10.0.0.0/8,size=24` on the command line; objects of base and size in the file.
fn pools(settings: &Settings) -> anyhow::Result<Vec<(String, u8)>> {
    let Some(value) = settings.json("default-address-pool") else {
        return Ok(Vec::new());
    };
    let items = value
        .as_array()
        .context("default-address-pools must be an array")?;
    items.iter().map(pool).collect()
}

fn pool(item: &Value) -> anyhow::Result<(String, u8)> {
    let (base, size) = match item {
        Value::Object(entry) => (
            entry.get("base").and_then(Value::as_str).map(str::to_owned),
            entry.get("size").and_then(Value::as_u64),
        ),
        Value::String(text) => {
            let field = |key: &str| {
                text.split(',')
                    .filter_map(|pair| pair.split_once('='))
                    .find(|(k, _)| *k == key)
                    .map(|(_, v)| v.to_owned())
            };
            (
                field("base"),
                field("size").and_then(|digits| digits.parse().ok()),
            )
        }
        _ => (None, None),
    };
    match (base, size.and_then(|size| u8::try_from(size).ok())) {
        (Some(base), Some(size)) => Ok((base, size)),
        _ => bail!("invalid default address pool {item}: it must be base=CIDR,size=BITS"),
    }
}

fn one_of(
    settings: &Settings,
    name: &'static str,
    allowed: &[&str],
) -> anyhow::Result<Option<String>> {
    let value = settings.optional(name);
    if let Some(value) = &value
        && !allowed.contains(&value.as_str())
    {
        bail!(
            "{name} ({value}) is invalid: use one of {}",
            allowed.join(", ")
        );
    }
    Ok(value)
}

fn address(settings: &Settings, name: &'static str) -> anyhow::Result<Option<IpAddr>> {
    Ok(addresses(name, settings.optional(name).as_slice())?.pop())
}

fn addresses(name: &str, texts: &[String]) -> anyhow::Result<Vec<IpAddr>> {
    texts
        .iter()
        .map(|text| {
            text.parse()
                .with_context(|| format!("invalid {name}: {text} is not an ip address"))
        })
        .collect()
}

/// Docker's sizes: `64m`, `64MiB`, `67108864`; the result is in bytes.
fn size(name: &str, text: &str) -> anyhow::Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor: i64 = match lower[digits.len()..]
        .trim()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => bail!("invalid {name}: invalid size: '{text}'"),
    };
    let number: f64 = digits
        .parse()
        .with_context(|| format!("invalid {name}: invalid size: '{text}'"))?;
    Ok((number * factor as f64) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_dockers_suffixes() {
        for (text, bytes) in [
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("1024", 1024),
            ("2kb", 2048),
        ] {
            assert_eq!(size("x", text).unwrap(), bytes, "{text}");
        }
        assert!(size("x", "big").is_err());
        assert!(size("x", "1y").is_err());
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_value() {
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(10), Some(20)));
        assert_eq!(ulimit("nofile=7").unwrap().hard, Some(7));
        assert!(ulimit("nofile=20:10").is_err());
        assert!(ulimit("nofile").is_err());
    }

    #[test]
    fn labels_must_not_contradict_each_other() {
        let given = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        assert_eq!(labels(&given(&["a=b", "a=b"])).unwrap(), ["a=b"]);
        assert_eq!(
            labels(&given(&["a=b", "a=c"])).unwrap_err().to_string(),
            "conflict labels for a=c and a=b"
        );
    }
}
