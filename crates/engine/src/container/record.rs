//! What is kept of a container on disk: one JSON file each.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models as m;
use serde::{Deserialize, Serialize};

use super::state::State;
use crate::mounts::MountPoint;
use crate::time::UnixNanos;

/// The container as it was created, and its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// Without the leading slash that clients see.
    pub(crate) name: String,
    pub(crate) created: UnixNanos,
    /// `sha256:…`
    pub(crate) image_id: String,
    pub(crate) config: m::ContainerConfig,
    pub(crate) host_config: m::HostConfig,
    /// What was asked of each network, by its name as given.
    pub(crate) networks: BTreeMap<String, m::EndpointSettings>,
    /// Ids of the containers it is linked to, by their aliases.
    #[serde(default)]
    pub(crate) links: BTreeMap<String, String>,
    /// By destination.
    pub(crate) mounts: BTreeMap<String, MountPoint>,
    pub(crate) security: Security,
    pub(crate) state: State,
    pub(crate) restart_count: i64,
    pub(crate) stopped_by_hand: bool,
    pub(crate) ever_started: bool,
    /// What the networks gave while it runs, by network name; empty fields once it stopped.
    #[serde(default)]
    pub(crate) endpoints: BTreeMap<String, skep_network::Endpoint>,
    /// Has secrets or configs, which are not kept here.
    #[serde(default)]
    pub(crate) task_files: bool,
}

/// `HostConfig.SecurityOpt`, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    /// "unconfined", or a profile in JSON; `None`: the daemon's default.
    pub(crate) seccomp: Option<String>,
    pub(crate) apparmor: Option<String>,
    pub(crate) writable_cgroups: Option<bool>,
}

impl Record {
    /// The program and its arguments, as `Path` and `Args` of inspect show them.
    pub(crate) fn command(&self) -> (String, Vec<String>) {
        let mut words = self.config.entrypoint.clone().unwrap_or_default();
        words.extend(self.config.cmd.iter().flatten().cloned());
        if words.is_empty() {
            return (String::new(), words);
        }
        let path = words.remove(0);
        (path, words)
    }

    pub(crate) fn tty(&self) -> bool {
        self.config.tty.unwrap_or(false)
    }

    pub(crate) fn labels(&self) -> &HashMap<String, String> {
        static EMPTY: std::sync::LazyLock<HashMap<String, String>> =
            std::sync::LazyLock::new(HashMap::new);
        self.config.labels.as_ref().unwrap_or(&EMPTY)
    }

    /// The volumes that it mounts; one may come twice.
    pub(crate) fn volume_names(&self) -> impl Iterator<Item = &str> {
        self.mounts
            .values()
            .filter_map(|point| point.name.as_deref())
    }

    pub(crate) fn network_mode(&self) -> &str {
        self.host_config
            .network_mode
            .as_deref()
            .unwrap_or("default")
    }

    pub(crate) fn log_driver(&self) -> &str {
        self.host_config
            .log_config
            .as_ref()
            .and_then(|config| config.typ.as_deref())
            .unwrap_or("json-file")
    }

    /// The image's name as given at creation.
    pub(crate) fn image_name(&self) -> &str {
        self.config.image.as_deref().unwrap_or_default()
    }

    /// What every event of this container says about it.
    pub(crate) fn event_attributes(&self) -> HashMap<String, String> {
        let mut attributes = self.labels().clone();
        attributes.insert("name".to_owned(), self.name.clone());
        attributes.insert("image".to_owned(), self.image_name().to_owned());
        attributes
    }
}
