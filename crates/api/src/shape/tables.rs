//! The tables, one per structure, from moby's `api/types`.

use super::Field::{
    Bool, EachOrEmpty, Inside, Keep, List, Map, MaybeInside, Null, Number, Omit, Pair, Text,
    ValuesOrEmpty, ZeroTime,
};
use super::Shape;

pub(crate) static CONTAINER: &Shape = &[
    ("Id", Text),
    ("Created", Text),
    ("Path", Text),
    ("Args", List),
    ("State", Inside(STATE)),
    ("Image", Text),
    ("ResolvConfPath", Text),
    ("HostnamePath", Text),
    ("HostsPath", Text),
    ("LogPath", Text),
    ("Name", Text),
    ("RestartCount", Number),
    ("Driver", Text),
    ("Platform", Text),
    ("MountLabel", Text),
    ("ProcessLabel", Text),
    ("AppArmorProfile", Text),
    ("ExecIDs", Null),
    ("HostConfig", Inside(HOST_CONFIG)),
    ("GraphDriver", MaybeInside(GRAPH_DRIVER)),
    ("Storage", Keep),
    ("SizeRw", Keep),
    ("SizeRootFs", Keep),
    ("Mounts", EachOrEmpty(MOUNT_POINT)),
    ("Config", Inside(CONFIG)),
    ("NetworkSettings", Inside(NETWORK_SETTINGS)),
    ("ImageManifestDescriptor", Keep),
];

static STATE: &Shape = &[
    ("Status", Text),
    ("Running", Bool),
    ("Paused", Bool),
    ("Restarting", Bool),
    ("OOMKilled", Bool),
    ("Dead", Bool),
    ("Pid", Number),
    ("ExitCode", Number),
    ("Error", Text),
    ("StartedAt", Text),
    ("FinishedAt", Text),
    ("Health", MaybeInside(HEALTH)),
];

static HEALTH: &Shape = &[("Status", Text), ("FailingStreak", Number), ("Log", Null)];

pub(crate) static CONFIG: &Shape = &[
    ("Hostname", Text),
    ("Domainname", Text),
    ("User", Text),
    ("AttachStdin", Bool),
    ("AttachStdout", Bool),
    ("AttachStderr", Bool),
    ("ExposedPorts", Omit),
    ("Tty", Bool),
    ("OpenStdin", Bool),
    ("StdinOnce", Bool),
    ("Env", Null),
    ("Cmd", Null),
    ("Healthcheck", Keep),
    ("ArgsEscaped", Omit),
    ("Image", Text),
    ("Volumes", Null),
    ("WorkingDir", Text),
    ("Entrypoint", Null),
    ("NetworkDisabled", Omit),
    // Docker omits this one when empty since API 1.52; older clients index into it.
    ("OnBuild", Null),
    ("Labels", Map),
    ("StopSignal", Omit),
    ("StopTimeout", Keep),
    ("Shell", Omit),
];

static HOST_CONFIG: &Shape = &[
    ("Binds", Null),
    ("ContainerIDFile", Text),
    ("LogConfig", Inside(LOG_CONFIG)),
    ("NetworkMode", Text),
    ("PortBindings", Map),
    ("RestartPolicy", Inside(RESTART_POLICY)),
    ("AutoRemove", Bool),
    ("VolumeDriver", Text),
    ("VolumesFrom", Null),
    ("ConsoleSize", Pair),
    ("Annotations", Omit),
    ("CapAdd", Null),
    ("CapDrop", Null),
    ("CgroupnsMode", Text),
    ("Dns", List),
    ("DnsOptions", List),
    ("DnsSearch", List),
    ("ExtraHosts", Null),
    ("GroupAdd", Null),
    ("IpcMode", Text),
    ("Cgroup", Text),
    ("Links", Null),
    ("OomScoreAdj", Number),
    ("PidMode", Text),
    ("Privileged", Bool),
    ("PublishAllPorts", Bool),
    ("ReadonlyRootfs", Bool),
    ("SecurityOpt", Null),
    ("StorageOpt", Omit),
    ("Tmpfs", Omit),
    ("UTSMode", Text),
    ("UsernsMode", Text),
    ("ShmSize", Number),
    ("Sysctls", Omit),
    ("Runtime", Omit),
    ("Isolation", Text),
    ("CpuShares", Number),
    ("Memory", Number),
    ("NanoCpus", Number),
    ("CgroupParent", Text),
    ("BlkioWeight", Number),
    ("BlkioWeightDevice", List),
    ("BlkioDeviceReadBps", List),
    ("BlkioDeviceWriteBps", List),
    ("BlkioDeviceReadIOps", List),
    ("BlkioDeviceWriteIOps", List),
    ("CpuPeriod", Number),
    ("CpuQuota", Number),
    ("CpuRealtimePeriod", Number),
    ("CpuRealtimeRuntime", Number),
    ("CpusetCpus", Text),
    ("CpusetMems", Text),
    ("Devices", List),
    ("DeviceCgroupRules", Null),
    ("DeviceRequests", Null),
    ("MemoryReservation", Number),
    ("MemorySwap", Number),
    ("MemorySwappiness", Null),
    ("OomKillDisable", Null),
    ("PidsLimit", Null),
    ("Ulimits", List),
    ("CpuCount", Number),
    ("CpuPercent", Number),
    ("IOMaximumIOps", Number),
    ("IOMaximumBandwidth", Number),
    ("Mounts", Omit),
    ("MaskedPaths", Null),
    ("ReadonlyPaths", Null),
    ("Init", Keep),
];

static LOG_CONFIG: &Shape = &[("Type", Text), ("Config", Map)];
static RESTART_POLICY: &Shape = &[("Name", Text), ("MaximumRetryCount", Number)];
static GRAPH_DRIVER: &Shape = &[("Data", Null), ("Name", Text)];

static MOUNT_POINT: &Shape = &[
    ("Type", Omit),
    ("Name", Omit),
    ("Source", Text),
    ("Destination", Text),
    ("Driver", Omit),
    ("Mode", Text),
    ("RW", Bool),
    ("Propagation", Text),
];

static NETWORK_SETTINGS: &Shape = &[
    ("SandboxID", Text),
    ("SandboxKey", Text),
    ("Ports", Map),
    ("Networks", ValuesOrEmpty(ENDPOINT)),
];

/// What `NetworkSettings` had beside that before API 1.52.
pub(crate) static LEGACY_NETWORK_SETTINGS: &Shape = &[
    ("Bridge", Text),
    ("SandboxID", Text),
    ("SandboxKey", Text),
    ("Ports", Map),
    ("HairpinMode", Bool),
    ("LinkLocalIPv6Address", Text),
    ("LinkLocalIPv6PrefixLen", Number),
    ("SecondaryIPAddresses", Null),
    ("SecondaryIPv6Addresses", Null),
    ("EndpointID", Text),
    ("Gateway", Text),
    ("GlobalIPv6Address", Text),
    ("GlobalIPv6PrefixLen", Number),
    ("IPAddress", Text),
    ("IPPrefixLen", Number),
    ("IPv6Gateway", Text),
    ("MacAddress", Text),
    ("Networks", ValuesOrEmpty(ENDPOINT)),
];

static ENDPOINT: &Shape = &[
    ("IPAMConfig", Null),
    ("Links", Null),
    ("Aliases", Null),
    ("DriverOpts", Null),
    ("GwPriority", Number),
    ("NetworkID", Text),
    ("EndpointID", Text),
    ("Gateway", Text),
    ("IPAddress", Text),
    ("MacAddress", Text),
    ("IPPrefixLen", Number),
    ("IPv6Gateway", Text),
    ("GlobalIPv6Address", Text),
    ("GlobalIPv6PrefixLen", Number),
    ("DNSNames", Null),
];

pub(crate) static CONTAINER_SUMMARY: &Shape = &[
    ("Id", Text),
    ("Names", List),
    ("Image", Text),
    ("ImageID", Text),
    ("ImageManifestDescriptor", Keep),
    ("Command", Text),
    ("Created", Number),
    ("Ports", EachOrEmpty(PORT)),
    ("SizeRw", Omit),
    ("SizeRootFs", Omit),
    ("Labels", Map),
    ("State", Text),
    ("Status", Text),
    (
        "HostConfig",
        Inside(&[("NetworkMode", Omit), ("Annotations", Omit)]),
    ),
    ("Health", Keep),
    (
        "NetworkSettings",
        Inside(&[("Networks", ValuesOrEmpty(ENDPOINT))]),
    ),
    ("Mounts", EachOrEmpty(MOUNT_POINT)),
];

static PORT: &Shape = &[
    ("IP", Omit),
    ("PrivatePort", Number),
    ("PublicPort", Omit),
    ("Type", Text),
];

pub(crate) static EXEC: &Shape = &[
    ("ID", Text),
    ("Running", Bool),
    ("ExitCode", Null),
    ("ProcessConfig", Inside(EXEC_PROCESS)),
    ("OpenStdin", Bool),
    ("OpenStderr", Bool),
    ("OpenStdout", Bool),
    ("CanRemove", Bool),
    ("ContainerID", Text),
    ("DetachKeys", Text),
    ("Pid", Number),
];

static EXEC_PROCESS: &Shape = &[
    ("tty", Bool),
    ("entrypoint", Text),
    ("arguments", List),
    ("privileged", Keep),
    ("user", Omit),
];

pub(crate) static TOP: &Shape = &[("Processes", List), ("Titles", List)];
pub(crate) static CONTAINER_PRUNE: &Shape =
    &[("ContainersDeleted", Null), ("SpaceReclaimed", Number)];
pub(crate) static IMAGE_PRUNE: &Shape = &[("ImagesDeleted", Null), ("SpaceReclaimed", Number)];
pub(crate) static VOLUME_PRUNE: &Shape = &[("VolumesDeleted", Null), ("SpaceReclaimed", Number)];
pub(crate) static NETWORK_PRUNE: &Shape = &[("NetworksDeleted", Null)];
pub(crate) static WARNINGS: &Shape = &[("Warnings", List)];
pub(crate) static WAIT: &Shape = &[("Error", Keep), ("StatusCode", Number)];

pub(crate) static IMAGE_SUMMARY: &Shape = &[
    ("Containers", Number),
    ("Created", Number),
    ("Id", Text),
    ("Labels", Null),
    ("ParentId", Text),
    ("Descriptor", Keep),
    ("Manifests", Omit),
    ("RepoDigests", List),
    ("RepoTags", List),
    ("SharedSize", Number),
    ("Size", Number),
];

pub(crate) static IMAGE: &Shape = &[
    ("Id", Text),
    ("RepoTags", List),
    ("RepoDigests", List),
    ("Comment", Omit),
    ("Created", Omit),
    ("Author", Omit),
    ("Config", Inside(IMAGE_CONFIG)),
    ("Architecture", Text),
    ("Variant", Omit),
    ("Os", Text),
    ("OsVersion", Omit),
    ("Size", Number),
    ("GraphDriver", MaybeInside(GRAPH_DRIVER)),
    ("RootFS", Inside(&[("Type", Omit), ("Layers", Omit)])),
    ("Metadata", Inside(&[("LastTagTime", ZeroTime)])),
    ("Descriptor", Keep),
    ("Manifests", Omit),
    ("Identity", Keep),
];

static IMAGE_CONFIG: &Shape = &[
    ("User", Omit),
    ("ExposedPorts", Omit),
    ("Env", Omit),
    ("Entrypoint", Omit),
    ("Cmd", Omit),
    ("Volumes", Omit),
    ("WorkingDir", Omit),
    ("Labels", Omit),
    ("StopSignal", Omit),
    ("ArgsEscaped", Omit),
    ("Healthcheck", Keep),
    ("OnBuild", Omit),
    ("Shell", Omit),
];

/// An image's configuration before API 1.52: a container's, with what it never uses before 1.50.
pub(crate) static LEGACY_IMAGE_CONFIG: &Shape = &[
    ("User", Text),
    ("ExposedPorts", Omit),
    ("Env", Null),
    ("Cmd", Null),
    ("Healthcheck", Keep),
    ("ArgsEscaped", Omit),
    ("Volumes", Null),
    ("WorkingDir", Text),
    ("Entrypoint", Null),
    ("OnBuild", Null),
    ("Labels", Null),
    ("StopSignal", Omit),
    ("Shell", Omit),
];

/// The fields that [`LEGACY_IMAGE_CONFIG`] has in addition before API 1.50.
pub(crate) static ANCIENT_IMAGE_CONFIG: &Shape = &[
    ("Hostname", Text),
    ("Domainname", Text),
    ("AttachStdin", Bool),
    ("AttachStdout", Bool),
    ("AttachStderr", Bool),
    ("Tty", Bool),
    ("OpenStdin", Bool),
    ("StdinOnce", Bool),
    ("Image", Text),
];

pub(crate) static IMAGE_HISTORY: &Shape = &[
    ("Comment", Text),
    ("Created", Number),
    ("CreatedBy", Text),
    ("Id", Text),
    ("Size", Number),
    ("Tags", Null),
];

pub(crate) static NETWORK: &Shape = &[
    ("Name", Text),
    ("Id", Text),
    ("Created", ZeroTime),
    ("Scope", Text),
    ("Driver", Text),
    ("EnableIPv4", Bool),
    ("EnableIPv6", Bool),
    (
        "IPAM",
        Inside(&[("Driver", Text), ("Options", Null), ("Config", Null)]),
    ),
    ("Internal", Bool),
    ("Attachable", Bool),
    ("Ingress", Bool),
    ("ConfigFrom", Inside(&[("Network", Text)])),
    ("ConfigOnly", Bool),
    ("Containers", Map),
    ("Options", Map),
    ("Labels", Map),
    ("Peers", Omit),
    ("Services", Omit),
    ("Status", Keep),
];

pub(crate) static VOLUME: &Shape = &[
    ("ClusterVolume", Keep),
    ("CreatedAt", Omit),
    ("Driver", Text),
    ("Labels", Null),
    ("Mountpoint", Text),
    ("Name", Text),
    ("Options", Null),
    ("Scope", Text),
    ("Status", Omit),
    ("UsageData", Keep),
];

pub(crate) static VOLUME_LIST: &Shape = &[("Volumes", EachOrEmpty(VOLUME)), ("Warnings", Null)];

pub(crate) static VERSION: &Shape = &[
    ("Platform", Inside(&[("Name", Text)])),
    ("Version", Text),
    ("ApiVersion", Text),
    ("MinAPIVersion", Omit),
    ("Os", Text),
    ("Arch", Text),
    ("Components", Omit),
    ("GitCommit", Omit),
    ("GoVersion", Omit),
    ("KernelVersion", Omit),
    ("Experimental", Omit),
    ("BuildTime", Omit),
];

pub(crate) static INFO: &Shape = &[
    ("ID", Text),
    ("Containers", Number),
    ("ContainersRunning", Number),
    ("ContainersPaused", Number),
    ("ContainersStopped", Number),
    ("Images", Number),
    ("Driver", Text),
    ("DriverStatus", Null),
    ("SystemStatus", Omit),
    (
        "Plugins",
        Inside(&[
            ("Volume", Null),
            ("Network", Null),
            ("Authorization", Null),
            ("Log", Null),
        ]),
    ),
    ("MemoryLimit", Bool),
    ("SwapLimit", Bool),
    ("CpuCfsPeriod", Bool),
    ("CpuCfsQuota", Bool),
    ("CPUShares", Bool),
    ("CPUSet", Bool),
    ("PidsLimit", Bool),
    ("IPv4Forwarding", Bool),
    ("Debug", Bool),
    ("NFd", Number),
    ("OomKillDisable", Bool),
    ("NGoroutines", Number),
    ("SystemTime", Text),
    ("LoggingDriver", Text),
    ("CgroupDriver", Text),
    ("CgroupVersion", Omit),
    ("NEventsListener", Number),
    ("KernelVersion", Text),
    ("OperatingSystem", Text),
    ("OSVersion", Text),
    ("OSType", Text),
    ("Architecture", Text),
    ("IndexServerAddress", Text),
    ("RegistryConfig", Null),
    ("NCPU", Number),
    ("MemTotal", Number),
    ("GenericResources", Null),
    ("DockerRootDir", Text),
    ("HttpProxy", Text),
    ("HttpsProxy", Text),
    ("NoProxy", Text),
    ("Name", Text),
    ("Labels", List),
    ("ExperimentalBuild", Bool),
    ("ServerVersion", Text),
    ("Runtimes", Null),
    ("DefaultRuntime", Text),
    ("Swarm", Null),
    ("LiveRestoreEnabled", Bool),
    ("Isolation", Text),
    ("InitBinary", Text),
    ("ContainerdCommit", Inside(COMMIT)),
    ("RuncCommit", Inside(COMMIT)),
    ("InitCommit", Inside(COMMIT)),
    ("SecurityOptions", Null),
    ("ProductLicense", Omit),
    ("DefaultAddressPools", Omit),
    ("FirewallBackend", Keep),
    ("CDISpecDirs", Null),
    ("DiscoveredDevices", Omit),
    ("Containerd", Keep),
    ("Warnings", Null),
];

static COMMIT: &Shape = &[("ID", Text)];

pub(crate) static EVENT: &Shape = &[
    ("status", Omit),
    ("id", Omit),
    ("from", Omit),
    ("Type", Text),
    ("Action", Text),
    ("Actor", Inside(&[("ID", Text), ("Attributes", Null)])),
    ("scope", Omit),
    ("time", Omit),
    ("timeNano", Omit),
];

pub(crate) static DISK_USAGE: &Shape = &[
    ("LayersSize", Omit),
    ("Images", Keep),
    ("Containers", Keep),
    ("Volumes", Keep),
    ("BuildCache", Keep),
    ("ImageUsage", Keep),
    ("ContainerUsage", Keep),
    ("VolumeUsage", Keep),
    ("BuildCacheUsage", Keep),
];

pub(crate) static STATS: &Shape = &[
    ("id", Omit),
    ("name", Omit),
    ("os_type", Omit),
    ("read", ZeroTime),
    ("cpu_stats", Inside(CPU_STATS)),
    ("memory_stats", Map),
    ("networks", Omit),
    ("pids_stats", Map),
    ("blkio_stats", Inside(BLKIO_STATS)),
    ("num_procs", Number),
    ("storage_stats", Map),
    ("preread", ZeroTime),
    ("precpu_stats", Inside(CPU_STATS)),
];

static CPU_STATS: &Shape = &[
    (
        "cpu_usage",
        Inside(&[
            ("total_usage", Number),
            ("percpu_usage", Omit),
            ("usage_in_kernelmode", Number),
            ("usage_in_usermode", Number),
        ]),
    ),
    ("system_cpu_usage", Omit),
    ("online_cpus", Omit),
    (
        "throttling_data",
        Inside(&[
            ("periods", Number),
            ("throttled_periods", Number),
            ("throttled_time", Number),
        ]),
    ),
];

static BLKIO_STATS: &Shape = &[
    ("io_service_bytes_recursive", Null),
    ("io_serviced_recursive", Null),
    ("io_queue_recursive", Null),
    ("io_service_time_recursive", Null),
    ("io_wait_time_recursive", Null),
    ("io_merged_recursive", Null),
    ("io_time_recursive", Null),
    ("sectors_recursive", Null),
];

/// The swarm's part of `docker info`.
pub(crate) static SWARM_INFO: &Shape = &[
    ("NodeID", Text),
    ("NodeAddr", Text),
    ("LocalNodeState", Text),
    ("ControlAvailable", Bool),
    ("Error", Text),
    ("RemoteManagers", Null),
    ("Nodes", Omit),
    ("Managers", Omit),
    ("Cluster", MaybeInside(CLUSTER)),
    ("Warnings", Omit),
];

static CLUSTER: &Shape = &[
    ("ID", Text),
    ("Version", Inside(&[("Index", Omit)])),
    ("CreatedAt", ZeroTime),
    ("UpdatedAt", ZeroTime),
    ("Spec", Inside(SWARM_SPEC)),
    (
        "TLSInfo",
        Inside(&[
            ("TrustRoot", Omit),
            ("CertIssuerSubject", Omit),
            ("CertIssuerPublicKey", Omit),
        ]),
    ),
    ("RootRotationInProgress", Bool),
    ("DefaultAddrPool", Null),
    ("SubnetSize", Number),
    ("DataPathPort", Number),
];

/// `GET /swarm`: the same with the tokens.
pub(crate) static SWARM: &Shape = &[
    ("ID", Text),
    ("Version", Inside(&[("Index", Omit)])),
    ("CreatedAt", ZeroTime),
    ("UpdatedAt", ZeroTime),
    ("Spec", Inside(SWARM_SPEC)),
    (
        "TLSInfo",
        Inside(&[
            ("TrustRoot", Omit),
            ("CertIssuerSubject", Omit),
            ("CertIssuerPublicKey", Omit),
        ]),
    ),
    ("RootRotationInProgress", Bool),
    ("DefaultAddrPool", Null),
    ("SubnetSize", Number),
    ("DataPathPort", Number),
    ("JoinTokens", Inside(&[("Worker", Text), ("Manager", Text)])),
];

static SWARM_SPEC: &Shape = &[
    ("Name", Omit),
    ("Labels", Map),
    (
        "Orchestration",
        Inside(&[("TaskHistoryRetentionLimit", Keep)]),
    ),
    (
        "Raft",
        Inside(&[
            ("SnapshotInterval", Omit),
            ("KeepOldSnapshots", Keep),
            ("LogEntriesForSlowFollowers", Omit),
            ("ElectionTick", Number),
            ("HeartbeatTick", Number),
        ]),
    ),
    ("Dispatcher", Inside(&[("HeartbeatPeriod", Omit)])),
    (
        "CAConfig",
        Inside(&[
            ("NodeCertExpiry", Omit),
            ("ExternalCAs", Omit),
            ("SigningCACert", Omit),
            ("SigningCAKey", Omit),
            ("ForceRotate", Omit),
        ]),
    ),
    ("TaskDefaults", Inside(&[("LogDriver", Keep)])),
    ("EncryptionConfig", Inside(&[("AutoLockManagers", Bool)])),
];
