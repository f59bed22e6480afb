//! Who may call what, and which services only the leader answers.

/// The services of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Ca,
    NodeCa,
    Dispatcher,
    LogBroker,
    Logs,
    ResourceAllocator,
    RaftMembership,
    Raft,
    RaftStream,
    Health,
    Control,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Also without a certificate.
    Anyone,
    Nodes,
    Managers,
}

impl Access {
    pub(crate) fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Anyone => &[],
            Self::Nodes => &["swarm-worker", "swarm-manager"],
            Self::Managers => &["swarm-manager"],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) service: Service,
    pub(crate) access: Access,
    /// Followers pass the call on to the leader.
    pub(crate) proxied: bool,
}

const POLICIES: &[(&str, Service, Access, bool)] = &[
    ("docker.swarmkit.v1.CA", Service::Ca, Access::Managers, true),
    (
        "docker.swarmkit.v1.NodeCA",
        Service::NodeCa,
        Access::Anyone,
        true,
    ),
    (
        "docker.swarmkit.v1.Dispatcher",
        Service::Dispatcher,
        Access::Nodes,
        true,
    ),
    (
        "docker.swarmkit.v1.LogBroker",
        Service::LogBroker,
        Access::Nodes,
        true,
    ),
    (
        "docker.swarmkit.v1.ResourceAllocator",
        Service::ResourceAllocator,
        Access::Nodes,
        true,
    ),
    (
        "docker.swarmkit.v1.RaftMembership",
        Service::RaftMembership,
        Access::Managers,
        true,
    ),
    (
        "docker.swarmkit.v1.Raft",
        Service::Raft,
        Access::Managers,
        false,
    ),
    ("skep.v1.Raft", Service::RaftStream, Access::Managers, false),
    (
        "docker.swarmkit.v1.Health",
        Service::Health,
        Access::Managers,
        false,
    ),
    (
        "docker.swarmkit.v1.Control",
        Service::Control,
        Access::Managers,
        false,
    ),
    (
        "docker.swarmkit.v1.Logs",
        Service::Logs,
        Access::Managers,
        false,
    ),
];

/// The policy of a method, by the path of its requests; `None` for services that are not here.
pub(crate) fn of(path: &str) -> Option<Policy> {
    let (name, method) = path.strip_prefix('/')?.split_once('/')?;
    let &(_, service, access, proxied) = POLICIES.iter().find(|policy| policy.0 == name)?;
    let is_public = service == Service::Ca && method == "GetRootCACertificate";
    Some(Policy {
        service,
        access: if is_public { Access::Anyone } else { access },
        proxied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ways_into_a_swarm_are_open_to_strangers() {
        let open = [
            "/docker.swarmkit.v1.CA/GetRootCACertificate",
            "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate",
            "/docker.swarmkit.v1.NodeCA/NodeCertificateStatus",
        ];
        for path in open {
            assert_eq!(of(path).unwrap().access, Access::Anyone, "{path}");
        }
        let managers = [
            "/docker.swarmkit.v1.CA/GetUnlockKey",
            "/docker.swarmkit.v1.Control/ListNodes",
            "/docker.swarmkit.v1.Raft/StreamRaftMessage",
            "/docker.swarmkit.v1.RaftMembership/Join",
            "/docker.swarmkit.v1.Health/Check",
            "/skep.v1.Raft/Stream",
        ];
        for path in managers {
            assert_eq!(of(path).unwrap().access, Access::Managers, "{path}");
        }
        assert_eq!(of("/docker.swarmkit.v1.Nothing/Method"), None);
        assert_eq!(of("docker.swarmkit.v1.CA"), None);
    }
}
