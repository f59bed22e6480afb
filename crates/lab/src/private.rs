//! A node's own host name and `/etc/hosts`.
//!
//! `/etc/hosts` needs a mount namespace, and a mount namespace keeps alive whatever was mounted when
//! it was made: other nodes' network namespaces, other people's container file systems. So a node's
//! namespace first lets go of those. The lab's own directory stays shared with the host: what one
//! daemon mounts there, the next one of the node sees.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use crate::{LabError, mounts};

const HOSTS: &str = "/etc/hosts";

/// Makes `root` a mount of its own that mount namespaces share.
pub(crate) fn share(root: &Path) -> Result<(), LabError> {
    let steps = [
        (Some(root), MsFlags::MS_BIND),
        // Alone first: it must share with its copies, not with what its file system shares with.
        (None, MsFlags::MS_PRIVATE),
        (None, MsFlags::MS_SHARED),
    ];
    for (source, flags) in steps {
        mount(source, root, None::<&str>, flags, None::<&str>)
            .map_err(LabError::system(format!("share {}", root.display())))?;
    }
    Ok(())
}

/// Gives the calling thread, and what it starts, a host name and hosts file of its own. Only for
/// threads that end afterwards.
pub(crate) fn enter(root: &Path, hosts: &Path, name: &str) -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .map_err(LabError::system("make namespaces for a node"))?;
    sethostname(name).map_err(LabError::system(format!("set the host name {name}")))?;
    for foreign in mounts::table() {
        if foreign.point.starts_with(root) {
            continue;
        }
        if foreign.shared {
            // Still told of what the host unmounts, and no longer telling.
            mount(
                None::<&str>,
                &foreign.point,
                None::<&str>,
                MsFlags::MS_SLAVE,
                None::<&str>,
            )
            .map_err(LabError::system(format!(
                "make {} private",
                foreign.point.display()
            )))?;
        }
        let pins = matches!(foreign.kind.as_str(), "nsfs" | "overlay");
        if pins && !root.starts_with(&foreign.point) {
            // The host may have unmounted it meanwhile.
            let _ = umount2(&foreign.point, MntFlags::MNT_DETACH);
        }
    }
    if !Path::new(HOSTS).exists() {
        return Ok(());
    }
    mount(
        Some(hosts),
        HOSTS,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(LabError::system(format!("give {name} its own {HOSTS}")))
}
