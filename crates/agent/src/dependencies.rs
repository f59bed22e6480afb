//! The secrets and configs that this node's tasks use. In memory only: what the managers keep secret
//! must not be found on a worker's disk.

use parking_lot::RwLock;
use skep_proto as proto;
use std::collections::HashMap;
use std::sync::Arc;

/// What has been assigned to this node; one for all tasks. Controllers look things up when they
/// prepare.
#[derive(Default)]
pub struct Dependencies {
    contents: RwLock<Contents>,
}

#[derive(Default)]
struct Contents {
    secrets: HashMap<String, Arc<proto::Secret>>,
    configs: HashMap<String, Arc<proto::Config>>,
}

impl Dependencies {
    pub fn secret(&self, id: &str) -> Option<Arc<proto::Secret>> {
        self.contents.read().secrets.get(id).cloned()
    }

    pub fn config(&self, id: &str) -> Option<Arc<proto::Config>> {
        self.contents.read().configs.get(id).cloned()
    }

    /// Takes a set of changes; with `complete`, what is not among them is forgotten. In one step: a
    /// task that looks meanwhile must not find a secret missing that it has had all along.
    pub(crate) fn change(
        &self,
        complete: bool,
        secrets: Vec<(bool, proto::Secret)>,
        configs: Vec<(bool, proto::Config)>,
    ) {
        let mut contents = self.contents.write();
        if complete {
            *contents = Contents::default();
        }
        for (keep, secret) in secrets {
            if keep {
                contents.secrets.insert(secret.id.clone(), Arc::new(secret));
            } else {
                contents.secrets.remove(&secret.id);
            }
        }
        for (keep, config) in configs {
            if keep {
                contents.configs.insert(config.id.clone(), Arc::new(config));
            } else {
                contents.configs.remove(&config.id);
            }
        }
    }
}

/// Says what there is, not what is in it.
impl std::fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let contents = self.contents.read();
        f.debug_struct("Dependencies")
            .field("secrets", &contents.secrets.keys())
            .field("configs", &contents.configs.keys())
            .finish()
    }
}
