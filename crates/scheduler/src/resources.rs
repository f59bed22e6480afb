//! What a node has and what its tasks took of it.
//!
//! Totals and use are kept apart, so that a node which reports other resources needs no walk over
//! its tasks.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto as proto;
use skep_proto::generic_resource::Resource;

/// What a node reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    nano_cpus: i64,
    memory_bytes: i64,
    generic: BTreeMap<String, Generic>,
}

#[derive(Clone, Debug, PartialEq)]
enum Generic {
    /// So many of a kind that have no names.
    Discrete(i64),
    /// Things with names, such as GPUs.
    Named(BTreeSet<String>),
}

/// What the tasks on a node took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Use {
    nano_cpus: i64,
    memory_bytes: i64,
    discrete: BTreeMap<String, i64>,
    named: BTreeSet<(String, String)>,
}

impl Totals {
    /// What is reserved, in thousandths of the processors plus thousandths of the memory.
    pub(crate) fn reserved_share(&self, used: &Use) -> u32 {
        let share = |used: i64, total: i64| match total {
            ..=0 => 0,
            total => (i128::from(used.max(0)) * 1000 / i128::from(total)).min(1000) as u32,
        };
        share(used.nano_cpus, self.nano_cpus) + share(used.memory_bytes, self.memory_bytes)
    }

    pub(crate) fn new(resources: Option<&proto::Resources>) -> Self {
        let Some(resources) = resources else {
            return Self::default();
        };
        let mut generic = BTreeMap::new();
        for resource in resources.generic.iter().filter_map(|g| g.resource.as_ref()) {
            match resource {
                Resource::DiscreteResourceSpec(spec) => {
                    generic.insert(spec.kind.clone(), Generic::Discrete(spec.value));
                }
                Resource::NamedResourceSpec(spec) => {
                    let entry = generic
                        .entry(spec.kind.clone())
                        .or_insert_with(|| Generic::Named(BTreeSet::new()));
                    if let Generic::Named(names) = entry {
                        names.insert(spec.value.clone());
                    }
                }
            }
        }
        Self {
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            generic,
        }
    }

    /// Whether `wanted` still fits beside `used`.
    pub(crate) fn fits(&self, used: &Use, wanted: &proto::Resources) -> bool {
        wanted.nano_cpus <= self.nano_cpus.saturating_sub(used.nano_cpus)
            && wanted.memory_bytes <= self.memory_bytes.saturating_sub(used.memory_bytes)
            && wanted
                .generic
                .iter()
                .all(|generic| self.fits_generic(used, generic))
    }

    fn fits_generic(&self, used: &Use, wanted: &proto::GenericResource) -> bool {
        // A task can only ask for a number of a kind, never for one with a name.
        let Some(Resource::DiscreteResourceSpec(wanted)) = &wanted.resource else {
            return false;
        };
        match self.generic.get(&wanted.kind) {
            None => false,
            Some(Generic::Discrete(total)) => {
                let taken = used.discrete.get(&wanted.kind).copied().unwrap_or(0);
                wanted.value <= total - taken
            }
            Some(Generic::Named(_)) => {
                self.free_names(used, &wanted.kind).count() as i64 >= wanted.value
            }
        }
    }

    fn free_names<'a>(&'a self, used: &'a Use, kind: &'a str) -> impl Iterator<Item = &'a String> {
        let names = match self.generic.get(kind) {
            Some(Generic::Named(names)) => Some(names.iter()),
            _ => None,
        };
        let taken = |name: &String| used.named.contains(&(kind.to_owned(), name.clone()));
        names.into_iter().flatten().filter(move |name| !taken(name))
    }

    /// Picks the generic resources that satisfy `wanted`, which must fit.
    pub(crate) fn pick(
        &self,
        used: &Use,
        wanted: &proto::Resources,
    ) -> Vec<proto::GenericResource> {
        let mut picked = Vec::new();
        for generic in &wanted.generic {
            let Some(Resource::DiscreteResourceSpec(spec)) = &generic.resource else {
                continue;
            };
            match self.generic.get(&spec.kind) {
                Some(Generic::Discrete(_)) if spec.value > 0 => picked.push(generic.clone()),
                Some(Generic::Named(_)) => {
                    let count = usize::try_from(spec.value).unwrap_or(0);
                    let names = self.free_names(used, &spec.kind).take(count);
                    picked.extend(names.map(|name| named(&spec.kind, name)));
                }
                _ => {}
            }
        }
        picked
    }
}

impl Use {
    pub(crate) fn take(&mut self, reserved: Reserved, assigned: &[proto::GenericResource]) {
        self.nano_cpus += reserved.nano_cpus;
        self.memory_bytes += reserved.memory_bytes;
        for resource in assigned.iter().filter_map(|g| g.resource.as_ref()) {
            match resource {
                Resource::DiscreteResourceSpec(spec) => {
                    *self.discrete.entry(spec.kind.clone()).or_default() += spec.value;
                }
                Resource::NamedResourceSpec(spec) => {
                    self.named.insert((spec.kind.clone(), spec.value.clone()));
                }
            }
        }
    }

    pub(crate) fn give_back(&mut self, reserved: Reserved, assigned: &[proto::GenericResource]) {
        self.nano_cpus -= reserved.nano_cpus;
        self.memory_bytes -= reserved.memory_bytes;
        for resource in assigned.iter().filter_map(|g| g.resource.as_ref()) {
            match resource {
                Resource::DiscreteResourceSpec(spec) => {
                    *self.discrete.entry(spec.kind.clone()).or_default() -= spec.value;
                }
                Resource::NamedResourceSpec(spec) => {
                    self.named.remove(&(spec.kind.clone(), spec.value.clone()));
                }
            }
        }
    }
}

/// The part of a reservation that every task has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) nano_cpus: i64,
    pub(crate) memory_bytes: i64,
}

impl Reserved {
    pub(crate) fn of(spec: &proto::TaskSpec) -> Self {
        reservations(spec).map_or_else(Self::default, |r| Self {
            nano_cpus: r.nano_cpus,
            memory_bytes: r.memory_bytes,
        })
    }
}

/// What a task asks to have set aside, if it asks for anything.
pub(crate) fn reservations(spec: &proto::TaskSpec) -> Option<&proto::Resources> {
    let reservations = spec.resources.as_ref()?.reservations.as_ref()?;
    let asks = reservations.nano_cpus != 0
        || reservations.memory_bytes != 0
        || !reservations.generic.is_empty();
    asks.then_some(reservations)
}

fn named(kind: &str, name: &str) -> proto::GenericResource {
    let spec = proto::NamedGenericResource {
        kind: kind.to_owned(),
        value: name.to_owned(),
    };
    proto::GenericResource {
        resource: Some(Resource::NamedResourceSpec(spec)),
    }
}
