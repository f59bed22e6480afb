//! Shared memory that outlives one container's mount namespace, so that another can join it.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount as mount_fs, unmount as unmount_fs};

use crate::error::{EngineError, Result};

/// Mounts a tmpfs unless there is one.
pub(crate) fn mount(path: &Path, size: i64) -> Result<()> {
    if is_mounted(path) {
        return Ok(());
    }
    let failed = |error: &(dyn std::error::Error + 'static)| {
        EngineError::from_source("mounting shm tmpfs", error)
    };
    std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
    let options =
        std::ffi::CString::new(format!("mode=1777,size={size}")).map_err(|error| failed(&error))?;
    mount_fs(
        "shm",
        path,
        "tmpfs",
        MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV,
        Some(options.as_c_str()),
    )
    .map_err(|error| failed(&error))
}

/// Takes it away; nothing there is fine.
pub(crate) fn unmount(path: &Path) {
    if path.exists() {
        let _ = unmount_fs(path, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(path);
    }
}

fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    match (device(path), path.parent().and_then(device)) {
        (Some(own), Some(parent)) => own != parent,
        _ => false,
    }
}
