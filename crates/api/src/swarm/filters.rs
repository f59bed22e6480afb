//! Docker's filters to SwarmKit's.

use skep_engine::Filters;
use skep_proto::{self as p, node_spec};

use super::types::Texts;
use crate::error::{ApiError, ApiResult};

fn list(filters: &Filters, key: &str) -> Vec<String> {
    filters.get(key).map(str::to_owned).collect()
}

/// `key` and `key=value` texts as a map; without a value it is empty, which SwarmKit reads as "any".
fn pairs(filters: &Filters, key: &str) -> Texts {
    filters
        .get(key)
        .map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (text.to_owned(), String::new()),
        })
        .collect()
}

pub(crate) fn nodes(filters: &Filters) -> ApiResult<p::list_nodes_request::Filters> {
    filters.check(&["name", "id", "label", "role", "membership", "node.label"])?;
    Ok(p::list_nodes_request::Filters {
        names: Vec::new(),
        id_prefixes: list(filters, "id"),
        labels: pairs(filters, "label"),
        node_labels: pairs(filters, "node.label"),
        memberships: numbers(filters, "membership", "Invalid membership filter", |word| {
            node_spec::Membership::from_str_name(word).map(i32::from)
        })?,
        roles: numbers(filters, "role", "Invalid role filter", |word| {
            p::NodeRole::from_str_name(word).map(i32::from)
        })?,
        name_prefixes: list(filters, "name"),
    })
}

pub(crate) fn services(filters: &Filters) -> ApiResult<p::list_services_request::Filters> {
    filters.check(&["name", "id", "label", "mode", "runtime"])?;
    let mut runtimes = list(filters, "runtime");
    if runtimes.is_empty() {
        runtimes.push("container".to_owned());
    }
    Ok(p::list_services_request::Filters {
        names: Vec::new(),
        id_prefixes: list(filters, "id"),
        labels: pairs(filters, "label"),
        name_prefixes: list(filters, "name"),
        runtimes,
    })
}

/// `service_ids` and `node_ids` are still what the user wrote: names have to be looked up.
pub(crate) fn tasks(filters: &Filters) -> ApiResult<p::list_tasks_request::Filters> {
    filters.check(&[
        "name",
        "id",
        "label",
        "service",
        "node",
        "desired-state",
        "_up-to-date",
        "runtime",
    ])?;
    let runtimes = if filters.contains("runtime") {
        list(filters, "runtime")
    } else {
        vec![String::new(), "container".to_owned()]
    };
    Ok(p::list_tasks_request::Filters {
        names: Vec::new(),
        id_prefixes: list(filters, "id"),
        labels: pairs(filters, "label"),
        service_ids: list(filters, "service"),
        node_ids: list(filters, "node"),
        desired_states: numbers(
            filters,
            "desired-state",
            "Invalid desired-state filter",
            |word| p::TaskState::from_str_name(word).map(i32::from),
        )?,
        name_prefixes: list(filters, "name"),
        runtimes,
        up_to_date: filters.get("_up-to-date").next().is_some(),
    })
}

pub(crate) fn secrets(filters: &Filters) -> ApiResult<p::list_secrets_request::Filters> {
    filters.check(&["names", "name", "id", "label"])?;
    Ok(p::list_secrets_request::Filters {
        names: list(filters, "names"),
        id_prefixes: list(filters, "id"),
        labels: pairs(filters, "label"),
        name_prefixes: list(filters, "name"),
    })
}

pub(crate) fn configs(filters: &Filters) -> ApiResult<p::list_configs_request::Filters> {
    filters.check(&["name", "id", "label"])?;
    Ok(p::list_configs_request::Filters {
        names: Vec::new(),
        id_prefixes: list(filters, "id"),
        labels: pairs(filters, "label"),
        name_prefixes: list(filters, "name"),
    })
}

fn numbers(
    filters: &Filters,
    key: &str,
    error: &str,
    number: impl Fn(&str) -> Option<i32>,
) -> ApiResult<Vec<i32>> {
    filters
        .get(key)
        .filter(|word| !word.is_empty())
        // Docker's own error here is a plain one, which is a 500; 400 is what it means.
        .map(|word| {
            number(&word.to_uppercase())
                .ok_or_else(|| ApiError::invalid(format!("{error}: '{word}'")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Filters {
        Filters::from_json(json).unwrap()
    }

    #[test]
    fn tasks_take_states_services_and_nodes() {
        let filters = tasks(&read(
            r#"{"desired-state":["running"],"service":["web"],"node":{"n1":true}}"#,
        ))
        .unwrap();
        assert_eq!(filters.desired_states, [i32::from(p::TaskState::Running)]);
        assert_eq!(
            (filters.service_ids, filters.node_ids),
            (vec!["web".to_owned()], vec!["n1".to_owned()])
        );
        assert_eq!(filters.runtimes, ["", "container"]);
        let error = tasks(&read(r#"{"desired-state":["busy"]}"#)).unwrap_err();
        assert_eq!(error.message, "Invalid desired-state filter: 'busy'");
    }

    #[test]
    fn unknown_keys_and_words_are_refused() {
        assert_eq!(
            services(&read(r#"{"node":["a"]}"#)).unwrap_err().message,
            "invalid filter 'node'"
        );
        assert_eq!(
            nodes(&read(r#"{"role":["boss"]}"#)).unwrap_err().message,
            "Invalid role filter: 'boss'"
        );
    }

    #[test]
    fn labels_may_have_no_value() {
        let filters = services(&read(r#"{"label":["a=b","c"]}"#)).unwrap();
        assert_eq!(
            filters.labels,
            Texts::from([("a".into(), "b".into()), ("c".into(), String::new())])
        );
        assert_eq!(filters.runtimes, ["container"]);
    }
}
