//! Objects for this crate's tests.

use skep_model::proto;
use skep_model::{ServiceId, Slot, Task};

#[expect(
    clippy::unnecessary_wraps,
    reason = "annotations are optional wherever they go"
)]
pub(crate) fn annotations(name: &str) -> Option<proto::Annotations> {
    Some(proto::Annotations {
        name: name.into(),
        ..Default::default()
    })
}

pub(crate) fn service(id: &str, name: &str) -> proto::Service {
    proto::Service {
        id: id.into(),
        spec: Some(proto::ServiceSpec {
            annotations: annotations(name),
            task: Some(proto::TaskSpec {
                force_update: 1,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn task(id: &str, service: &str, slot: u64) -> Task {
    Task {
        id: id.into(),
        service_id: Some(ServiceId::from(service)),
        slot: Slot(slot),
        ..Default::default()
    }
}

pub(crate) fn node(id: &str, hostname: &str) -> proto::Node {
    proto::Node {
        id: id.into(),
        description: Some(proto::NodeDescription {
            hostname: hostname.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
