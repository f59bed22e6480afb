//! Mounting overlayfs.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Layer paths are relative to `overlay2`, so that a hundred of them fit into the page that mount(2)
/// takes. The working directory is the process's, hence a thread that has one of its own.
pub(crate) fn mount_overlay(
    root: &Path,
    lower: &str,
    container: &str,
    merged: &Path,
) -> io::Result<()> {
    let options = format!(
        "lowerdir={lower},upperdir={container}/diff,workdir={container}/work{}",
        extra()
    );
    thread::scope(|scope| {
        let mounter = thread::Builder::new()
            .name("mount".to_owned())
            .spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_FS)?;
                nix::unistd::chdir(root)?;
                let flags = MsFlags::empty();
                mount(
                    Some("overlay"),
                    merged,
                    Some("overlay"),
                    flags,
                    Some(options.as_str()),
                )?;
                Ok(())
            })?;
        mounter.join().expect("mounting does not panic")
    })
}

/// Features a host may have on by default and that would break us: an index makes an upper
/// directory unusable after a crash, redirects and metacopies make it meaningless without the very
/// layers it was made on (`commit`, `diff`). Kernels that do not know them refuse the option.
fn extra() -> &'static str {
    static EXTRA: OnceLock<String> = OnceLock::new();
    EXTRA.get_or_init(|| {
        let known = |name: &&str| {
            Path::new("/sys/module/overlay/parameters")
                .join(name)
                .exists()
        };
        let off = ["index", "redirect_dir", "metacopy"]
            .into_iter()
            .filter(known);
        off.flat_map(|name| [",", name, "=off"]).collect()
    })
}

/// Unmounts everything mounted there; busy mounts vanish when their last user does.
pub(crate) fn unmount_all(merged: &Path) -> io::Result<()> {
    loop {
        match umount2(merged, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(nix::errno::Errno::EBUSY) => {
                umount2(merged, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)?;
            }
            // Not a mount point (any more), or not there at all.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
