//! Nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use skep_ca::CertificateInfo;
use skep_model::ext::{NodeExt as _, NodeSpecExt as _};
use skep_model::{NodeId, Task, TaskState, TaskStatus, Timestamp};
use skep_proto as proto;
use skep_store::{Transaction, View};

use super::Control;
use super::cluster::forget_expired_certificates;
use super::filter::{contains, has_labels, has_number, has_prefix};
use crate::error::{Code, ControlError, Result};
use crate::members::{Member, can_remove, status_of};

impl Control {
    pub fn get_node(&self, request: &proto::GetNodeRequest) -> Result<proto::GetNodeResponse> {
        let id = &request.node_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        let snapshot = self.store.snapshot();
        let node = snapshot
            .get::<proto::Node>(id)
            .ok_or_else(|| not_found(id))?;
        Ok(proto::GetNodeResponse {
            node: Some(self.with_manager_status(node)),
        })
    }

    pub fn list_nodes(&self, request: &proto::ListNodesRequest) -> proto::ListNodesResponse {
        let filters = request.filters.clone().unwrap_or_default();
        let snapshot = self.store.snapshot();
        let nodes = snapshot
            .nodes()
            .filter(|node| holds(&filters, node))
            .map(|node| self.with_manager_status(node))
            .collect();
        proto::ListNodesResponse { nodes }
    }

    /// Who is a manager now, and how it fares, is the raft layer's to say.
    fn with_manager_status(&self, node: &proto::Node) -> proto::Node {
        let mut node = node.clone();
        if let Some(status) = status_of(&self.members.borrow(), &node.id) {
            node.manager_status = Some(status);
        }
        node
    }

    pub async fn update_node(
        &self,
        request: proto::UpdateNodeRequest,
    ) -> Result<proto::UpdateNodeResponse> {
        let id = request.node_id;
        let version = request.node_version.filter(|_| !id.is_empty());
        let version = version.ok_or_else(ControlError::incomplete)?;
        let spec = request.spec.ok_or_else(ControlError::incomplete)?;
        let members = self.members.borrow().clone();
        let updated = self
            .store
            .update(|tx| {
                let mut node =
                    (**tx.get::<proto::Node>(&id).ok_or_else(|| not_found(&id))?).clone();
                let demoted = node.spec().desired_role() == proto::NodeRole::Manager
                    && spec.desired_role() == proto::NodeRole::Worker;
                if demoted {
                    check_demotion(tx, &members, &id)?;
                }
                node.meta.get_or_insert_default().version = Some(version);
                node.spec = Some(spec);
                tx.update(node).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::UpdateNodeResponse {
            node: Some(self.with_manager_status(&updated)),
        })
    }

    /// Removes a node that is down (or any, if forced), bars its certificate and gives up its tasks.
    pub async fn remove_node(
        &self,
        request: proto::RemoveNodeRequest,
    ) -> Result<proto::RemoveNodeResponse> {
        let id = request.node_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        let members = self.members.borrow().clone();
        self.store
            .update(|tx| {
                let node = Arc::clone(tx.get::<proto::Node>(&id).ok_or_else(|| not_found(&id))?);
                let is_manager = node.spec().desired_role() == proto::NodeRole::Manager;
                if is_manager && members.iter().any(|member| member.node_id == id) {
                    return Err(ControlError::precondition(format!(
                        "node {id} is a cluster manager and is a member of the raft cluster. It \
                         must be demoted to worker before removal"
                    )));
                }
                let ready = node.status().state() == proto::node_status::State::Ready;
                if ready && !request.force {
                    let message = format!("node {id} is not down and can't be removed");
                    return Err(ControlError::precondition(message));
                }
                bar_certificate(tx, &node)?;
                orphan_tasks(tx, &id)?;
                tx.delete::<proto::Node>(&id).map_err(ControlError::from)
            })
            .await?;
        Ok(proto::RemoveNodeResponse {})
    }
}

fn not_found(id: &str) -> ControlError {
    ControlError::not_found(format!("node {id} not found"))
}

fn holds(filters: &proto::list_nodes_request::Filters, node: &proto::Node) -> bool {
    let none = BTreeMap::new();
    let description = node.description.as_ref();
    let hostname = description.map_or("", |description| &description.hostname);
    let engine = description.and_then(|description| description.engine.as_ref());
    contains(&filters.names, hostname)
        && has_prefix(&filters.name_prefixes, hostname)
        && has_prefix(&filters.id_prefixes, &node.id)
        && has_labels(
            &filters.labels,
            engine.map_or(&none, |engine| &engine.labels),
        )
        && has_labels(&filters.node_labels, &node.spec().annotations().labels)
        && has_number(&filters.roles, node.role)
        && has_number(&filters.memberships, node.spec().membership)
}

fn check_demotion(view: &View, members: &[Member], id: &str) -> Result<()> {
    let mut managers = view.nodes_with_role(proto::NodeRole::Manager);
    if managers.next().is_some_and(|manager| manager.id == id) && managers.next().is_none() {
        let message = "attempting to demote the last manager of the swarm";
        return Err(ControlError::precondition(message));
    }
    let member = members.iter().find(|member| member.node_id == id);
    let member =
        member.ok_or_else(|| ControlError::not_found("can't find manager in raft memberlist"))?;
    if !can_remove(members, member.raft_id) {
        return Err(ControlError::precondition(
            "can't remove member from the raft: this would result in a loss of quorum",
        ));
    }
    Ok(())
}

/// The node's certificate stays valid by its dates; whoever serves nodes refuses the barred ones.
fn bar_certificate(tx: &mut Transaction, node: &proto::Node) -> Result<()> {
    let cluster = tx
        .the_cluster()
        .ok_or_else(|| ControlError::new(Code::Internal, "could not fetch cluster object"))?;
    let mut cluster = (**cluster).clone();
    let pem = std::str::from_utf8(&node.certificate().certificate).unwrap_or_default();
    let expiry = CertificateInfo::from_pem(pem)
        .ok()
        .map(|info| SystemTime::from(info.not_after));
    let barred = proto::BlacklistedCertificate {
        expiry: expiry.map(|e| Timestamp::from(e).into()),
    };
    cluster
        .blacklisted_certificates
        .insert(node.id.clone(), barred);
    forget_expired_certificates(&mut cluster);
    tx.update(cluster)?;
    Ok(())
}

/// Nobody will ever report what became of them.
fn orphan_tasks(tx: &mut Transaction, id: &str) -> Result<()> {
    let on_node = tx.tasks_on_node(&NodeId::from(id));
    let unfinished: Vec<Arc<Task>> = on_node
        .filter(|task| task.status.state < TaskState::Complete)
        .cloned()
        .collect();
    let timestamp = Some(Timestamp::from(SystemTime::now()));
    for task in unfinished {
        tx.modify::<Task>(task.id.as_str(), |task| {
            task.status = TaskStatus {
                timestamp,
                state: TaskState::Orphaned,
                message: "Task belonged to a node that has been deleted".to_owned(),
                ..TaskStatus::default()
            };
        })?;
    }
    Ok(())
}
