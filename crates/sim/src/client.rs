//! What users and agents do, as writes that can be found again.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand::rngs::StdRng;
use skep_model::{Task, TaskState, TaskStatus};
use skep_proto as proto;
use skep_store::{ProposeError, Store, StoreError, Transaction, UpdateError};

use crate::ledger::{BASED_ON, Outcome, WRITE};
use crate::options::Mutation;

/// Objects that all clients fight over.
const CONTENDED: u64 = 3;
/// They end in time, so there are more of them.
const TASKS: u64 = 24;

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// A new object.
    Create,
    /// Forgets the object of an earlier write.
    Remove(u64),
    /// Changes a service from the version that somebody has seen.
    Change { service: String, based_on: u64 },
    /// An agent's report; it may come late, or twice.
    Report { task: String, state: TaskState },
}

fn annotations(name: &str, labels: BTreeMap<String, String>) -> proto::Annotations {
    proto::Annotations {
        name: name.to_owned(),
        labels,
        ..Default::default()
    }
}

fn marks(write: u64) -> BTreeMap<String, String> {
    BTreeMap::from([(WRITE.to_owned(), write.to_string())])
}

/// The objects that actions are about.
pub(crate) fn furnish(tx: &mut Transaction) -> Result<(), StoreError> {
    for number in 0..CONTENDED {
        let spec = proto::ServiceSpec {
            annotations: Some(annotations(&format!("service{number}"), BTreeMap::new())),
            ..Default::default()
        };
        tx.create(proto::Service {
            id: format!("service{number}"),
            spec: Some(spec),
            ..Default::default()
        })?;
    }
    for number in 0..TASKS {
        tx.create(Task {
            id: format!("task{number}").into(),
            service_id: Some(format!("service{}", number % CONTENDED).into()),
            desired_state: TaskState::Running,
            ..Task::default()
        })?;
    }
    Ok(())
}

/// An object of this very write.
pub(crate) fn create_config(tx: &mut Transaction, write: u64) -> Result<(), StoreError> {
    let id = format!("config{write}");
    let spec = proto::ConfigSpec {
        annotations: Some(annotations(&id, marks(write))),
        ..Default::default()
    };
    tx.create(proto::Config {
        id,
        spec: Some(spec),
        ..Default::default()
    })?;
    Ok(())
}

impl Action {
    /// Decided on what `seen` holds, which may be any manager's store.
    pub(crate) fn draw(seen: &Store, created: &[u64], rng: &mut StdRng) -> Self {
        let number = rng.random_range(0..CONTENDED);
        match rng.random_range(0..10) {
            0..4 => Self::Create,
            4 if !created.is_empty() => Self::Remove(created[rng.random_range(0..created.len())]),
            4..8 => {
                let service = format!("service{number}");
                let known = seen.snapshot();
                let found = known.get::<proto::Service>(&service);
                let meta = found.and_then(|service| service.meta.as_ref()?.version);
                let based_on = meta.map_or(0, |version| version.index);
                Self::Change { service, based_on }
            }
            _ => Self::Report {
                task: format!("task{}", rng.random_range(0..TASKS)),
                state: TaskState::ALL[rng.random_range(2..11)],
            },
        }
    }

    pub(crate) async fn perform(
        self,
        write: u64,
        store: Store,
        mutation: Option<Mutation>,
    ) -> Outcome {
        let result = store.update(|tx| self.change(write, tx, mutation)).await;
        match result {
            Ok(()) => Outcome::Acknowledged,
            Err(UpdateError::Rejected(_)) => Outcome::Refused,
            Err(UpdateError::Propose(error)) => match error {
                ProposeError::NotLeader
                | ProposeError::Superseded
                | ProposeError::TooLarge { .. } => Outcome::Refused,
                ProposeError::LeadershipLost | ProposeError::Log(_) => Outcome::Unknown,
            },
        }
    }

    fn change(
        &self,
        write: u64,
        tx: &mut Transaction,
        mutation: Option<Mutation>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Create => create_config(tx, write)?,
            Self::Remove(created) => {
                tx.delete::<proto::Config>(format!("config{created}"))?;
                create_config(tx, write)?;
            }
            Self::Change { service, based_on } => {
                let found = tx.get::<proto::Service>(service);
                let mut service = (**found.ok_or(StoreError::NotExist)?).clone();
                let mut labels = marks(write);
                labels.insert(BASED_ON.to_owned(), based_on.to_string());
                let annotations = service.spec.get_or_insert_default().annotations.as_mut();
                annotations.ok_or(StoreError::NotExist)?.labels = labels;
                if mutation != Some(Mutation::StaleIndexIsTaken) {
                    let meta = service.meta.get_or_insert_default();
                    meta.version = Some(proto::Version { index: *based_on });
                }
                tx.update(service)?;
            }
            Self::Report { task, state } => {
                let found = tx.get::<Task>(task).ok_or(StoreError::NotExist)?;
                // The dispatcher's rule.
                let is_old = found.status.state >= *state;
                if is_old && mutation != Some(Mutation::ReportsGoBack) {
                    return Err(StoreError::SequenceConflict);
                }
                tx.modify::<Task>(task, |task| {
                    let labels = marks(write);
                    task.annotations = annotations("", labels).into();
                    task.status = TaskStatus {
                        state: *state,
                        ..TaskStatus::default()
                    };
                })?;
            }
        }
        Ok(())
    }
}
