//! Removing containers.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_stubs::models as m;

use crate::container::{Container, Phase};
use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::signal;
use crate::types::RemoveOptions;

impl Engine {
    /// Removes a container; a running one only with `force`.
    pub async fn remove_container(
        self: &Arc<Self>,
        id: &str,
        options: RemoveOptions,
    ) -> Result<()> {
        if options.link {
            return self.remove_link(id);
        }
        let container = self.containers.get(id)?;
        let engine = self.clone();
        let name = id.to_owned();
        to_its_end(async move { engine.remove(&container, &name, options).await }).await
    }

    async fn remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        options: RemoveOptions,
    ) -> Result<()> {
        if std::mem::replace(&mut container.record().state.removing, true) {
            return Err(EngineError::conflict(format!(
                "removal of container {name} is already in progress"
            )));
        }
        let result = self.remove_marked(container, options).await;
        if result.is_err() {
            container.record().state.removing = false;
        }
        result.map_err(|error| error.context(format!("cannot remove container \"{name}\"")))
    }

    async fn remove_marked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        options: RemoveOptions,
    ) -> Result<()> {
        loop {
            self.end_for_removal(container, options.force).await?;
            let _operation = container.operation.lock().await;
            if container.progress.borrow().removed {
                // It removed itself when it ended.
                return Ok(());
            }
            // A start that was under way has finished while this waited for its turn.
            if !container.record().state.is_up() {
                return self.remove_locked(container, options).await;
            }
        }
    }

    /// Kills a container that runs or waits for a restart, or refuses to.
    async fn end_for_removal(
        self: &Arc<Self>,
        container: &Arc<Container>,
        force: bool,
    ) -> Result<()> {
        let state = container.record().state.clone();
        if !state.is_running() {
            return Ok(());
        }
        if !force {
            return Err(EngineError::conflict(match state.phase {
                Phase::Paused => "container is paused and must be unpaused first".to_owned(),
                phase => {
                    let word = if phase == Phase::Restarting {
                        "restarting"
                    } else {
                        "running"
                    };
                    format!(
                        "container is {word}: stop the container before removing or force remove"
                    )
                }
            }));
        }
        match self.kill(container, signal::KILL).await {
            Err(error) if container.record().state.is_up() => {
                Err(error.context("could not kill container"))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container that does not run, with `operation` held.
    pub(crate) async fn remove_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        options: RemoveOptions,
    ) -> Result<()> {
        mark_dead(container);
        let files = self.files_of(container);
        blocking(move || files.remove()).await?;
        self.forget(container, options);
        Ok(())
    }

    fn files_of(&self, container: &Container) -> Files {
        Files {
            images: self.images.clone(),
            id: container.id.clone(),
            shm: self.shm_path(&container.id),
            dir: container.dir.clone(),
        }
    }

    /// From here on there is no such container.
    fn forget(&self, container: &Container, options: RemoveOptions) {
        self.containers.remove(&container.id);
        self.task_files.lock().remove(&container.id);
        let execs: Vec<_> = container.live().execs.drain().map(|(id, _)| id).collect();
        self.execs
            .lock()
            .retain(|id, exec| !execs.contains(id) && exec.container_id() != container.id);
        if options.volumes {
            self.remove_anonymous_volumes(container);
        }
        container.live().attachments.take();
        container.announce(|progress| {
            progress.running = false;
            progress.removed = true;
        });
        self.container_event(container, "destroy");
    }

    fn remove_anonymous_volumes(&self, container: &Container) {
        let mounts: Vec<_> = container.record().mounts.values().cloned().collect();
        for name in mounts
            .into_iter()
            .filter(|point| point.anonymous)
            .filter_map(|point| point.name)
        {
            let removed = self.volumes.remove(&name, || self.users_of_volume(&name));
            match removed {
                Ok(()) => self.volume_event(
                    "destroy",
                    &name,
                    HashMap::from([("driver".to_owned(), "local".to_owned())]),
                ),
                Err(error) => tracing::debug!(volume = %name, %error, "anonymous volume kept"),
            }
        }
    }

    /// Removes all stopped containers that the filters leave.
    pub async fn prune_containers(
        self: &Arc<Self>,
        filters: Filters,
    ) -> Result<m::ContainerPruneResponse> {
        filters.check(&["label", "label!", "until"])?;
        let until = crate::prune::until(&filters)?;
        let mut deleted = Vec::new();
        let mut reclaimed = 0;
        for container in self.containers.all() {
            let fits = {
                let record = container.record();
                !record.state.is_running()
                    && until.is_none_or(|until| record.created <= until)
                    && filters.labels("label", record.labels())
                    && (!filters.contains("label!")
                        || filters.labels_absent("label!", record.labels()))
            };
            if !fits {
                continue;
            }
            let size = self.written_bytes(&container).await;
            match self
                .remove_container(&container.id, RemoveOptions::default())
                .await
            {
                Ok(()) => {
                    reclaimed += size;
                    deleted.push(container.id.clone());
                }
                Err(error) => {
                    tracing::warn!(container.id = %container.id, %error, "container not pruned");
                }
            }
        }
        self.events.publish_local(
            m::EventMessageTypeEnum::CONTAINER,
            "prune",
            "",
            HashMap::from([("reclaimed".to_owned(), reclaimed.to_string())]),
        );
        Ok(m::ContainerPruneResponse {
            containers_deleted: Some(deleted),
            space_reclaimed: Some(reclaimed),
        })
    }

    /// Gives a container another name.
    pub async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let new = name.strip_prefix('/').unwrap_or(name);
        if new.is_empty() {
            return Err(EngineError::invalid(
                "Neither old nor new names may be empty",
            ));
        }
        let container = self.containers.get(id)?;
        let _operation = container.operation.lock().await;
        let old = container.record().name.clone();
        if old == new {
            return Err(EngineError::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.containers
            .reserve(Some(new), &container.id)
            .map_err(|error| error.context("Error when allocating new name"))?;
        new.clone_into(&mut container.record().name);
        if let Err(error) = container.save() {
            container.record().name.clone_from(&old);
            self.containers.release(new, &container.id);
            return Err(error);
        }
        self.containers.release(&old, &container.id);
        self.networks.rename(&container.id, new);
        self.container_event_with(&container, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    /// Bytes the container wrote; 0 if they cannot be counted.
    pub(crate) async fn written_bytes(&self, container: &Container) -> i64 {
        let (images, id) = (self.images.clone(), container.id.clone());
        let size = blocking(move || Ok(images.open_rootfs(&id)?.size_rw()?)).await;
        size.map_or(0, |size| i64::try_from(size).unwrap_or(i64::MAX))
    }
}

/// On disk, so that a daemon that dies now does not bring half a container back.
fn mark_dead(container: &Container) {
    {
        let mut record = container.record();
        record.state.removing = true;
        record.state.phase = Phase::Dead;
    }
    container.save_or_log();
}

/// What a container has on disk.
struct Files {
    images: skep_image::ImageStore,
    id: String,
    shm: PathBuf,
    dir: PathBuf,
}

impl Files {
    fn remove(&self) -> Result<()> {
        crate::shm::unmount(&self.shm);
        match self.images.open_rootfs(&self.id) {
            Ok(rootfs) => {
                let held = detach(rootfs.merged());
                rootfs.remove()?;
                tokio::task::spawn_blocking(move || drop(held));
            }
            // A creation that did not get that far.
            Err(error) => tracing::debug!(container.id = %self.id, %error, "no root to remove"),
        }
        std::fs::remove_dir_all(&self.dir)
            .map_err(|error| EngineError::from_source("unable to remove filesystem", &error))
    }
}

/// Takes a root file system out of sight without waiting for its end: the last who lets go of an
/// overlay has the whole upper file system synced, which nobody who removes a container needs. That is
/// what is returned, to be dropped where it may take its time. Unmounting proper finds the rest.
fn detach(merged: &Path) -> Option<OwnedFd> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use rustix::mount::{UnmountFlags, unmount};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = openat(CWD, merged, flags, Mode::empty()).ok()?;
    unmount(merged, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok()?;
    Some(held)
}
