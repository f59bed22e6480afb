//! Which containers have a resolver, and when it starts and ends.

use std::sync::Arc;

use crate::attach::is_namespace;
use crate::dns::{Resolver, ResolverSettings};
use crate::inner::Inner;
use crate::{NetworkError, sandbox};

impl Inner {
    /// Serves names inside the container's namespace from now on, until it is released.
    pub(crate) fn serve_names(
        self: &Arc<Self>,
        container_id: &str,
        hostname: &str,
        settings: ResolverSettings,
    ) -> Result<(), NetworkError> {
        let record = {
            let mut state = self.state.lock();
            let Some(record) = state.sandboxes.get_mut(container_id) else {
                return Ok(());
            };
            hostname.clone_into(&mut record.hostname);
            record.resolver = Some(settings);
            record.clone()
        };
        self.start_resolver(&record)?;
        self.store.save_record(&record)
    }

    fn start_resolver(
        self: &Arc<Self>,
        record: &sandbox::SandboxRecord,
    ) -> Result<(), NetworkError> {
        let (Some(settings), Some(path)) = (&record.resolver, &record.namespace) else {
            return Ok(());
        };
        let id = &record.container_id;
        let resolver = Resolver::start(self, id, path, settings, self.rules)?;
        self.resolvers.lock().insert(id.clone(), resolver);
        Ok(())
    }

    /// Starts the resolvers of containers that an earlier daemon left running.
    pub(crate) fn restore_resolvers(self: &Arc<Self>) -> Vec<String> {
        let records: Vec<_> = self.state.lock().sandboxes.values().cloned().collect();
        let intact = records
            .iter()
            .filter(|record| record.namespace.as_deref().is_some_and(is_namespace));
        intact
            .filter_map(|record| {
                let error = self.start_resolver(record).err()?;
                Some(format!("container {}: {error}", record.container_id))
            })
            .collect()
    }

    /// Whether a network of the container leads anywhere: internal ones do not forward questions.
    pub(crate) fn has_way_out(&self, container_id: &str) -> bool {
        let state = self.state.lock();
        let sandbox = state.sandboxes.get(container_id);
        sandbox.is_some_and(|one| one.gateway(true).is_some() || one.gateway(false).is_some())
    }
}
