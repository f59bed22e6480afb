//! Nodes.

use skep_proto::{self as p, node_spec, node_status, raft_member_status};

use super::super::types as t;
use super::{annotations, meta, names, node_resources, number, word};

pub(crate) fn node(node: &p::Node) -> t::Node {
    let empty = p::NodeSpec::default();
    let spec = node.spec.as_ref().unwrap_or(&empty);
    let (name, labels) = names(spec.annotations.as_ref());
    t::Node {
        id: node.id.clone(),
        meta: meta(node.meta.as_ref()),
        spec: t::NodeSpec {
            name,
            labels,
            role: word!(p::NodeRole, spec.desired_role),
            availability: word!(node_spec::Availability, spec.availability),
        },
        description: node
            .description
            .as_ref()
            .map(description)
            .unwrap_or_default(),
        status: status(node.status.as_ref().unwrap_or(&p::NodeStatus::default())),
        manager_status: node.manager_status.as_ref().map(|status| t::ManagerStatus {
            leader: status.leader,
            reachability: word!(raft_member_status::Reachability, status.reachability),
            addr: status.addr.clone(),
        }),
    }
}

fn status(status: &p::NodeStatus) -> t::NodeStatus {
    t::NodeStatus {
        state: word!(node_status::State, status.state),
        message: status.message.clone(),
        addr: status.addr.clone(),
    }
}

fn description(description: &p::NodeDescription) -> t::NodeDescription {
    t::NodeDescription {
        hostname: description.hostname.clone(),
        platform: description
            .platform
            .as_ref()
            .map(|platform| t::Platform {
                architecture: platform.architecture.clone(),
                os: platform.os.clone(),
            })
            .unwrap_or_default(),
        resources: description
            .resources
            .as_ref()
            .map(node_resources)
            .unwrap_or_default(),
        engine: description.engine.as_ref().map(engine).unwrap_or_default(),
        tls_info: description
            .tls_info
            .as_ref()
            .map(|info| t::TlsInfo {
                trust_root: String::from_utf8_lossy(&info.trust_root).into_owned(),
                cert_issuer_subject: t::Bytes(info.cert_issuer_subject.clone()),
                cert_issuer_public_key: t::Bytes(info.cert_issuer_public_key.clone()),
            })
            .unwrap_or_default(),
        csi_info: description
            .csi_info
            .iter()
            .map(|info| t::CsiInfo {
                plugin_name: info.plugin_name.clone(),
                node_id: info.node_id.clone(),
                max_volumes_per_node: info.max_volumes_per_node,
                accessible_topology: info.accessible_topology.as_ref().map(|topology| {
                    t::Topology {
                        segments: topology.segments.clone(),
                    }
                }),
            })
            .collect(),
    }
}

fn engine(engine: &p::EngineDescription) -> t::EngineDescription {
    t::EngineDescription {
        engine_version: engine.engine_version.clone(),
        labels: engine.labels.clone(),
        plugins: engine
            .plugins
            .iter()
            .map(|plugin| t::PluginDescription {
                kind: plugin.r#type.clone(),
                name: plugin.name.clone(),
            })
            .collect(),
    }
}

/// To SwarmKit's form. Role and availability must be there.
pub(crate) fn node_spec_to(spec: &t::NodeSpec) -> Result<p::NodeSpec, String> {
    Ok(p::NodeSpec {
        annotations: Some(annotations(&spec.name, &spec.labels)),
        desired_role: number!(p::NodeRole, spec.role)
            .ok_or_else(|| format!("invalid Role: {:?}", spec.role))?,
        membership: 0,
        availability: number!(node_spec::Availability, spec.availability)
            .ok_or_else(|| format!("invalid Availability: {:?}", spec.availability))?,
    })
}
