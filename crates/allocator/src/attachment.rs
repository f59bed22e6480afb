//! Which networks a task is on, and its addresses there.

use skep_model::{Task, TaskState};
use skep_proto as proto;

use crate::ports::is_mesh;
use crate::{AllocationError, Allocator, Holder};

/// The networks a service's tasks are attached to, as its spec names them.
pub fn wanted_networks(spec: &proto::ServiceSpec) -> &[proto::NetworkAttachmentConfig] {
    match &spec.task {
        Some(task) if !task.networks.is_empty() => &task.networks,
        _ => &spec.networks,
    }
}

/// Whether a service's tasks wait for addresses before they are scheduled.
pub fn needs_networks(spec: &proto::ServiceSpec) -> bool {
    !wanted_networks(spec).is_empty() || publishes_on_mesh(spec)
}

pub(crate) fn publishes_on_mesh(spec: &proto::ServiceSpec) -> bool {
    spec.endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.ports.iter().any(is_mesh))
}

/// Whether a task no longer needs what it was given.
pub fn is_over(task: &Task) -> bool {
    task.status.state > TaskState::Running
        || (task.status.state < TaskState::Assigned && task.desired_state > TaskState::Running)
}

impl Allocator {
    /// The attachments of a task of a service that is allocated itself: the mesh's first, as
    /// SwarmKit has it. `objects` finds a network by id or name.
    pub fn task<'a>(
        &mut self,
        task: &Task,
        service: Option<&proto::Service>,
        objects: impl Fn(&str) -> Option<&'a proto::Network>,
        ingress: Option<&'a proto::Network>,
    ) -> Result<Vec<proto::NetworkAttachment>, AllocationError> {
        let service_spec = service.and_then(|service| service.spec.as_ref());
        let configs = if task.spec.networks.is_empty() {
            service_spec.map_or(&[][..], wanted_networks)
        } else {
            &task.spec.networks
        };
        let mut attachments = Vec::new();
        let outcome = (|| {
            if service_spec.is_some_and(publishes_on_mesh) {
                let network =
                    ingress.ok_or_else(|| AllocationError::NoNetwork("ingress".into()))?;
                attachments.push(self.attach(network, &proto::NetworkAttachmentConfig::default())?);
            }
            for config in configs {
                let network = objects(&config.target)
                    .ok_or_else(|| AllocationError::NoNetwork(config.target.clone()))?;
                attachments.push(self.attach(network, config)?);
            }
            Ok(())
        })();
        let holder = Holder::Task(task.id.to_string());
        self.hold(holder.clone(), &attachments);
        if outcome.is_err() {
            // What was taken before the failure is free again.
            self.hold(holder, &[]);
        }
        outcome.map(|()| attachments)
    }

    /// A node's own address on each of these networks. Those it has stay.
    pub fn node<'a>(
        &mut self,
        node: &proto::Node,
        networks: impl Iterator<Item = &'a proto::Network>,
    ) -> Result<Vec<proto::NetworkAttachment>, AllocationError> {
        let mut attachments: Vec<proto::NetworkAttachment> = Vec::new();
        for network in networks {
            let has = |one: &&proto::NetworkAttachment| {
                one.network.as_ref().is_some_and(|n| n.id == network.id)
                    && !one.addresses.is_empty()
            };
            let attachment = match node.attachments.iter().find(has) {
                Some(attachment) => attachment.clone(),
                None => match self.attach(network, &proto::NetworkAttachmentConfig::default()) {
                    Ok(attachment) => attachment,
                    Err(error) => {
                        self.hold(Holder::Node(node.id.clone()), &attachments);
                        self.hold(Holder::Node(node.id.clone()), &node.attachments);
                        return Err(error);
                    }
                },
            };
            attachments.push(attachment);
        }
        self.hold(Holder::Node(node.id.clone()), &attachments);
        Ok(attachments)
    }

    fn attach(
        &mut self,
        network: &proto::Network,
        config: &proto::NetworkAttachmentConfig,
    ) -> Result<proto::NetworkAttachment, AllocationError> {
        let mut attachment = proto::NetworkAttachment {
            network: Some(network.clone()),
            aliases: config.aliases.clone(),
            driver_attachment_opts: config.driver_attachment_opts.clone(),
            ..Default::default()
        };
        if crate::is_overlay(network) {
            let addresses = self
                .networks
                .get_mut(&network.id)
                .ok_or_else(|| AllocationError::Waiting(network.id.clone()))?;
            let wanted = config.addresses.iter().find_map(|text| {
                let text = text.split('/').next()?;
                text.parse().ok()
            });
            let address = match wanted {
                Some(address) => addresses.allocate_this(address)?,
                None => addresses.allocate()?,
            };
            attachment.addresses.push(address.to_string());
        }
        Ok(attachment)
    }
}
