//! The filters of list requests: within one filter any value will do, all filters must hold.

use std::collections::BTreeMap;

pub(super) fn contains(candidates: &[String], value: &str) -> bool {
    candidates.is_empty() || candidates.iter().any(|candidate| candidate == value)
}

pub(super) fn has_prefix(prefixes: &[String], value: &str) -> bool {
    prefixes.is_empty()
        || prefixes
            .iter()
            .any(|prefix| value.starts_with(prefix.as_str()))
}

pub(super) fn has_number(candidates: &[i32], value: i32) -> bool {
    candidates.is_empty() || candidates.contains(&value)
}

/// A wanted label without a value is satisfied by any value.
pub(super) fn has_labels(
    wanted: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    wanted.iter().all(|(key, value)| {
        labels
            .get(key)
            .is_some_and(|actual| value.is_empty() || value == actual)
    })
}

/// What most objects can be found by.
pub(super) struct Common<'a> {
    pub(super) names: &'a [String],
    pub(super) name_prefixes: &'a [String],
    pub(super) id_prefixes: &'a [String],
    pub(super) labels: &'a BTreeMap<String, String>,
}

impl Common<'_> {
    pub(super) fn holds(&self, id: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        contains(self.names, name)
            && has_prefix(self.name_prefixes, name)
            && has_prefix(self.id_prefixes, id)
            && has_labels(self.labels, labels)
    }
}

/// The common filters of a request, whatever its type.
macro_rules! common {
    ($filters:expr) => {
        $crate::control::filter::Common {
            names: &$filters.names,
            name_prefixes: &$filters.name_prefixes,
            id_prefixes: &$filters.id_prefixes,
            labels: &$filters.labels,
        }
    };
}
pub(super) use common;
