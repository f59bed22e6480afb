//! dockerd's options as one table: command-line flags, daemon.json keys, help and what skep does
//! with each. Parsing, conflict checks and the documentation all read this table.

use clap::{Arg, ArgAction, Command};

/// The shape of an option's value, on the command line and in daemon.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--x`, `--x=false`; JSON boolean.
    Bool,
    /// One string.
    Text,
    /// A whole number.
    Int,
    /// Repeated on the command line; an array of strings in JSON.
    List,
    /// Repeated `key=value`; an object in JSON.
    Map,
    /// Only in daemon.json, or with a JSON shape of its own (checked where it is read).
    Json,
}

/// What skep does with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It does what dockerd documents.
    Works,
    /// There is nothing it could act upon; accepted, and said so in the log. The text says why.
    Unused(&'static str),
    /// Set to anything but its default, the daemon refuses to start. The text says why.
    Refused(&'static str),
}

/// One option.
#[derive(Debug)]
pub(crate) struct OptionSpec {
    /// Flag name without dashes; empty for keys that exist only in daemon.json.
    pub(crate) flag: &'static str,
    pub(crate) short: Option<char>,
    /// Key in daemon.json; empty for flags that exist only on the command line.
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) support: Support,
    pub(crate) help: &'static str,
}

const NO_CONTAINERD: Support = Support::Unused("skep has no containerd");
const SHIPS_NO_PROXY: Support =
    Support::Unused("published ports need no proxy program: skep does this itself");

/// A row; the columns are those of [`OptionSpec`].
const fn row(
    flag: &'static str,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> OptionSpec {
    OptionSpec {
        flag,
        short: None,
        key,
        kind,
        default,
        support,
        help,
    }
}

const fn short(letter: char, spec: OptionSpec) -> OptionSpec {
    OptionSpec {
        short: Some(letter),
        ..spec
    }
}

use Kind::{Bool, Int, Json, List, Map, Text};
use Support::{Refused, Unused, Works};

/// Every option of dockerd, in the order of its help.
#[rustfmt::skip]
pub(crate) const OPTIONS: &[OptionSpec] = &[
    row("add-runtime", "runtimes", Map, "", Works, "Register an additional OCI compatible runtime (name=path)"),
    row("allow-direct-routing", "allow-direct-routing", Bool, "false", Unused("skep does not block direct routing to container addresses"), "Allow remote access to published ports on container IP addresses"),
    row("authorization-plugin", "authorization-plugins", List, "", Refused("authorization plugins are not supported yet"), "Authorization plugins to load"),
    row("bip", "bip", Text, "", Works, "IPv4 address for the default bridge"),
    row("bip6", "bip6", Text, "", Refused("IPv6 on the default bridge is not supported yet"), "IPv6 address for the default bridge"),
    short('b', row("bridge", "bridge", Text, "", Works, "Attach containers to a network bridge (\"none\" disables the default bridge)")),
    row("bridge-accept-fwmark", "bridge-accept-fwmark", Text, "", Refused("accepting packets by firewall mark is not supported yet"), "In bridge networks, accept packets with this firewall mark/mask"),
    row("cdi-spec-dir", "cdi-spec-dirs", List, "", Unused("CDI devices are not supported yet"), "CDI specification directories to use"),
    row("cgroup-parent", "cgroup-parent", Text, "", Works, "Set parent cgroup for all containers"),
    row("config-file", "", Text, "/etc/docker/daemon.json", Works, "Daemon configuration file"),
    row("containerd", "containerd", Text, "", NO_CONTAINERD, "containerd grpc address (unused: skep has no containerd)"),
    row("containerd-namespace", "containerd-namespace", Text, "moby", NO_CONTAINERD, "Containerd namespace to use (unused)"),
    row("containerd-plugins-namespace", "containerd-plugin-namespace", Text, "plugins.moby", NO_CONTAINERD, "Containerd namespace to use for plugins (unused)"),
    row("cpu-rt-period", "cpu-rt-period", Int, "0", Refused("a realtime budget for the parent cgroup is not supported yet"), "Limit the CPU real-time period in microseconds for the parent cgroup for all containers"),
    row("cpu-rt-runtime", "cpu-rt-runtime", Int, "0", Refused("a realtime budget for the parent cgroup is not supported yet"), "Limit the CPU real-time runtime in microseconds for the parent cgroup for all containers"),
    row("cri-containerd", "cri-containerd", Bool, "false", NO_CONTAINERD, "start containerd with cri (unused)"),
    row("data-root", "data-root", Text, "/var/lib/docker", Works, "Root directory of persistent Docker state"),
    short('D', row("debug", "debug", Bool, "false", Works, "Enable debug mode")),
    row("default-address-pool", "default-address-pools", Json, "", Works, "Default address pools for node specific local networks (base=CIDR,size=BITS)"),
    row("default-cgroupns-mode", "default-cgroupns-mode", Text, "", Works, "Default mode for containers cgroup namespace (\"host\" | \"private\")"),
    row("default-gateway", "default-gateway", Text, "", Works, "Default gateway IPv4 address for the default bridge network"),
    row("default-gateway-v6", "default-gateway-v6", Text, "", Refused("an IPv6 gateway other than the bridge is not supported yet"), "Default gateway IPv6 address for the default bridge network"),
    row("default-ipc-mode", "default-ipc-mode", Text, "private", Works, "Default mode for containers ipc (\"shareable\" | \"private\")"),
    row("default-network-opt", "default-network-opts", Json, "", Refused("default network options are not supported yet"), "Default network options"),
    row("default-runtime", "default-runtime", Text, "runc", Works, "Default OCI runtime for containers"),
    row("default-shm-size", "default-shm-size", Text, "64MiB", Works, "Default shm size for containers"),
    row("default-stop-timeout", "default-stop-timeout", Int, "10", Works, "Set the default container stop timeout in seconds (0 to terminate immediately)"),
    row("default-ulimit", "default-ulimits", Json, "", Works, "Default ulimits for containers (name=soft:hard)"),
    row("dns", "dns", List, "", Works, "DNS server to use"),
    row("dns-opt", "dns-opts", List, "", Works, "DNS options to use"),
    row("dns-search", "dns-search", List, "", Works, "DNS search domains to use"),
    row("exec-opt", "exec-opts", List, "", Works, "Runtime execution options (native.cgroupdriver=cgroupfs)"),
    row("exec-root", "exec-root", Text, "/var/run/docker", Works, "Root directory for execution state files"),
    row("experimental", "experimental", Bool, "false", Works, "Enable experimental features"),
    row("feature", "features", Json, "", Unused("dockerd's features do not exist in skep"), "Enable feature in the daemon (accepted, unused)"),
    row("firewall-backend", "firewall-backend", Text, "", Unused("skep always programs nftables"), "Firewall backend to use (skep always uses nftables)"),
    row("fixed-cidr", "fixed-cidr", Text, "", Works, "IPv4 subnet for the default bridge network"),
    row("fixed-cidr-v6", "fixed-cidr-v6", Text, "", Works, "IPv6 subnet for the default bridge network"),
    short('G', row("group", "group", Text, "docker", Works, "Group for the unix socket")),
    short('H', row("host", "hosts", List, "", Works, "Daemon socket(s) to connect to")),
    row("host-gateway-ip", "host-gateway-ips", List, "", Works, "IP addresses that the special 'host-gateway' string in --add-host resolves to"),
    row("http-proxy", "http-proxy", Text, "", Works, "HTTP proxy URL to use for outgoing traffic"),
    row("https-proxy", "https-proxy", Text, "", Works, "HTTPS proxy URL to use for outgoing traffic"),
    row("icc", "icc", Bool, "true", Works, "Enable inter-container communication for the default bridge network"),
    row("init", "init", Bool, "false", Works, "Run an init in the container to forward signals and reap processes"),
    row("init-path", "init-path", Text, "", Works, "Path to the docker-init binary"),
    row("insecure-registry", "insecure-registries", List, "", Works, "Enable insecure registry communication"),
    row("ip", "ip", Text, "0.0.0.0", Works, "Host IP for port publishing from the default bridge network"),
    row("ip-forward", "ip-forward", Bool, "true", Works, "Enable IP forwarding in system configuration"),
    row("ip-forward-no-drop", "ip-forward-no-drop", Bool, "false", Unused("skep never sets the FORWARD policy to DROP"), "Do not set the filter-FORWARD policy to DROP when enabling IP forwarding"),
    row("ip-masq", "ip-masq", Bool, "true", Works, "Enable IP masquerading for the default bridge network"),
    row("ip6tables", "ip6tables", Bool, "true", Works, "Enable addition of IPv6 firewall rules"),
    row("iptables", "iptables", Bool, "true", Works, "Enable addition of firewall rules"),
    row("ipv6", "ipv6", Bool, "false", Works, "Enable IPv6 networking for the default bridge network"),
    row("label", "labels", List, "", Works, "Set key=value labels to the daemon"),
    row("live-restore", "live-restore", Bool, "false", Works, "Keep containers running when the daemon stops"),
    row("log-driver", "log-driver", Text, "json-file", Works, "Default driver for container logs"),
    row("log-format", "log-format", Text, "text", Works, "Set the logging format (\"text\"|\"json\")"),
    short('l', row("log-level", "log-level", Text, "info", Works, "Set the logging level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\")")),
    row("log-opt", "log-opts", Map, "", Works, "Default log driver options for containers"),
    row("max-concurrent-downloads", "max-concurrent-downloads", Int, "3", Works, "Set the max concurrent downloads"),
    row("max-concurrent-uploads", "max-concurrent-uploads", Int, "5", Works, "Set the max concurrent uploads"),
    row("max-download-attempts", "max-download-attempts", Int, "5", Works, "Set the max download attempts for each pull"),
    row("metrics-addr", "metrics-addr", Text, "", Refused("the metrics endpoint is not supported yet"), "Set default address and port to serve the metrics api on"),
    row("mtu", "mtu", Int, "1500", Works, "Set the MTU for the default \"bridge\" network"),
    row("network-control-plane-mtu", "network-control-plane-mtu", Int, "1500", Unused("skep has no gossip to size"), "Network Control plane MTU"),
    row("network-diagnostic-port", "network-diagnostic-port", Int, "0", Refused("the network diagnostic server does not exist in skep"), "TCP port number of the network diagnostic server"),
    row("no-new-privileges", "no-new-privileges", Bool, "false", Works, "Set no-new-privileges by default for new containers"),
    row("no-proxy", "no-proxy", Text, "", Works, "Comma-separated list of hosts or IP addresses for which the proxy is skipped"),
    row("node-generic-resource", "node-generic-resources", List, "", Works, "Advertise user-defined resource"),
    short('p', row("pidfile", "pidfile", Text, "/var/run/docker.pid", Works, "Path to use for daemon PID file")),
    row("raw-logs", "raw-logs", Bool, "false", Works, "Full timestamps without ANSI coloring"),
    row("registry-mirror", "registry-mirrors", List, "", Works, "Preferred Docker registry mirror"),
    row("rootless", "rootless", Bool, "false", Refused("rootless mode is not supported yet"), "Enable rootless mode"),
    row("seccomp-profile", "seccomp-profile", Text, "builtin", Works, "Path to seccomp profile. Set to \"unconfined\" to disable the default seccomp profile"),
    row("selinux-enabled", "selinux-enabled", Bool, "false", Refused("SELinux labelling is not supported"), "Enable selinux support"),
    row("shutdown-timeout", "shutdown-timeout", Int, "15", Works, "Set the default shutdown timeout"),
    short('s', row("storage-driver", "storage-driver", Text, "", Works, "Storage driver to use (overlay2)")),
    row("storage-opt", "storage-opts", List, "", Refused("overlay2 takes no storage options in skep yet"), "Storage driver options"),
    row("swarm-default-advertise-addr", "swarm-default-advertise-addr", Text, "", Works, "Set default address or interface for swarm advertised address"),
    row("tls", "tls", Bool, "false", Works, "Use TLS; implied by --tlsverify"),
    row("tlscacert", "tlscacert", Text, "", Works, "Trust certs signed only by this CA"),
    row("tlscert", "tlscert", Text, "", Works, "Path to TLS certificate file"),
    row("tlskey", "tlskey", Text, "", Works, "Path to TLS key file"),
    row("tlsverify", "tlsverify", Bool, "false", Works, "Use TLS and verify the remote"),
    row("userland-proxy", "userland-proxy", Bool, "true", Works, "Use userland proxy for loopback traffic"),
    row("userland-proxy-path", "userland-proxy-path", Text, "", SHIPS_NO_PROXY, "Path to the userland proxy binary (unused: built in)"),
    row("userns-remap", "userns-remap", Text, "", Refused("user namespace remapping is not supported yet"), "User/Group setting for user namespaces"),
    row("validate", "", Bool, "false", Works, "Validate daemon configuration and exit"),
    // Keys of daemon.json that have no flag.
    row("", "allow-nondistributable-artifacts", Json, "", Unused("deprecated by Docker"), ""),
    row("", "builder", Json, "", Unused("there is no builder yet"), ""),
    row("", "default-init", Text, "", Works, ""),
    row("", "deprecated-key-path", Text, "", Unused("deprecated by Docker"), ""),
    row("", "host-gateway-ip", Text, "", Works, ""),
    row("", "min-api-version", Text, "", Unused("skep serves API 1.24 and up to every client"), ""),
    row("", "nri-opts", Json, "", Refused("NRI plugins are not supported"), ""),
    row("", "proxies", Json, "", Works, ""),
    row("", "resolv-conf", Text, "", Works, ""),
    row("", "swarm-allow", List, "", Works, ""),
    row("", "swarm-raft-election-tick", Int, "0", Unused("skep chooses its raft timing itself"), ""),
    row("", "swarm-raft-heartbeat-tick", Int, "0", Unused("skep chooses its raft timing itself"), ""),
];

/// The clap command for `skep daemon`, built from [`OPTIONS`].
pub(crate) fn command(name: &'static str) -> Command {
    let mut command = Command::new(name)
        .about("A self-sufficient runtime for containers: Docker Engine with Swarm mode")
        .version(skep_engine::SERVER_VERSION)
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Print version information and quit"),
        );
    for spec in OPTIONS.iter().filter(|spec| !spec.flag.is_empty()) {
        command = command.arg(argument(spec));
    }
    command
}

fn argument(spec: &'static OptionSpec) -> Arg {
    let mut arg = Arg::new(spec.flag).long(spec.flag).help(spec.help);
    if let Some(letter) = spec.short {
        arg = arg.short(letter);
    }
    match spec.kind {
        Kind::Bool => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(go_bool)
            // Like Go's flags, the last one given wins.
            .overrides_with(spec.flag)
            .value_name("BOOL")
            .hide_possible_values(true),
        Kind::Int => arg
            .value_parser(clap::value_parser!(i64))
            .allow_negative_numbers(true)
            .overrides_with(spec.flag)
            .value_name("int"),
        Kind::Text => arg.overrides_with(spec.flag).value_name("string"),
        Kind::List | Kind::Map | Kind::Json => arg
            .action(ArgAction::Append)
            .value_name("list")
            .allow_hyphen_values(true),
    }
}

/// Go's `strconv.ParseBool`: what dockerd accepts after `--flag=`.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("parsing \"{text}\": invalid syntax")),
    }
}

/// The option whose daemon.json key is `key` (a flag's own name counts too, as in dockerd).
pub(crate) fn by_key(key: &str) -> Option<&'static OptionSpec> {
    OPTIONS
        .iter()
        .find(|spec| !spec.key.is_empty() && spec.key == key)
}
