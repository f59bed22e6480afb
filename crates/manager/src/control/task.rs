//! Tasks: users look at them; only orchestrators make them.

use std::sync::Arc;

use skep_model::{NodeId, ServiceId, Task};
use skep_proto as proto;
use skep_store::{StoreError, View};

use super::Control;
use super::filter::{contains, has_labels, has_number, has_prefix};
use super::service::has_runtime;
use crate::error::{ControlError, Result};

impl Control {
    pub fn get_task(&self, request: &proto::GetTaskRequest) -> Result<proto::GetTaskResponse> {
        let id = &request.task_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        let snapshot = self.store.snapshot();
        let task = snapshot.get::<Task>(id).ok_or_else(|| not_found(id))?;
        Ok(proto::GetTaskResponse {
            task: Some((&**task).into()),
        })
    }

    pub async fn remove_task(
        &self,
        request: proto::RemoveTaskRequest,
    ) -> Result<proto::RemoveTaskResponse> {
        let id = request.task_id;
        if id.is_empty() {
            return Err(ControlError::incomplete());
        }
        self.store
            .update(|tx| match tx.delete::<Task>(&id) {
                Ok(_) => Ok(()),
                Err(StoreError::NotExist) => Err(not_found(&id)),
                Err(error) => Err(error.into()),
            })
            .await?;
        Ok(proto::RemoveTaskResponse {})
    }

    pub fn list_tasks(&self, request: &proto::ListTasksRequest) -> proto::ListTasksResponse {
        let filters = request.filters.clone().unwrap_or_default();
        let snapshot = self.store.snapshot();
        let tasks = candidates(&snapshot, &filters)
            .into_iter()
            .filter(|task| holds(&snapshot, &filters, task))
            .map(|task| (&**task).into())
            .collect();
        proto::ListTasksResponse { tasks }
    }
}

fn not_found(id: &str) -> ControlError {
    ControlError::not_found(format!("task {id} not found"))
}

/// Services and nodes have their tasks at hand; other filters look at all.
fn candidates<'a>(
    view: &'a View,
    filters: &proto::list_tasks_request::Filters,
) -> Vec<&'a Arc<Task>> {
    if !filters.service_ids.is_empty() {
        let services = filters
            .service_ids
            .iter()
            .map(|id| ServiceId::from(id.as_str()));
        return services.flat_map(|id| view.tasks_of_service(&id)).collect();
    }
    if !filters.node_ids.is_empty() {
        let nodes = filters.node_ids.iter().map(|id| NodeId::from(id.as_str()));
        return nodes.flat_map(|id| view.tasks_on_node(&id)).collect();
    }
    view.tasks().collect()
}

fn holds(view: &View, filters: &proto::list_tasks_request::Filters, task: &Task) -> bool {
    let by_name = !filters.names.is_empty() || !filters.name_prefixes.is_empty();
    let name = if by_name { task.name() } else { String::new() };
    contains(&filters.names, &name)
        && has_prefix(&filters.name_prefixes, &name)
        && has_prefix(&filters.id_prefixes, task.id.as_str())
        && has_labels(&filters.labels, &task.service_annotations.labels)
        && contains(
            &filters.service_ids,
            task.service_id.as_ref().map_or("", ServiceId::as_str),
        )
        && contains(
            &filters.node_ids,
            task.node_id.as_ref().map_or("", NodeId::as_str),
        )
        && has_runtime(&filters.runtimes, &task.spec)
        && has_number(&filters.desired_states, task.desired_state.into())
        && (!filters.up_to_date || is_up_to_date(view, task))
}

fn is_up_to_date(view: &View, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    service.is_some_and(|service| {
        !skep_orchestrator::is_task_dirty(service, task, node.map(|node| &**node))
    })
}
