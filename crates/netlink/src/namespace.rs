//! Network namespaces: made, entered and removed without ever moving a thread that others use.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::NetlinkError;

const THREAD_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by an open file.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self, NetlinkError> {
        Self::open(Path::new(THREAD_NAMESPACE))
    }

    /// The namespace bound to `path`, or of a process when given its `/proc/<pid>/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetlinkError> {
        let what = || format!("opening network namespace {}", path.display());
        let file = File::open(path).map_err(NetlinkError::io(what()))?;
        Ok(Self { file })
    }

    /// Makes a namespace that lives as long as the bind mount at `path` (or this handle).
    ///
    /// `setup` runs inside it before anybody else can find it.
    pub fn create_at<T: Send>(
        path: &Path,
        setup: impl FnOnce() -> Result<T, NetlinkError> + Send,
    ) -> Result<(Self, T), NetlinkError> {
        let what = || format!("creating network namespace {}", path.display());
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(NetlinkError::io(what()))?;
        let made = on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(NetlinkError::errno(what()))?;
            let value = setup()?;
            let namespace = Self::current()?;
            mount(
                Some(THREAD_NAMESPACE),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(NetlinkError::errno(what()))?;
            Ok((namespace, value))
        });
        if made.is_err() {
            let _ = fs::remove_file(path);
        }
        made
    }

    /// A namespace without a name: it lives as long as this handle or anything inside it.
    pub fn create_unnamed() -> Result<Self, NetlinkError> {
        on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(NetlinkError::errno("creating a network namespace"))?;
            Self::current()
        })
    }

    /// Gives this namespace a name.
    pub fn bind_at(&self, path: &Path) -> Result<(), NetlinkError> {
        let what = || format!("naming network namespace {}", path.display());
        File::create_new(path).map_err(NetlinkError::io(what()))?;
        self.run(|| {
            mount(
                Some(THREAD_NAMESPACE),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(NetlinkError::errno(what()))
        })?
    }

    /// Takes the name away; the kernel destroys the namespace once nothing else uses it. It is no
    /// error if `path` is gone already.
    pub fn delete_at(path: &Path) -> Result<(), NetlinkError> {
        let what = || format!("removing network namespace {}", path.display());
        match umount2(path, MntFlags::MNT_DETACH) {
            // EINVAL: a plain file, left behind between its creation and the mount.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(NetlinkError::errno(what())(errno)),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(NetlinkError::io(what())(error))
            }
            _ => Ok(()),
        }
    }

    /// Runs `work` inside the namespace, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
        on_new_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Whether both handles mean the same namespace.
    pub fn is_same(&self, other: &Self) -> Result<bool, NetlinkError> {
        let identity = |namespace: &Self| -> Result<(u64, u64), NetlinkError> {
            let metadata = namespace
                .file
                .metadata()
                .map_err(NetlinkError::io("comparing namespaces"))?;
            Ok((metadata.dev(), metadata.ino()))
        };
        Ok(identity(self)? == identity(other)?)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Moves the calling thread for good: only for threads that end afterwards.
    fn enter(&self) -> Result<(), NetlinkError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(NetlinkError::errno("entering a network namespace"))
    }
}

/// Threads that changed their namespace are never given back to a pool: they end.
fn on_new_thread<T: Send>(
    work: impl FnOnce() -> Result<T, NetlinkError> + Send,
) -> Result<T, NetlinkError> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new()
            .name("netns".to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)
            .map_err(NetlinkError::io(
                "starting a thread for a network namespace",
            ))?;
        spawned.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that stays inside one namespace and runs what it is given, one after the other.
#[derive(Debug)]
pub struct NamespaceThread {
    jobs: mpsc::Sender<Job>,
}

impl NamespaceThread {
    /// Starts the thread; it ends when this handle is dropped.
    pub fn start(namespace: Namespace) -> Result<Self, NetlinkError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (entered, outcome) = mpsc::channel();
        thread::Builder::new()
            .name("netns-host".to_owned())
            .spawn(move || {
                let result = namespace.enter();
                let failed = result.is_err();
                // The starter waits for this; it cannot have gone.
                let _ = entered.send(result);
                if failed {
                    return;
                }
                for job in queue {
                    job();
                }
            })
            .map_err(NetlinkError::io(
                "starting a thread for a network namespace",
            ))?;
        outcome.recv().map_err(|_| NetlinkError::ThreadEnded)??;
        Ok(Self { jobs })
    }

    /// Runs `work` on the thread and waits for it. A panic in it continues in the caller.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetlinkError> {
        let (answer, outcome) = mpsc::channel();
        let job = Box::new(move || {
            // The caller waits below; if it is gone nobody wants the answer.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs.send(job).map_err(|_| NetlinkError::ThreadEnded)?;
        match outcome.recv().map_err(|_| NetlinkError::ThreadEnded)? {
            Ok(value) => Ok(value),
            Err(panic) => resume_unwind(panic),
        }
    }
}
