use std::fmt;
use std::sync::Arc;

use crate::proto;
use crate::{Meta, Task};

/// The kinds of object a swarm keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Node,
    Service,
    Task,
    Network,
    Cluster,
    Secret,
    Config,
    Volume,
    Resource,
    Extension,
}

impl ObjectKind {
    pub const ALL: [Self; 10] = [
        Self::Node,
        Self::Service,
        Self::Task,
        Self::Network,
        Self::Cluster,
        Self::Secret,
        Self::Config,
        Self::Volume,
        Self::Resource,
        Self::Extension,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Task => "task",
            Self::Network => "network",
            Self::Cluster => "cluster",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Volume => "volume",
            Self::Resource => "resource",
            Self::Extension => "extension",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Anything the store keeps, immutable and shared.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Node(Arc<proto::Node>),
    Service(Arc<proto::Service>),
    Task(Arc<Task>),
    Network(Arc<proto::Network>),
    Cluster(Arc<proto::Cluster>),
    Secret(Arc<proto::Secret>),
    Config(Arc<proto::Config>),
    Volume(Arc<proto::Volume>),
    Resource(Arc<proto::Resource>),
    Extension(Arc<proto::Extension>),
}

/// What all stored objects have in common.
pub trait StoreObject: Clone + fmt::Debug + PartialEq + Send + Sync + 'static {
    const KIND: ObjectKind;

    fn id(&self) -> &str;

    /// The name people gave it; empty for a task, whose name is made up of others
    /// ([`Task::name`]).
    fn name(&self) -> &str;

    fn annotations(&self) -> Option<&proto::Annotations>;

    fn meta(&self) -> Meta;

    /// For the store, which alone stamps objects.
    fn set_meta(&mut self, meta: Meta);

    fn into_object(self: Arc<Self>) -> Object;

    fn from_object(object: &Object) -> Option<&Arc<Self>>;
}

/// `$annotations` is the path of the annotations inside the wire message.
macro_rules! store_object {
    ($($kind:ident => |$object:ident| $annotations:expr),* $(,)?) => {$(
        impl StoreObject for proto::$kind {
            const KIND: ObjectKind = ObjectKind::$kind;

            fn id(&self) -> &str {
                &self.id
            }

            fn name(&self) -> &str {
                self.annotations().map_or("", |annotations| &annotations.name)
            }

            fn annotations(&self) -> Option<&proto::Annotations> {
                let $object = self;
                $annotations
            }

            fn meta(&self) -> Meta {
                self.meta.as_ref().map(Meta::from).unwrap_or_default()
            }

            fn set_meta(&mut self, meta: Meta) {
                self.meta = Some(meta.into());
            }

            fn into_object(self: Arc<Self>) -> Object {
                Object::$kind(self)
            }

            fn from_object(object: &Object) -> Option<&Arc<Self>> {
                match object {
                    Object::$kind(object) => Some(object),
                    _ => None,
                }
            }
        }
    )*};
}

store_object! {
    Node => |node| node.spec.as_ref()?.annotations.as_ref(),
    Service => |service| service.spec.as_ref()?.annotations.as_ref(),
    Network => |network| network.spec.as_ref()?.annotations.as_ref(),
    Cluster => |cluster| cluster.spec.as_ref()?.annotations.as_ref(),
    Secret => |secret| secret.spec.as_ref()?.annotations.as_ref(),
    Config => |config| config.spec.as_ref()?.annotations.as_ref(),
    Volume => |volume| volume.spec.as_ref()?.annotations.as_ref(),
    Resource => |resource| resource.annotations.as_ref(),
    Extension => |extension| extension.annotations.as_ref(),
}

impl StoreObject for Task {
    const KIND: ObjectKind = ObjectKind::Task;

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn name(&self) -> &str {
        &self.annotations.name
    }

    fn annotations(&self) -> Option<&proto::Annotations> {
        Some(&self.annotations)
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn set_meta(&mut self, meta: Meta) {
        self.meta = meta;
    }

    fn into_object(self: Arc<Self>) -> Object {
        Object::Task(self)
    }

    fn from_object(object: &Object) -> Option<&Arc<Self>> {
        match object {
            Object::Task(task) => Some(task),
            _ => None,
        }
    }
}

/// Calls the same method on whichever object is inside.
macro_rules! on_each {
    ($self:ident, $object:ident => $call:expr) => {
        match $self {
            Object::Node($object) => $call,
            Object::Service($object) => $call,
            Object::Task($object) => $call,
            Object::Network($object) => $call,
            Object::Cluster($object) => $call,
            Object::Secret($object) => $call,
            Object::Config($object) => $call,
            Object::Volume($object) => $call,
            Object::Resource($object) => $call,
            Object::Extension($object) => $call,
        }
    };
}

impl Object {
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Node(_) => ObjectKind::Node,
            Self::Service(_) => ObjectKind::Service,
            Self::Task(_) => ObjectKind::Task,
            Self::Network(_) => ObjectKind::Network,
            Self::Cluster(_) => ObjectKind::Cluster,
            Self::Secret(_) => ObjectKind::Secret,
            Self::Config(_) => ObjectKind::Config,
            Self::Volume(_) => ObjectKind::Volume,
            Self::Resource(_) => ObjectKind::Resource,
            Self::Extension(_) => ObjectKind::Extension,
        }
    }

    pub fn id(&self) -> &str {
        on_each!(self, object => StoreObject::id(&**object))
    }

    /// See [`StoreObject::name`].
    pub fn name(&self) -> &str {
        on_each!(self, object => StoreObject::name(&**object))
    }

    pub fn annotations(&self) -> Option<&proto::Annotations> {
        on_each!(self, object => object.annotations())
    }

    pub fn meta(&self) -> Meta {
        on_each!(self, object => StoreObject::meta(&**object))
    }

    pub fn version(&self) -> crate::Version {
        self.meta().version
    }

    /// Whether both are the same allocation: a cheap "nothing changed".
    pub fn ptr_eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Node(a), Self::Node(b)) => Arc::ptr_eq(a, b),
            (Self::Service(a), Self::Service(b)) => Arc::ptr_eq(a, b),
            (Self::Task(a), Self::Task(b)) => Arc::ptr_eq(a, b),
            (Self::Network(a), Self::Network(b)) => Arc::ptr_eq(a, b),
            (Self::Cluster(a), Self::Cluster(b)) => Arc::ptr_eq(a, b),
            (Self::Secret(a), Self::Secret(b)) => Arc::ptr_eq(a, b),
            (Self::Config(a), Self::Config(b)) => Arc::ptr_eq(a, b),
            (Self::Volume(a), Self::Volume(b)) => Arc::ptr_eq(a, b),
            (Self::Resource(a), Self::Resource(b)) => Arc::ptr_eq(a, b),
            (Self::Extension(a), Self::Extension(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl<T: StoreObject> From<Arc<T>> for Object {
    fn from(object: Arc<T>) -> Self {
        object.into_object()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_and_version_are_found_in_any_kind() {
        let mut secret = proto::Secret {
            id: "s1".into(),
            spec: Some(proto::SecretSpec {
                annotations: Some(proto::Annotations {
                    name: "key".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        secret.set_meta(Meta {
            version: crate::Version(9),
            ..Default::default()
        });
        let object = Object::from(Arc::new(secret));
        assert_eq!(
            (object.kind(), object.id(), object.name()),
            (ObjectKind::Secret, "s1", "key")
        );
        assert_eq!(object.version(), crate::Version(9));
    }
}
