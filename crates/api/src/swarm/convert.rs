//! Docker's swarm JSON to and from SwarmKit's messages, field by field as moby's
//! `daemon/cluster/convert` does it, with its error texts.
//!
//! Sub-messages that SwarmKit declares non-nullable are always set, as gogo's encoder writes them:
//! objects made here compare equal to those a dockerd manager makes.

mod container;
mod network;
mod node;
mod secret;
mod service;
mod task;

use skep_proto as p;

pub(crate) use container::*;
pub(crate) use network::*;
pub(crate) use node::*;
pub(crate) use secret::*;
pub(crate) use service::*;
pub(crate) use task::*;

use super::types as t;

/// A lower-case word for a wire enumeration's number; unknown numbers are no word.
macro_rules! word {
    ($type:ty, $number:expr) => {
        <$type>::try_from($number).map_or_else(
            |_| String::new(),
            |value| value.as_str_name().to_lowercase(),
        )
    };
}

/// The number of a word, whatever its case.
macro_rules! number {
    ($type:ty, $word:expr) => {
        <$type>::from_str_name(&$word.to_uppercase()).map(|value| value as i32)
    };
}

use {number, word};

/// A moment as Go prints it; SwarmKit's "never" is the epoch.
pub(super) fn date(time: Option<prost_types::Timestamp>) -> String {
    time.map_or(
        skep_model::Timestamp::UNIX_EPOCH,
        skep_model::Timestamp::from,
    )
    .to_string()
}

/// The same for optional dates.
pub(super) fn date_if_set(time: Option<prost_types::Timestamp>) -> Option<String> {
    time.filter(|time| time.seconds != 0)
        .map(|time| date(Some(time)))
}

pub(super) fn duration(nanos: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: nanos / 1_000_000_000,
        nanos: (nanos % 1_000_000_000) as i32,
    }
}

pub(super) fn nanos(duration: prost_types::Duration) -> i64 {
    duration
        .seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(duration.nanos))
}

pub(super) fn meta(meta: Option<&p::Meta>) -> t::Meta {
    let empty = p::Meta::default();
    let meta = meta.unwrap_or(&empty);
    t::Meta {
        version: version(meta.version.as_ref()),
        created_at: date(meta.created_at),
        updated_at: date(meta.updated_at),
    }
}

pub(super) fn version(version: Option<&p::Version>) -> t::Version {
    t::Version {
        index: version.map_or(0, |version| version.index),
    }
}

pub(super) fn annotations(name: &str, labels: &t::Texts) -> p::Annotations {
    p::Annotations {
        name: name.to_owned(),
        labels: labels.clone(),
        indices: Vec::new(),
    }
}

/// Name and labels.
pub(super) fn names(annotations: Option<&p::Annotations>) -> (String, t::Texts) {
    annotations
        .map(|annotations| (annotations.name.clone(), annotations.labels.clone()))
        .unwrap_or_default()
}

pub(super) fn driver(driver: &p::Driver) -> t::Driver {
    t::Driver {
        name: driver.name.clone(),
        options: driver.options.clone(),
    }
}

pub(super) fn driver_to(driver: &t::Driver) -> p::Driver {
    p::Driver {
        name: driver.name.clone(),
        options: driver.options.clone(),
    }
}

#[cfg(test)]
mod tests;
