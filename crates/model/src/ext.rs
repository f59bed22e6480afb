//! Reading wire objects without unwrapping what SwarmKit always sets. Its Go structs hold these
//! sub-messages by value; prost gives an `Option`, and an absent one means the default.

use std::sync::LazyLock;

use crate::proto;

macro_rules! sub_messages {
    ($($(#[$doc:meta])* $trait:ident for $message:ident { $($field:ident: $type:ident),* $(,)? })*) => {$(
        $(#[$doc])*
        pub trait $trait {
            $(fn $field(&self) -> &proto::$type;)*
        }

        impl $trait for proto::$message {
            $(fn $field(&self) -> &proto::$type {
                static DEFAULT: LazyLock<proto::$type> = LazyLock::new(proto::$type::default);
                self.$field.as_ref().unwrap_or(&DEFAULT)
            })*
        }
    )*};
}

sub_messages! {
    NodeExt for Node {
        spec: NodeSpec,
        status: NodeStatus,
        certificate: Certificate,
    }
    ServiceExt for Service {
        spec: ServiceSpec,
    }
    ServiceSpecExt for ServiceSpec {
        annotations: Annotations,
        task: TaskSpec,
    }
    NodeSpecExt for NodeSpec {
        annotations: Annotations,
    }
    ClusterExt for Cluster {
        spec: ClusterSpec,
        root_ca: RootCa,
    }
    ClusterSpecExt for ClusterSpec {
        annotations: Annotations,
        acceptance_policy: AcceptancePolicy,
        orchestration: OrchestrationConfig,
        raft: RaftConfig,
        dispatcher: DispatcherConfig,
        ca_config: CaConfig,
        task_defaults: TaskDefaults,
        encryption_config: EncryptionConfig,
    }
    NetworkExt for Network {
        spec: NetworkSpec,
    }
    NetworkSpecExt for NetworkSpec {
        annotations: Annotations,
    }
    SecretExt for Secret {
        spec: SecretSpec,
    }
    SecretSpecExt for SecretSpec {
        annotations: Annotations,
    }
    ConfigExt for Config {
        spec: ConfigSpec,
    }
    ConfigSpecExt for ConfigSpec {
        annotations: Annotations,
    }
    VolumeExt for Volume {
        spec: VolumeSpec,
    }
    VolumeSpecExt for VolumeSpec {
        annotations: Annotations,
    }
    RootCaExt for RootCa {
        join_tokens: JoinTokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_sub_message_reads_as_the_default() {
        let service = proto::Service::default();
        assert_eq!(service.spec().task(), &proto::TaskSpec::default());
    }

    #[test]
    fn a_present_one_reads_as_itself() {
        let spec = proto::ServiceSpec {
            task: Some(proto::TaskSpec {
                force_update: 2,
                ..Default::default()
            }),
            ..Default::default()
        };
        let service = proto::Service {
            spec: Some(spec),
            ..Default::default()
        };
        assert_eq!(service.spec().task().force_update, 2);
    }
}
