//! What the engine asks the runtime for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::seccomp::SeccompProfile;

/// Where the runtime keeps its sockets and states, and how it starts a shim.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// One directory per container is made below; it belongs on a tmpfs (`/run/…`), for nothing in it
    /// means anything after a reboot.
    pub exec_root: PathBuf,
    /// The binary that calls [`crate::shim::main`]; normally the daemon's own, `/proc/self/exe`.
    pub shim: PathBuf,
    /// What comes before the shim's own arguments on its command line.
    pub shim_args: Vec<OsString>,
}

impl RuntimeConfig {
    /// The daemon's own binary as the shim: `/proc/self/exe shim …`.
    pub fn new(exec_root: impl Into<PathBuf>) -> Self {
        Self {
            exec_root: exec_root.into(),
            shim: PathBuf::from("/proc/self/exe"),
            shim_args: vec![OsString::from("shim")],
        }
    }
}

/// A container to create. The rootfs (`spec.root.path`, absolute) must be mounted already.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Docker's 64-digit id, or anything that is one path component of `[A-Za-z0-9_.-]`.
    pub id: String,
    /// A directory of this container; receives `config.json` and, in the end, `exit.json`.
    pub bundle: PathBuf,
    /// Usually made with [`crate::spec::ContainerSpec`]. Its `linux.seccomp` is ignored: see `seccomp`.
    pub spec: Spec,
    pub stdio: StdioConfig,
    pub log: LogTarget,
    pub runtime: RuntimeKind,
    pub seccomp: SeccompProfile,
    /// `--exec-opt native.cgroupdriver=systemd`; the spec's cgroups path is then `slice:prefix:name`.
    pub systemd_cgroup: bool,
}

/// How the container's standard streams are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdioConfig {
    pub tty: bool,
    /// Otherwise standard input is `/dev/null`.
    pub open_stdin: bool,
    /// Close standard input when the first client that attached to it is done.
    pub stdin_once: bool,
}

/// Where the shim writes the container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTarget {
    /// Docker's `json-file` driver.
    JsonFile {
        path: PathBuf,
        /// Bytes after which the file is rotated; `None`: never.
        max_size: Option<u64>,
        /// Files kept, the current one included; at least 1.
        max_file: u32,
        /// Gzip the rotated files.
        compress: bool,
        /// Written into every line as `attrs`.
        attrs: BTreeMap<String, String>,
        /// `mode=non-blocking`: rather lose lines than wait for the disk, with so many bytes of them
        /// kept in memory.
        #[serde(default)]
        buffer: Option<u64>,
    },
    /// The `none` driver.
    Discard,
}

/// Who makes the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeKind {
    /// libcontainer, inside the shim.
    #[default]
    Builtin,
    /// A `runc`-compatible command line: runc, crun, runsc, kata-runtime.
    Oci { path: PathBuf, args: Vec<String> },
}

/// Which streams a client wants. Output is what comes from now on: history is in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A process to run inside a running container.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Unique within the container; one path component.
    pub id: String,
    /// Complete: user, environment, capabilities, cwd. `terminal` and `noNewPrivileges: false` are
    /// normalised here, so that what is asked is what runs.
    pub process: Process,
    pub tty: bool,
    /// Streams that are not asked for are `/dev/null` (with a tty: read and thrown away).
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}
