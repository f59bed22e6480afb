//! The swarm's networks, for the handlers of `/networks`.

use bollard_stubs::models as m;
use skep_engine::Filters;
use skep_proto as p;

use super::control::Control;
use super::convert;
use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;

/// What this node knows of them; nothing if it is no manager, as the local list must still work.
pub(crate) fn list(state: &ApiState, filters: &Filters) -> Vec<m::NetworkInspect> {
    let Ok(control) = Control::of(state) else {
        return Vec::new();
    };
    let found = control.list_networks(&p::ListNetworksRequest::default());
    let is_predefined = |network: &p::Network| {
        let annotations = network
            .spec
            .as_ref()
            .and_then(|spec| spec.annotations.as_ref());
        annotations.is_some_and(|a| {
            a.labels
                .get("com.docker.swarm.predefined")
                .is_some_and(|value| value == "true")
        })
    };
    found
        .networks
        .iter()
        .filter(|network| !is_predefined(network))
        .map(convert::network_inspect)
        .filter(|network| is_wanted(network, filters))
        .collect()
}

fn is_wanted(network: &m::NetworkInspect, filters: &Filters) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (id, name) = (text(&network.id), text(&network.name));
    let labels = network.labels.clone().unwrap_or_default();
    filters.any("id", |wanted| id.contains(wanted))
        && filters.any("name", |wanted| name.contains(wanted))
        && filters.exact("driver", &text(&network.driver))
        && filters.exact("scope", "swarm")
        && filters.exact("type", "custom")
        && filters.labels("label", &labels)
        // Who uses it is known to the managers' other objects only: it counts as used.
        && filters.boolean("dangling").unwrap_or(None) != Some(true)
}

/// By id, name, or id prefix.
pub(crate) fn find(state: &ApiState, term: &str) -> ApiResult<Option<m::NetworkInspect>> {
    let mut all = list(state, &Filters::default());
    let is = |field: &Option<String>| field.as_deref() == Some(term);
    if let Some(at) = all.iter().position(|network| is(&network.id)) {
        return Ok(Some(all.swap_remove(at)));
    }
    if let Some(at) = all.iter().position(|network| is(&network.name)) {
        return Ok(Some(all.swap_remove(at)));
    }
    all.retain(|network| network.id.as_deref().is_some_and(|id| id.starts_with(term)));
    match all.len() {
        0 | 1 => Ok(all.pop()),
        count => Err(ApiError::invalid(format!(
            "{count} matches found based on ID prefix: network {term} is ambiguous"
        ))),
    }
}

/// Whether a network asked for is the swarm's rather than this node's.
pub(crate) fn is_swarm_scoped(request: &m::NetworkCreateRequest) -> bool {
    request.driver.as_deref() == Some("overlay")
        || request.scope.as_deref() == Some("swarm")
        || request.ingress == Some(true)
}

/// Makes one; gives its id.
pub(crate) async fn create(
    state: &ApiState,
    request: &m::NetworkCreateRequest,
) -> ApiResult<String> {
    let control = Control::of(state)?;
    let spec = convert::network_spec_to(request);
    let created = control
        .create_network(p::CreateNetworkRequest { spec: Some(spec) })
        .await?;
    Ok(created
        .network
        .map(|network| network.id)
        .unwrap_or_default())
}

pub(crate) async fn remove(state: &ApiState, id: &str) -> ApiResult<()> {
    let control = Control::of(state)?;
    control
        .remove_network(p::RemoveNetworkRequest {
            network_id: id.to_owned(),
            ..Default::default()
        })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_by_part_of_the_name_and_by_scope() {
        let network = m::NetworkInspect {
            id: Some("abc".to_owned()),
            name: Some("backend".to_owned()),
            driver: Some("overlay".to_owned()),
            ..Default::default()
        };
        let wanted = |json: &str| is_wanted(&network, &Filters::from_json(json).unwrap());
        assert!(wanted("{}"));
        assert!(wanted(
            r#"{"name":["back"],"scope":["swarm"],"driver":["overlay"]}"#
        ));
        assert!(!wanted(r#"{"scope":["local"]}"#));
        assert!(!wanted(r#"{"type":["builtin"]}"#));
        assert!(!wanted(r#"{"label":["a"]}"#));
    }
}
