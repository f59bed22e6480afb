//! Resources that a user gives a node: `--node-generic-resource gpu=UUID1`, `apples=3`.

use std::collections::BTreeMap;

use bollard_stubs::models as m;
use skep_proto::generic_resource::Resource;
use skep_proto::{DiscreteGenericResource, GenericResource, NamedGenericResource};

/// Reads the option's values; a kind has either one number or names. In SwarmKit's words.
pub fn parse_generic_resources<S: AsRef<str>>(given: &[S]) -> Result<Vec<GenericResource>, String> {
    let refused = |text: String| format!("could not parse GenericResource: {text}");
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for term in given.iter().flat_map(|list| list.as_ref().split(',')) {
        let pair = term.split_once('=');
        let pair = pair.filter(|(kind, value)| !kind.is_empty() && !value.contains('='));
        let (kind, value) = pair.ok_or_else(|| {
            refused(format!(
                "incorrect term {term}, missing '=' or malformed expression"
            ))
        })?;
        kinds.entry(kind.trim()).or_default().push(value.trim());
    }
    let mut resources = Vec::new();
    for (kind, values) in kinds {
        let kind = kind.to_owned();
        let number = |value: &str| value.parse::<i64>().ok();
        match values.as_slice() {
            [one] if number(one).is_some_and(|value| value < 0) => {
                return Err(refused(format!("cannot ask for negative resource {kind}")));
            }
            [one] if number(one).is_some() => {
                let value = number(one).unwrap_or_default();
                let spec = DiscreteGenericResource { kind, value };
                resources.push(Resource::DiscreteResourceSpec(spec));
            }
            values if values.iter().all(|value| number(value).is_none()) => {
                resources.extend(values.iter().map(|value| {
                    Resource::NamedResourceSpec(NamedGenericResource {
                        kind: kind.clone(),
                        value: (*value).to_owned(),
                    })
                }));
            }
            values => {
                let values = values.join(" ");
                return Err(refused(format!(
                    "mixed discrete and named resources in expression '{kind}=[{values}]'"
                )));
            }
        }
    }
    let wrap = |resource| GenericResource {
        resource: Some(resource),
    };
    Ok(resources.into_iter().map(wrap).collect())
}

/// As `docker info` shows them; `None` if there are none.
pub(crate) fn to_api(resources: &[GenericResource]) -> Option<m::GenericResources> {
    let convert = |resource: &GenericResource| match resource.resource.clone()? {
        Resource::DiscreteResourceSpec(spec) => Some(m::GenericResourcesInner {
            discrete_resource_spec: Some(m::GenericResourcesInnerDiscreteResourceSpec {
                kind: Some(spec.kind),
                value: Some(spec.value),
            }),
            named_resource_spec: None,
        }),
        Resource::NamedResourceSpec(spec) => Some(m::GenericResourcesInner {
            named_resource_spec: Some(m::GenericResourcesInnerNamedResourceSpec {
                kind: Some(spec.kind),
                value: Some(spec.value),
            }),
            discrete_resource_spec: None,
        }),
    };
    (!resources.is_empty()).then(|| resources.iter().filter_map(convert).collect())
}

/// What a task got, as its container is told: `DOCKER_RESOURCE_GPU=a,b`.
pub(crate) fn environment(assigned: &[GenericResource]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for resource in assigned.iter().filter_map(|r| r.resource.as_ref()) {
        let (kind, value) = match resource {
            Resource::DiscreteResourceSpec(spec) => (&spec.kind, spec.value.to_string()),
            Resource::NamedResourceSpec(spec) => (&spec.kind, spec.value.clone()),
        };
        kinds.entry(kind).or_default().push(value);
    }
    let variable = |(kind, values): (&str, Vec<String>)| {
        format!(
            "DOCKER_RESOURCE_{}={}",
            kind.to_uppercase(),
            values.join(",")
        )
    };
    kinds.into_iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_a_number_or_a_set_of_names() {
        let parsed = parse_generic_resources(&["gpu=a,gpu=b", "apple=3"]).unwrap();
        let kinds: Vec<String> = parsed.iter().map(|r| format!("{:?}", r.resource)).collect();
        assert_eq!(kinds.len(), 3);
        assert!(
            kinds[0].contains("Discrete") && kinds[0].contains('3'),
            "{kinds:?}"
        );
        assert!(
            kinds[1].contains("Named") && kinds[2].contains("\"b\""),
            "{kinds:?}"
        );
        assert!(parse_generic_resources(&["gpu"]).is_err());
        assert_eq!(
            parse_generic_resources(&["gpu=1,gpu=a"]).unwrap_err(),
            "could not parse GenericResource: mixed discrete and named resources in expression 'gpu=[1 a]'"
        );
        assert_eq!(
            environment(&parsed),
            ["DOCKER_RESOURCE_APPLE=3", "DOCKER_RESOURCE_GPU=a,b"]
        );
    }
}
