//! What `docker events` says of the swarm, on a manager: every change of a service, node, network,
//! secret or config, as dockerd tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bollard_stubs::models as m;
use skep_model::{Object, ObjectKind, Timestamp, proto};
use skep_store::{Event, Snapshot, Watch, WatchError, WatchFilter};

use crate::Cluster;

/// How often a node that is no manager looks whether it has become one.
const PAUSE: Duration = Duration::from_millis(500);

const KINDS: [ObjectKind; 5] = [
    ObjectKind::Node,
    ObjectKind::Service,
    ObjectKind::Network,
    ObjectKind::Secret,
    ObjectKind::Config,
];

impl Cluster {
    /// Publishes changes for as long as the cluster lives. What is older than the daemon, or than this
    /// node's part in the swarm, is no news.
    pub async fn tell_events(self: Arc<Self>, publish: impl Fn(m::EventMessage) + Send) {
        let mut since = Timestamp::from(SystemTime::now());
        let mut watch = self.watch_told().map(|(_, watch)| watch);
        let cluster = Arc::downgrade(&self);
        drop(self);
        loop {
            if let Some(changes) = watch.take() {
                follow(changes, &publish).await;
                since = Timestamp::from(SystemTime::now());
            }
            tokio::time::sleep(PAUSE).await;
            let Some(cluster) = cluster.upgrade() else {
                return;
            };
            watch = cluster.watch_told().map(|(snapshot, changes)| {
                tell_newer(&snapshot, since, &publish);
                changes
            });
        }
    }

    fn watch_told(&self) -> Option<(Snapshot, Watch)> {
        let seat = self.manager().ok()?;
        let filter = WatchFilter::kinds(KINDS);
        Some(seat.store().snapshot_and_watch(filter))
    }
}

/// Until this node is no manager any more.
async fn follow(mut changes: Watch, publish: &impl Fn(m::EventMessage)) {
    loop {
        match changes.next().await {
            Ok(event) => tell(&event, publish),
            Err(WatchError::Lagged) => {
                tracing::warn!("events of the swarm were missed: too many at once");
            }
            Err(WatchError::Closed) => return,
        }
    }
}

/// Between becoming a manager and watching some objects have been made.
fn tell_newer(snapshot: &Snapshot, since: Timestamp, publish: &impl Fn(m::EventMessage)) {
    let nodes = snapshot.all::<proto::Node>().cloned().map(Object::Node);
    let networks = snapshot
        .all::<proto::Network>()
        .cloned()
        .map(Object::Network);
    let services = snapshot
        .all::<proto::Service>()
        .cloned()
        .map(Object::Service);
    let secrets = snapshot.all::<proto::Secret>().cloned().map(Object::Secret);
    let configs = snapshot.all::<proto::Config>().cloned().map(Object::Config);
    for object in nodes
        .chain(networks)
        .chain(services)
        .chain(secrets)
        .chain(configs)
        .filter(|object| object.meta().created_at.is_some_and(|at| at >= since))
    {
        let created = Event {
            version: 0,
            old: None,
            new: Some(object),
        };
        tell(&created, publish);
    }
}

fn tell(event: &Event, publish: &impl Fn(m::EventMessage)) {
    if let Some(message) = message(event) {
        publish(message);
    }
}

/// The event as clients see it. It bears the time of the change; removals have none.
fn message(event: &Event) -> Option<m::EventMessage> {
    use m::EventMessageTypeEnum as Type;
    let object = event.object();
    let typ = match object.kind() {
        ObjectKind::Node => Type::NODE,
        ObjectKind::Service => Type::SERVICE,
        ObjectKind::Network => Type::NETWORK,
        ObjectKind::Secret => Type::SECRET,
        ObjectKind::Config => Type::CONFIG,
        _ => return None,
    };
    let (action, at) = match (&event.old, &event.new) {
        (None, _) => ("create", object.meta().created_at),
        (Some(_), Some(_)) => ("update", object.meta().updated_at),
        (Some(_), None) => ("remove", None),
    };
    let mut attributes = HashMap::from([("name".to_owned(), name(object))]);
    if let (Some(old), Some(new)) = (&event.old, &event.new) {
        attributes.extend(differences(old, new));
    }
    let nanos = at.and_then(|at| i64::try_from(at.as_nanos()).ok());
    Some(m::EventMessage {
        typ: Some(typ),
        action: Some(action.to_owned()),
        actor: Some(m::EventActor {
            id: Some(object.id().to_owned()),
            attributes: Some(attributes),
        }),
        scope: Some(m::EventMessageScopeEnum::SWARM),
        time: at.map(Timestamp::as_secs),
        time_nano: nanos,
    })
}

/// A node without a name of its own is called as its machine is.
fn name(object: &Object) -> String {
    match object {
        Object::Node(node) if object.name().is_empty() => node
            .description
            .as_ref()
            .map(|description| description.hostname.clone())
            .unwrap_or_default(),
        _ => object.name().to_owned(),
    }
}

fn differences(old: &Object, new: &Object) -> Vec<(String, String)> {
    let mut changes = Changes::default();
    match (old, new) {
        (Object::Node(old), Object::Node(new)) => changes.of_node(old, new),
        (Object::Service(old), Object::Service(new)) => changes.of_service(old, new),
        _ => {}
    }
    changes.0
}

/// `x.old` and `x.new` of what has changed.
#[derive(Default)]
struct Changes(Vec<(String, String)>);

impl Changes {
    fn note(&mut self, what: &str, old: String, new: String) {
        if old != new {
            self.0.push((format!("{what}.old"), old));
            self.0.push((format!("{what}.new"), new));
        }
    }

    fn of_node(&mut self, old: &proto::Node, new: &proto::Node) {
        let availability = |node: &proto::Node| {
            let spec = node.spec.clone().unwrap_or_default();
            lower(spec.availability().as_str_name())
        };
        self.note("availability", availability(old), availability(new));
        let role = |node: &proto::Node| lower(node.role().as_str_name());
        self.note("role", role(old), role(new));
        let state = |node: &proto::Node| {
            let status = node.status.clone().unwrap_or_default();
            lower(status.state().as_str_name())
        };
        self.note("state", state(old), state(new));
        if let (Some(old), Some(new)) = (&old.manager_status, &new.manager_status) {
            self.note("leader", old.leader.to_string(), new.leader.to_string());
            self.note(
                "reachability",
                lower(old.reachability().as_str_name()),
                lower(new.reachability().as_str_name()),
            );
        }
    }

    fn of_service(&mut self, old: &proto::Service, new: &proto::Service) {
        if let (Some(old), Some(new)) = (image(old), image(new)) {
            self.note("image", old.to_owned(), new.to_owned());
        }
        if let (Some(old), Some(new)) = (replicas(old), replicas(new)) {
            self.note("replicas", old.to_string(), new.to_string());
        }
        let state = |service: &proto::Service| {
            let status = service.update_status.as_ref();
            status.map(|status| lower(status.state().as_str_name()))
        };
        match (state(old), state(new)) {
            (None, Some(new)) => self.0.push(("updatestate.new".to_owned(), new)),
            (Some(old), Some(new)) => self.note("updatestate", old, new),
            (_, None) => {}
        }
    }
}

fn image(service: &proto::Service) -> Option<&str> {
    let task = service.spec.as_ref()?.task.as_ref()?;
    match task.runtime.as_ref()? {
        proto::task_spec::Runtime::Container(container) => Some(&container.image),
        _ => None,
    }
}

fn replicas(service: &proto::Service) -> Option<u64> {
    match service.spec.as_ref()?.mode.as_ref()? {
        proto::service_spec::Mode::Replicated(mode) => Some(mode.replicas),
        _ => None,
    }
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(image: &str, replicas: u64) -> Object {
        let annotations = proto::Annotations {
            name: "web".into(),
            ..Default::default()
        };
        let container = proto::ContainerSpec {
            image: image.into(),
            ..Default::default()
        };
        let spec = proto::ServiceSpec {
            annotations: Some(annotations),
            task: Some(proto::TaskSpec {
                runtime: Some(proto::task_spec::Runtime::Container(container)),
                ..Default::default()
            }),
            mode: Some(proto::service_spec::Mode::Replicated(
                proto::ReplicatedService { replicas },
            )),
            ..Default::default()
        };
        Object::Service(Arc::new(proto::Service {
            id: "s1".into(),
            spec: Some(spec),
            ..Default::default()
        }))
    }

    fn attributes(message: &m::EventMessage) -> Vec<String> {
        let actor = message.actor.as_ref().unwrap();
        let mut all: Vec<_> = actor
            .attributes
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn an_update_says_what_has_changed() {
        let event = Event {
            version: 2,
            old: Some(service("web:1", 1)),
            new: Some(service("web:2", 1)),
        };
        let message = message(&event).unwrap();
        assert_eq!(message.action.as_deref(), Some("update"));
        assert_eq!(message.scope, Some(m::EventMessageScopeEnum::SWARM));
        assert_eq!(
            attributes(&message),
            ["image.new=web:2", "image.old=web:1", "name=web"]
        );
    }

    #[test]
    fn what_is_gone_is_told_by_what_it_was() {
        let event = Event {
            version: 2,
            old: Some(service("web:1", 3)),
            new: None,
        };
        let message = message(&event).unwrap();
        assert_eq!(message.action.as_deref(), Some("remove"));
        assert_eq!(attributes(&message), ["name=web"]);
        assert_eq!(message.time, None, "the publisher's clock");
    }

    #[test]
    fn a_nodes_new_state_is_told_with_the_old_one() {
        let node = |state: proto::node_status::State| {
            let mut status = proto::NodeStatus::default();
            status.set_state(state);
            Object::Node(Arc::new(proto::Node {
                id: "n1".into(),
                status: Some(status),
                description: Some(proto::NodeDescription {
                    hostname: "box".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }))
        };
        let event = Event {
            version: 2,
            old: Some(node(proto::node_status::State::Ready)),
            new: Some(node(proto::node_status::State::Down)),
        };
        assert_eq!(
            attributes(&message(&event).unwrap()),
            ["name=box", "state.new=down", "state.old=ready"]
        );
    }
}
