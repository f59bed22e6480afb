//! Deciding what is mounted where, and making the volumes for it.

use std::collections::{BTreeMap, HashMap, HashSet};

use bollard_stubs::models as m;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::mounts::{self, MountKind, MountPoint, ParsedMount};

/// A new container's mounts.
pub(super) struct MountPlan {
    pub(super) mounts: BTreeMap<String, MountPoint>,
    /// Anonymous volumes that were made for it.
    made: Vec<String>,
}

impl Engine {
    /// Works the mounts out: other containers' first, then `-v`, then `--mount`, then the image's
    /// volumes; a later one takes a place over from `--volumes-from`, but no two requests may
    /// want the same place.
    pub(super) fn plan_mounts(
        &self,
        config: &m::ContainerConfig,
        host: &m::HostConfig,
    ) -> Result<MountPlan> {
        let mut plan = MountPlan {
            mounts: BTreeMap::new(),
            made: Vec::new(),
        };
        match self.fill_plan(&mut plan, config, host) {
            Ok(()) => Ok(plan),
            Err(error) => {
                self.undo_mounts(&plan);
                Err(error)
            }
        }
    }

    fn fill_plan(
        &self,
        plan: &mut MountPlan,
        config: &m::ContainerConfig,
        host: &m::HostConfig,
    ) -> Result<()> {
        for from in host.volumes_from.iter().flatten() {
            let (other, writable) = mounts::parse_volumes_from(from)?;
            let other = self
                .containers
                .get(&other)
                .map_err(|error| EngineError::invalid(error.message))?;
            for mut point in other.record().mounts.values().cloned() {
                point.rw &= writable;
                point.copy_data = false;
                // It belongs to the other container: removing this one must not take it along.
                point.anonymous = false;
                plan.mounts.insert(point.destination.clone(), point);
            }
        }
        let mut taken = HashSet::new();
        for target in host
            .tmpfs
            .iter()
            .flatten()
            .map(|(target, _)| mounts::clean_path(target))
        {
            taken.insert(target);
        }
        let binds = host
            .binds
            .iter()
            .flatten()
            .map(|bind| mounts::parse_bind(bind));
        let requests = host.mounts.iter().flatten().map(mounts::parse_mount);
        for parsed in binds.chain(requests) {
            let parsed = parsed?;
            let target = parsed.point.destination.clone();
            if !taken.insert(target.clone()) {
                return Err(EngineError::invalid(format!(
                    "Duplicate mount point: {target}"
                )));
            }
            self.place(plan, parsed)?;
        }
        for volume in config.volumes.iter().flatten() {
            let target = mounts::clean_path(volume);
            if !plan.mounts.contains_key(&target) && !taken.contains(&target) {
                let parsed = mounts::parse_bind(volume)?;
                self.place(plan, parsed)?;
            }
        }
        Ok(())
    }

    fn place(&self, plan: &mut MountPlan, parsed: ParsedMount) -> Result<()> {
        let ParsedMount {
            mut point,
            volume_labels,
            volume_driver,
            volume_options,
        } = parsed;
        if point.kind == MountKind::Volume {
            let (volume, made) = self.volumes.create(
                point.name.as_deref(),
                volume_driver.as_deref(),
                volume_options,
                volume_labels,
            )?;
            point.source = self.volumes.mountpoint(&volume.name).display().to_string();
            if let Some(subpath) = &point.subpath {
                point.source = format!("{}/{subpath}", point.source);
            }
            if point.mode.is_empty() {
                // What Docker shows for volumes.
                "z".clone_into(&mut point.mode);
            }
            if made {
                self.volume_event(
                    "create",
                    &volume.name,
                    HashMap::from([("driver".to_owned(), "local".to_owned())]),
                );
                if point.anonymous {
                    plan.made.push(volume.name.clone());
                }
            }
            point.name = Some(volume.name);
        }
        plan.mounts.insert(point.destination.clone(), point);
        Ok(())
    }

    /// Removes the volumes of a container that was not made after all.
    pub(super) fn undo_mounts(&self, plan: &MountPlan) {
        for name in &plan.made {
            if let Err(error) = self.volumes.remove(name, Vec::new) {
                tracing::warn!(volume = %name, %error, "volume of a failed creation not removed");
            }
        }
    }
}
