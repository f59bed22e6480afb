//! What a node must satisfy before a task may run on it, and the sentence for when none does.

use skep_model::Task;
use skep_proto as proto;

use crate::constraint::{self, Constraint};
use crate::node::{HostPort, NodeInfo};
use crate::resources::reservations;

/// Why a node was refused: the first filter that it failed, in the order of this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    NotReady,
    Resources,
    Plugin,
    Constraints,
    Platform,
    HostPort,
    MaxReplicas,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::NotReady,
        Self::Resources,
        Self::Plugin,
        Self::Constraints,
        Self::Platform,
        Self::HostPort,
        Self::MaxReplicas,
    ];

    /// SwarmKit's sentence; people search for these words.
    fn explain(self, nodes: usize) -> String {
        let counted = |text: &str| match nodes {
            1 => format!("{text} on 1 node"),
            _ => format!("{text} on {nodes} nodes"),
        };
        match self {
            Self::NotReady if nodes == 1 => "1 node not available for new tasks".to_owned(),
            Self::NotReady => format!("{nodes} nodes not available for new tasks"),
            Self::Resources => counted("insufficient resources"),
            Self::Plugin => counted("missing plugin"),
            Self::Constraints => counted("scheduling constraints not satisfied"),
            Self::Platform => counted("unsupported platform"),
            Self::HostPort => counted("host-mode port already in use"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// How many nodes each filter refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals([usize; Refusal::ALL.len()]);

impl Refusals {
    pub(crate) fn count(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    /// The reasons, from the one that refused most nodes; empty if there were no nodes.
    pub(crate) fn explain(&self) -> String {
        let mut reasons: Vec<(usize, Refusal)> = Refusal::ALL
            .into_iter()
            .map(|refusal| (self.0[refusal as usize], refusal))
            .filter(|(nodes, _)| *nodes > 0)
            .collect();
        reasons.sort_by_key(|(nodes, _)| std::cmp::Reverse(*nodes));
        let sentences: Vec<String> = reasons
            .into_iter()
            .map(|(nodes, refusal)| refusal.explain(nodes))
            .collect();
        sentences.join("; ")
    }
}

/// What the tasks of one group ask of a node; all of them ask the same.
#[derive(Clone, Debug)]
pub(crate) struct Filters<'a> {
    reservations: Option<&'a proto::Resources>,
    plugins: Vec<Plugin<'a>>,
    constraints: Vec<Constraint>,
    platforms: &'a [proto::Platform],
    ports: Vec<HostPort>,
    max_replicas: u64,
}

#[derive(Clone, Copy, Debug)]
struct Plugin<'a> {
    kind: &'static str,
    name: &'a str,
    /// Engines that report no log drivers at all are old, not without any.
    only_if_kind_reported: bool,
}

impl<'a> Filters<'a> {
    pub(crate) fn new(task: &'a Task) -> Self {
        let placement = task.spec.placement.as_ref();
        let constraints = placement.map_or(&[][..], |p| &p.constraints);
        Self {
            reservations: reservations(&task.spec),
            plugins: plugins(task),
            // The control API refused bad ones; from an older manager they are as good as none.
            constraints: constraint::parse(constraints).unwrap_or_default(),
            platforms: placement.map_or(&[][..], |p| &p.platforms),
            ports: crate::node::host_ports(task),
            max_replicas: placement.map_or(0, |p| p.max_replicas),
        }
    }

    /// What the group reserves on each node it is put on.
    pub(crate) fn reservations(&self) -> Option<&'a proto::Resources> {
        self.reservations
    }

    /// Why the node cannot take one more task, `None` if it can. `siblings` is the number of active
    /// tasks of the same service it has already.
    pub(crate) fn refusal(&self, node: &NodeInfo, siblings: u32) -> Option<Refusal> {
        if !node.is_ready() {
            Some(Refusal::NotReady)
        } else if !self.reservations.is_none_or(|wanted| node.fits(wanted)) {
            Some(Refusal::Resources)
        } else if !self.plugins.iter().all(|plugin| plugin.is_on(node.node())) {
            Some(Refusal::Plugin)
        } else if !constraint::matches_all(&self.constraints, node.node()) {
            Some(Refusal::Constraints)
        } else if !self.platform_fits(node.node()) {
            Some(Refusal::Platform)
        } else if self.ports.iter().any(|port| node.uses_port(*port)) {
            Some(Refusal::HostPort)
        } else if self.max_replicas > 0 && u64::from(siblings) >= self.max_replicas {
            Some(Refusal::MaxReplicas)
        } else {
            None
        }
    }

    fn platform_fits(&self, node: &proto::Node) -> bool {
        if self.platforms.is_empty() {
            return true;
        }
        let Some(actual) = node.description.as_ref().and_then(|d| d.platform.as_ref()) else {
            return false;
        };
        self.platforms.iter().any(|wanted| {
            let arch = canonical_arch(&wanted.architecture);
            (arch.is_empty() || arch == canonical_arch(&actual.architecture))
                && (wanted.os.is_empty() || wanted.os == actual.os)
        })
    }
}

/// Images and kernels name the same processor differently.
fn canonical_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn plugins(task: &Task) -> Vec<Plugin<'_>> {
    let mut plugins = Vec::new();
    for mount in task
        .container()
        .map_or(&[][..], |container| &container.mounts)
    {
        let driver = mount
            .volume_options
            .as_ref()
            .and_then(|v| v.driver_config.as_ref());
        if let Some(driver) = driver
            && mount.r#type() == proto::mount::Type::Volume
            && !matches!(driver.name.as_str(), "" | "local")
        {
            plugins.push(Plugin {
                kind: "Volume",
                name: &driver.name,
                only_if_kind_reported: false,
            });
        }
    }
    for attachment in &task.networks {
        let driver = attachment
            .network
            .as_ref()
            .and_then(|n| n.driver_state.as_ref());
        if let Some(driver) = driver.filter(|driver| !driver.name.is_empty()) {
            plugins.push(Plugin {
                kind: "Network",
                name: &driver.name,
                only_if_kind_reported: false,
            });
        }
    }
    if let Some(driver) = &task.spec.log_driver
        && !matches!(driver.name.as_str(), "" | "none")
    {
        plugins.push(Plugin {
            kind: "Log",
            name: &driver.name,
            only_if_kind_reported: true,
        });
    }
    plugins
}

impl Plugin<'_> {
    fn is_on(self, node: &proto::Node) -> bool {
        // A node that describes no engine has nothing to look for plugins in.
        let Some(engine) = node.description.as_ref().and_then(|d| d.engine.as_ref()) else {
            return true;
        };
        let mut of_kind = engine
            .plugins
            .iter()
            .filter(|p| p.r#type == self.kind)
            .peekable();
        if self.only_if_kind_reported && of_kind.peek().is_none() {
            return true;
        }
        of_kind.any(|p| {
            p.name
                .strip_prefix(self.name)
                .is_some_and(|tag| matches!(tag, "" | ":latest"))
        })
    }
}
