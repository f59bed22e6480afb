//! A disk that keeps what was synced, and of the rest whatever a power cut leaves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use skep_raft::{Disk, DiskFile};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Killed: the kernel still writes what it was given.
    Kill,
    /// The machine loses power: unsynced writes are lost, kept or torn.
    PowerCut,
}

/// One machine's disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the directory was synced, oldest first.
    unsynced: Vec<NameChange>,
    /// Files that were opened before a crash are of no use after it.
    boot: u64,
    /// The process dies in the middle of the operation after so many more.
    dies_after: Option<u32>,
    syncs: u64,
    /// For checking that the checks can fail: syncing does nothing.
    lying: bool,
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl SimDisk {
    /// A disk whose syncs do nothing.
    pub fn lying() -> Self {
        let disk = Self::default();
        disk.0.lock().lying = true;
        disk
    }

    /// Lets the process die in the middle of one of its next operations.
    pub fn die_after(&self, operations: u32) {
        self.0.lock().dies_after = Some(operations);
    }

    pub fn is_dying(&self) -> bool {
        self.0.lock().dies_after.is_some()
    }

    /// How often something was made durable so far.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// What is on the disk when the machine starts again.
    pub fn restart(&self, ending: Ending, rng: &mut StdRng) {
        let mut state = self.0.lock();
        state.boot += 1;
        state.dies_after = None;
        if ending == Ending::PowerCut {
            let kept = rng.random_range(0..=state.unsynced.len());
            let mut names = state.durable_names.clone();
            for change in &state.unsynced[..kept] {
                change.apply(&mut names);
            }
            state.names = names;
            for inode in &mut state.inodes {
                tear(inode, rng);
            }
        }
        for inode in &mut state.inodes {
            inode.durable.clone_from(&inode.content);
        }
        state.durable_names = state.names.clone();
        state.unsynced.clear();
    }
}

/// What was appended since the last sync may be cut anywhere, or have holes where sectors were not
/// written.
fn tear(inode: &mut Inode, rng: &mut StdRng) {
    let safe = inode.durable.len();
    if inode.content.len() <= safe {
        inode.content.clone_from(&inode.durable);
        return;
    }
    let length = match rng.random_range(0..4) {
        0 => safe,
        1 => inode.content.len(),
        _ => rng.random_range(safe..=inode.content.len()),
    };
    inode.content.truncate(length);
    if rng.random_bool(0.3) {
        let mut from = safe;
        while from < length {
            let to = ((from / SECTOR + 1) * SECTOR).min(length);
            if rng.random_bool(0.5) {
                inode.content[from..to].fill(0);
            }
            from = to;
        }
    }
}

impl State {
    /// Counts an operation; an error once the process is dead.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.dies_after {
            Some(0) => Err(io::Error::other("the simulated machine has lost its power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        self.names.get(path).copied().ok_or_else(missing)
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn sync_inode(&mut self, inode: usize) {
        self.syncs += 1;
        if !self.lying {
            let inode = &mut self.inodes[inode];
            inode.durable.clone_from(&inode.content);
        }
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.0.lock().operate()
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        Ok(inside.filter_map(name).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.lock();
        let inode = state.find(path)?;
        Ok(state.inodes[inode].content.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.operate()?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.change(NameChange::Create(path.to_owned(), inode));
        Ok(self.open(inode, state.boot))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.0.lock();
        let inode = state.find(path)?;
        Ok(self.open(inode, state.boot))
    }

    fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        let inode = state.find(path)?;
        state.inodes[inode].content.truncate(length as usize);
        state.sync_inode(inode);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        let inode = state.find(from)?;
        state.change(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        state.find(path)?;
        state.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        state.syncs += 1;
        if !state.lying {
            state.durable_names = state.names.clone();
            state.unsynced.clear();
        }
        Ok(())
    }
}

impl SimDisk {
    fn open(&self, inode: usize, boot: u64) -> Box<dyn DiskFile> {
        let disk = self.clone();
        Box::new(SimFile { disk, inode, boot })
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
    boot: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.disk.0.lock();
        if state.boot != self.boot {
            return Err(io::Error::other("the file was open before the crash"));
        }
        state.operate()?;
        Ok(state)
    }
}

impl DiskFile for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let inode = self.inode;
        let mut state = self.state()?;
        state.inodes[inode].content.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let inode = self.inode;
        self.state()?.sync_inode(inode);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn path() -> PathBuf {
        PathBuf::from("/d/file")
    }

    #[test]
    fn what_was_synced_outlives_every_power_cut() {
        for seed in 0..50 {
            let (disk, mut rng) = (SimDisk::default(), StdRng::seed_from_u64(seed));
            let mut file = disk.create(&path()).unwrap();
            file.write(b"safe").unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write(&[7; 2000]).unwrap();
            disk.restart(Ending::PowerCut, &mut rng);
            let content = disk.read(&path()).unwrap();
            assert!(content.starts_with(b"safe"), "seed {seed}");
            assert!(file.write(b"x").is_err(), "of the time before the crash");
        }
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_gone_and_a_killed_process_loses_nothing() {
        let mut gone = 0;
        for seed in 0..50 {
            let (disk, mut rng) = (SimDisk::default(), StdRng::seed_from_u64(seed));
            disk.create(&path()).unwrap().write(b"x").unwrap();
            disk.restart(Ending::PowerCut, &mut rng);
            gone += u32::from(disk.read(&path()).is_err());
            disk.create(&path()).unwrap().write(b"y").unwrap();
            disk.restart(Ending::Kill, &mut rng);
            assert_eq!(disk.read(&path()).unwrap(), b"y");
        }
        assert!((10..40).contains(&gone), "{gone} of 50");
    }
}
