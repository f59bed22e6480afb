//! `/tasks`.

use skep_proto as p;

use super::control::Control;
use super::{convert, filters, lookup};
use crate::call::Call;
use crate::error::ApiResult;
use crate::reply;
use crate::state::ApiState;

pub(crate) async fn list(call: Call<ApiState>) -> ApiResult {
    let mut filters = filters::tasks(&call.filters()?)?;
    let control = Control::of(&call.state)?;
    for service in &mut filters.service_ids {
        *service = lookup::service(&control, service)?.id;
    }
    for node in &mut filters.node_ids {
        *node = lookup::node(&control, &own_node(&call.state, node))?.id;
    }
    let found = control
        .list_tasks(&p::ListTasksRequest {
            filters: Some(filters),
        })
        .tasks;
    let tasks: Vec<_> = found.iter().map(convert::task).collect();
    Ok(reply::json(&tasks))
}

/// `self` is the node that answers. (The CLI asks `/info` for it; other clients may not.)
pub(super) fn own_node(state: &ApiState, name: &str) -> String {
    let own = if name == "self" {
        super::control::node_id(state)
    } else {
        None
    };
    own.unwrap_or_else(|| name.to_owned())
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let task = lookup::task(&control, call.param("id"))?;
    Ok(reply::json(&convert::task(&task)))
}
