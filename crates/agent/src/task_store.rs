//! The node's tasks on disk, so that a restarted daemon goes on with them before a manager answers.
//!
//! One file for a task's definition, a small one for its status. They are written whole and renamed,
//! but not synced: they must survive the death of the daemon, not that of the machine, and fifty
//! syncs would be most of what starting fifty containers costs. After a power cut no container runs
//! any more, a file that the disk lost fails its checksum and is dropped, and the manager, which has
//! every task and its last state, assigns it again.

use skep_model::{Task, TaskFromProtoError, TaskId, TaskStatus, UnknownTaskState};
use skep_proto::{self as proto, Message as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const TASK: &str = "task";
const STATUS: &str = "status";
/// A task that is no longer assigned, but whose remains may not be removed yet.
const REMOVING: &str = "removing";

#[derive(Debug, thiserror::Error)]
pub enum TaskStoreError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("task id {0:?} cannot be a file name")]
    TaskId(String),
}

#[derive(Debug)]
pub(crate) struct TaskStore {
    dir: PathBuf,
}

/// What a file holds is not a task of ours.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the checksum is wrong")]
    Checksum,
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    #[error(transparent)]
    Task(#[from] TaskFromProtoError),
    #[error(transparent)]
    Status(#[from] UnknownTaskState),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A task as it was when the daemon ended.
#[derive(Debug, PartialEq)]
pub(crate) struct StoredTask {
    pub(crate) task: Task,
    /// Only to be removed.
    pub(crate) removing: bool,
}

impl TaskStore {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, TaskStoreError> {
        fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        Ok(Self { dir })
    }

    /// All tasks, each with its last status. Damaged files are dropped with a warning.
    pub(crate) fn load(&self) -> Result<Vec<StoredTask>, TaskStoreError> {
        let mut tasks = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed("list", &self.dir))? {
            let path = entry.map_err(failed("list", &self.dir))?.path();
            let removing = match path.extension().and_then(|extension| extension.to_str()) {
                Some(TASK) => false,
                Some(REMOVING) => true,
                _ => continue,
            };
            match load_one(&path) {
                Ok(task) => tasks.push(StoredTask { task, removing }),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "dropped a damaged task file");
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
            }
        }
        tasks.sort_by(|a, b| a.task.id.cmp(&b.task.id));
        Ok(tasks)
    }

    pub(crate) fn put(&self, task: &Task) -> Result<(), TaskStoreError> {
        self.write(&task.id, TASK, &proto::Task::from(task).encode_to_vec())
    }

    pub(crate) fn put_status(
        &self,
        task: &TaskId,
        status: &TaskStatus,
    ) -> Result<(), TaskStoreError> {
        self.write(
            task,
            STATUS,
            &proto::TaskStatus::from(status).encode_to_vec(),
        )
    }

    /// The task is no longer assigned; after a restart only its removal goes on.
    pub(crate) fn mark_removing(&self, task: &TaskId) -> Result<(), TaskStoreError> {
        let (from, to) = (self.path(task, TASK)?, self.path(task, REMOVING)?);
        match fs::rename(&from, to) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("rename", &from)(source))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn delete(&self, task: &TaskId) -> Result<(), TaskStoreError> {
        for kind in [TASK, REMOVING, STATUS] {
            let path = self.path(task, kind)?;
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&self, task: &TaskId, kind: &str, bytes: &[u8]) -> Result<(), TaskStoreError> {
        let path = self.path(task, kind)?;
        let temporary = path.with_extension(format!("{kind}.tmp"));
        let mut content = crc32fast::hash(bytes).to_le_bytes().to_vec();
        content.extend_from_slice(bytes);
        fs::write(&temporary, content)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(failed("write", &path))
    }

    /// Ids come from the manager, and are part of a path here.
    fn path(&self, task: &TaskId, kind: &str) -> Result<PathBuf, TaskStoreError> {
        let id = task.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            return Err(TaskStoreError::TaskId(id.to_owned()));
        }
        Ok(self.dir.join(format!("{id}.{kind}")))
    }
}

fn load_one(path: &Path) -> Result<Task, Unreadable> {
    let mut task = Task::try_from(proto::Task::decode(read(path)?.as_slice())?)?;
    let status = path.with_extension(STATUS);
    match read(&status) {
        Ok(bytes) => {
            task.status = proto::TaskStatus::decode(bytes.as_slice())?.try_into()?;
        }
        // Nothing worth keeping happened to it yet.
        Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(task)
}

fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let mut content = fs::read(path)?;
    if content.len() < 4 {
        return Err(Unreadable::Checksum);
    }
    let bytes = content.split_off(4);
    if content != crc32fast::hash(&bytes).to_le_bytes() {
        return Err(Unreadable::Checksum);
    }
    Ok(bytes)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TaskStoreError {
    let path = path.to_owned();
    move |source| TaskStoreError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::TaskState;

    fn task(id: &str) -> Task {
        Task {
            id: id.into(),
            desired_state: TaskState::Running,
            ..Default::default()
        }
    }

    fn store() -> (tempfile::TempDir, TaskStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = TaskStore::open(dir.path().join("tasks")).unwrap();
        (dir, store)
    }

    #[test]
    fn loads_tasks_with_their_last_status() {
        let (_dir, store) = store();
        store.put(&task("b")).unwrap();
        store.put(&task("a")).unwrap();
        let status = TaskStatus {
            state: TaskState::Running,
            ..Default::default()
        };
        store.put_status(&"b".into(), &status).unwrap();
        let loaded = store.load().unwrap();
        let expected = [
            StoredTask {
                task: task("a"),
                removing: false,
            },
            StoredTask {
                task: Task {
                    status,
                    ..task("b")
                },
                removing: false,
            },
        ];
        assert_eq!(loaded, expected);
    }

    #[test]
    fn a_task_being_removed_stays_one_until_it_is_gone() {
        let (_dir, store) = store();
        store.put(&task("a")).unwrap();
        store.mark_removing(&"a".into()).unwrap();
        assert!(store.load().unwrap()[0].removing);
        store.delete(&"a".into()).unwrap();
        assert_eq!(store.load().unwrap(), []);
        store.delete(&"a".into()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_dropped_and_the_others_stay() {
        let (dir, store) = store();
        store.put(&task("a")).unwrap();
        store.put(&task("b")).unwrap();
        let path = dir.path().join("tasks/a.task");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::write(dir.path().join("tasks/c.task"), "").unwrap();
        assert_eq!(
            store.load().unwrap(),
            [StoredTask {
                task: task("b"),
                removing: false
            }]
        );
        assert!(!path.exists());
    }

    #[test]
    fn an_id_cannot_lead_out_of_the_directory() {
        let (_dir, store) = store();
        for id in ["../a", "", "a/b", ".a"] {
            assert!(
                matches!(store.put(&task(id)), Err(TaskStoreError::TaskId(_))),
                "{id:?}"
            );
        }
    }
}
