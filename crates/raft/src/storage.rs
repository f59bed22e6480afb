//! The log on disk and its copy in memory, as raft's `Storage`.
//!
//! One log file at a time. Its first record is a base: the raft id, the snapshot it builds on, the
//! entries kept from before, the hard state. Each further record is what one round of raft wanted
//! durable: hard state and new entries, in one write and one sync. A snapshot writes a snapshot file,
//! then a new log file whose base names it, and removes the old two; the rename of the log file is
//! the moment the switch happens. So a crash leaves either the old pair or the new one, no entry is
//! ever looked for in several files, and after a key rotation nothing is left under the old key.

mod files;
mod record;

use crate::convert::{self, conf_state_to_wire, hard_state_from_wire, hard_state_to_wire};
use crate::{Disk, DiskFile, RaftError, StorageError};
pub(crate) use files::Keyring;
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError as CoreError};
use skep_ca::SecretKey;
use skep_proto::raftpb;
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One record of the log file.
#[derive(Clone, PartialEq, prost::Message)]
struct LogRecord {
    /// In the first record of a file, and only there.
    #[prost(message, optional, tag = "1")]
    base: Option<Base>,
    #[prost(message, optional, tag = "2")]
    hard_state: Option<raftpb::HardState>,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<raftpb::Entry>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Base {
    #[prost(uint64, tag = "1")]
    raft_id: u64,
    /// The snapshot that state is restored from before entries are applied; index 0: none.
    #[prost(uint64, tag = "2")]
    snapshot_index: u64,
    #[prost(uint64, tag = "3")]
    snapshot_term: u64,
    /// The last entry that is no longer in the log; not after the snapshot.
    #[prost(uint64, tag = "4")]
    compacted_index: u64,
    #[prost(uint64, tag = "5")]
    compacted_term: u64,
}

pub(crate) struct LogStorage {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    keys: Keyring,
    file: Box<dyn DiskFile>,
    sequence: u64,
    base: Base,
    hard_state: HardState,
    /// As of the snapshot: what raft starts from; later changes are applied again from the log.
    conf_state: ConfState,
    entries: VecDeque<Entry>,
    /// Bytes written behind the base record.
    appended: u64,
    /// Raft asked for a snapshot that a member can use and there is none: the driver makes one.
    snapshot_wanted: Cell<bool>,
}

impl LogStorage {
    /// Opens the log of `dir`, repairing a torn end; `None` when there is none.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        keys: Keyring,
    ) -> Result<Option<Self>, StorageError> {
        let Some(sequence) = files::newest_log(&*disk, dir)? else {
            return Ok(None);
        };
        let path = files::log_path(dir, sequence);
        let content = files::read_file(&*disk, &path)?.unwrap_or_default();
        let mut replay = Replay::default();
        let mut first_record = 0;
        let length = files::read_records(&path, &content, &keys, Some(&*disk), |plain| {
            if replay.base.is_none() {
                first_record = plain.len();
            }
            replay.take(plain)
        })?;
        // A log file comes into being with its base, in one rename.
        let base = replay.base.ok_or_else(|| StorageError::Damaged {
            path: path.clone(),
            offset: 0,
            reason: "the first record is missing".to_owned(),
        })?;
        let mut storage = Self {
            file: files::open_for_append(&*disk, &path)?,
            disk,
            dir: dir.to_owned(),
            keys,
            sequence,
            base,
            hard_state: replay.hard_state,
            conf_state: ConfState::default(),
            entries: replay.entries,
            appended: length.saturating_sub(first_record as u64),
            snapshot_wanted: Cell::new(false),
        };
        // Raft would panic on it; entries that were acknowledged as committed are missing.
        let commit = storage.hard_state.commit;
        if commit < storage.base.compacted_index || commit > storage.last() {
            let last = storage.last();
            let reason = format!("entry {commit} is committed, but the log ends at {last}");
            return Err(StorageError::Damaged {
                path,
                offset: length,
                reason,
            });
        }
        if let Some(snapshot) = storage.read_snapshot()? {
            storage.conf_state = snapshot.get_metadata().get_conf_state().clone();
        }
        storage.remove_leftovers()?;
        Ok(Some(storage))
    }

    /// Founds a log. `entries` start at index 1; those up to `hard_state.commit` are committed.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        keys: Keyring,
        raft_id: u64,
        hard_state: HardState,
        entries: Vec<Entry>,
    ) -> Result<Self, StorageError> {
        files::create_dir(&*disk, dir)?;
        let base = Base {
            raft_id,
            ..Base::default()
        };
        let sequence = 1;
        let sealed = keys.seal(&base_record(base, &hard_state, &entries));
        let file = files::write_whole(&*disk, &files::log_path(dir, sequence), &sealed)?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            keys,
            file,
            sequence,
            base,
            hard_state,
            conf_state: ConfState::default(),
            entries: entries.into(),
            appended: 0,
            snapshot_wanted: Cell::new(false),
        })
    }

    pub(crate) fn raft_id(&self) -> u64 {
        self.base.raft_id
    }

    pub(crate) fn snapshot_index(&self) -> u64 {
        self.base.snapshot_index
    }

    /// Bytes written since the last snapshot.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended
    }

    /// Whether somebody waits for a newer snapshot; asking clears it.
    pub(crate) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }

    /// Makes a round's hard state and entries durable. After an error the log's end is unknown and
    /// the node must stop; what is found at the next start decides.
    pub(crate) fn append(
        &mut self,
        hard_state: Option<&HardState>,
        entries: Vec<Entry>,
    ) -> Result<(), StorageError> {
        let record = LogRecord {
            base: None,
            hard_state: hard_state.map(hard_state_to_wire),
            entries: entries.iter().map(convert::entry_to_wire).collect(),
        };
        let bytes = record::frame(&self.keys.seal(&record.encode_to_vec()));
        let write = |file: &mut dyn DiskFile| {
            file.write(&bytes)?;
            file.sync()
        };
        write(&mut *self.file).map_err(files::io_error(
            "append to",
            &files::log_path(&self.dir, self.sequence),
        ))?;
        self.appended += bytes.len() as u64;
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        append_entries(&mut self.entries, self.base.compacted_index, entries)
            .expect("raft appends behind its log and never into the compacted part");
        Ok(())
    }

    /// Remembers a new commit index without writing it: it goes along with the next round. A commit
    /// index that is lost is found again, because committed entries are on a quorum's disks.
    pub(crate) fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = self.hard_state.commit.max(commit);
    }

    /// Writes the commit index now. After a membership change: a founder that restarted without it
    /// would not know that it is a member, and would never campaign.
    pub(crate) fn sync_commit(&mut self) -> Result<(), StorageError> {
        let hard_state = self.hard_state.clone();
        self.append(Some(&hard_state), Vec::new())
    }

    /// Takes our own snapshot of the applied state, and drops the entries before it but for `keep`.
    pub(crate) fn compact(
        &mut self,
        index: u64,
        conf_state: &ConfState,
        data: Vec<u8>,
        keep: u64,
    ) -> Result<(), StorageError> {
        let term = self
            .term_of(index)
            .expect("an applied entry is in the log until compacted");
        let snapshot = snapshot(index, term, conf_state, data);
        let compacted = index.saturating_sub(keep).max(self.base.compacted_index);
        let base = Base {
            raft_id: self.base.raft_id,
            snapshot_index: index,
            snapshot_term: term,
            compacted_index: compacted,
            compacted_term: self
                .term_of(compacted)
                .expect("the log reaches back to here"),
        };
        let kept = self
            .entries
            .iter()
            .skip((compacted - self.base.compacted_index) as usize);
        let kept = kept.cloned().collect();
        let hard_state = self.hard_state.clone();
        self.switch(base, hard_state, kept, &snapshot)
    }

    /// Replaces everything by a snapshot that the leader sent.
    pub(crate) fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<(), StorageError> {
        let metadata = snapshot.get_metadata();
        let base = Base {
            raft_id: self.base.raft_id,
            snapshot_index: metadata.index,
            snapshot_term: metadata.term,
            compacted_index: metadata.index,
            compacted_term: metadata.term,
        };
        let mut hard_state = hard_state.unwrap_or(&self.hard_state).clone();
        hard_state.commit = hard_state.commit.max(metadata.index);
        hard_state.term = hard_state.term.max(metadata.term);
        self.switch(base, hard_state, VecDeque::new(), snapshot)
    }

    /// Appends the removal of every other member, and takes all that is in the log for committed:
    /// what was acknowledged is among it, and nobody is left to say otherwise.
    pub(crate) fn drop_others(&mut self) -> Result<(), StorageError> {
        let removals = self.voters().into_iter().filter(|&id| id != self.raft_id());
        let last = self.last();
        let term = self.hard_state.term.max(
            self.entries
                .back()
                .map_or(self.base.compacted_term, |last| last.term),
        );
        let entries: Vec<Entry> = removals
            .zip(last + 1..)
            .map(|(id, index)| removal(id, index, term))
            .collect();
        let mut hard_state = self.hard_state.clone();
        hard_state.term = term;
        hard_state.commit = entries.last().map_or(last, |entry| entry.index);
        self.append(Some(&hard_state), entries)
    }

    /// Who votes once the whole log is applied.
    fn voters(&self) -> BTreeSet<u64> {
        let mut voters: BTreeSet<u64> = self.conf_state.voters.iter().copied().collect();
        let news = self.entries.iter().filter(|entry| {
            entry.index > self.base.snapshot_index
                && entry.get_entry_type() == EntryType::EntryConfChange
        });
        for entry in news {
            // One that cannot be read stops the node when it is applied.
            let Ok(change) = raftpb::ConfChange::decode(entry.data.as_ref()) else {
                continue;
            };
            match change.r#type() {
                raftpb::ConfChangeType::ConfChangeAddNode => voters.insert(change.node_id),
                raftpb::ConfChangeType::ConfChangeRemoveNode => voters.remove(&change.node_id),
                _ => false,
            };
        }
        voters
    }

    /// From now on writes with another key. [`Self::compact`] then rewrites everything with it.
    pub(crate) fn rotate_key(&mut self, key: SecretKey) {
        self.keys.rotate(key);
    }

    /// Writes the log anew as it is, under the present key. Only without a snapshot.
    pub(crate) fn rewrite(&mut self) -> Result<(), StorageError> {
        let entries = std::mem::take(&mut self.entries);
        self.switch_log(self.base, self.hard_state.clone(), entries)
    }

    /// The snapshot that this log builds on.
    pub(crate) fn read_snapshot(&self) -> Result<Option<Snapshot>, StorageError> {
        if self.base.snapshot_index == 0 {
            return Ok(None);
        }
        let path = self.snapshot_path();
        let Some(content) = files::read_file(&*self.disk, &path)? else {
            return Err(StorageError::MissingSnapshot(path));
        };
        let mut found = None;
        files::read_records(&path, &content, &self.keys, None, |plain| {
            found = Some(raftpb::Snapshot::decode(plain).map_err(|error| error.to_string())?);
            Ok(())
        })?;
        let snapshot = found.ok_or_else(|| StorageError::Damaged {
            path,
            offset: 0,
            reason: "the snapshot file is empty".to_owned(),
        })?;
        Ok(Some(convert::snapshot_from_wire(snapshot)))
    }

    fn switch(
        &mut self,
        base: Base,
        hard_state: HardState,
        entries: VecDeque<Entry>,
        snapshot: &Snapshot,
    ) -> Result<(), StorageError> {
        let path = files::snapshot_path(&self.dir, base.snapshot_term, base.snapshot_index);
        let plain = convert::snapshot_to_wire(snapshot.clone()).encode_to_vec();
        files::write_whole(&*self.disk, &path, &self.keys.seal(&plain))?;
        self.switch_log(base, hard_state, entries)?;
        self.conf_state = snapshot.get_metadata().get_conf_state().clone();
        Ok(())
    }

    fn switch_log(
        &mut self,
        base: Base,
        hard_state: HardState,
        entries: VecDeque<Entry>,
    ) -> Result<(), StorageError> {
        let sequence = self.sequence + 1;
        let sealed = self.keys.seal(&base_record(base, &hard_state, &entries));
        let path = files::log_path(&self.dir, sequence);
        let file = files::write_whole(&*self.disk, &path, &sealed)?;
        self.file = file;
        self.sequence = sequence;
        self.base = base;
        self.hard_state = hard_state;
        self.entries = entries;
        self.appended = 0;
        self.keys.forget_former();
        self.remove_leftovers()
    }

    fn remove_leftovers(&self) -> Result<(), StorageError> {
        let log = files::log_path(&self.dir, self.sequence);
        files::remove_all_but(&*self.disk, &self.dir, &[&log, &self.snapshot_path()])
    }

    fn snapshot_path(&self) -> PathBuf {
        files::snapshot_path(&self.dir, self.base.snapshot_term, self.base.snapshot_index)
    }

    fn last(&self) -> u64 {
        self.base.compacted_index + self.entries.len() as u64
    }

    fn term_of(&self, index: u64) -> Result<u64, CoreError> {
        if index == self.base.compacted_index {
            return Ok(self.base.compacted_term);
        }
        if index < self.base.compacted_index {
            return Err(CoreError::Compacted);
        }
        let position = (index - self.base.compacted_index - 1) as usize;
        self.entries
            .get(position)
            .map(|entry| entry.term)
            .ok_or(CoreError::Unavailable)
    }
}

impl raft::Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.conf_state.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.compacted_index {
            return Err(CoreError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(CoreError::Unavailable.into());
        }
        let skip = (low - self.base.compacted_index - 1) as usize;
        let range = self.entries.iter().skip(skip).take((high - low) as usize);
        let mut entries = range.cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_of(index).map_err(Into::into)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.compacted_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// A snapshot from before the receiver joined is of no use to it: raft refuses one that does not
    /// list its own id.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let usable = |snapshot: &Snapshot| {
            let metadata = snapshot.get_metadata();
            metadata.index >= request_index && metadata.get_conf_state().voters.contains(&to)
        };
        match self.read_snapshot() {
            Ok(Some(snapshot)) if usable(&snapshot) => Ok(snapshot),
            Ok(_) => {
                self.snapshot_wanted.set(true);
                Err(CoreError::SnapshotTemporarilyUnavailable.into())
            }
            Err(error) => Err(raft::Error::Store(CoreError::Other(Box::new(error)))),
        }
    }
}

impl From<CoreError> for RaftError {
    fn from(error: CoreError) -> Self {
        Self::Core(error.into())
    }
}

/// What the records of a log file add up to.
#[derive(Default)]
struct Replay {
    base: Option<Base>,
    hard_state: HardState,
    entries: VecDeque<Entry>,
}

impl Replay {
    fn take(&mut self, plain: &[u8]) -> Result<(), String> {
        let record = LogRecord::decode(plain).map_err(|error| error.to_string())?;
        match (self.base, record.base) {
            (None, Some(base)) => self.base = Some(base),
            (None, None) => return Err("the first record has no base".to_owned()),
            (Some(_), Some(_)) => return Err("a base in the middle of a log".to_owned()),
            (Some(_), None) => {}
        }
        if let Some(hard_state) = record.hard_state {
            self.hard_state = hard_state_from_wire(hard_state);
        }
        let entries: Result<Vec<_>, _> = record
            .entries
            .into_iter()
            .map(convert::entry_from_wire)
            .collect();
        let entries = entries.map_err(|error| error.to_string())?;
        let compacted = self.base.map_or(0, |base| base.compacted_index);
        append_entries(&mut self.entries, compacted, entries)
    }
}

/// Appends entries, which replace those that are there from the first one's index on.
fn append_entries(
    log: &mut VecDeque<Entry>,
    compacted: u64,
    entries: Vec<Entry>,
) -> Result<(), String> {
    let Some(first) = entries.first().map(|entry| entry.index) else {
        return Ok(());
    };
    let next = compacted + log.len() as u64 + 1;
    if first <= compacted || first > next {
        return Err(format!("entry {first} where entry {next} was expected"));
    }
    log.truncate((first - compacted - 1) as usize);
    for (expected, entry) in (first..).zip(entries) {
        if entry.index != expected {
            return Err(format!(
                "entry {} where entry {expected} was expected",
                entry.index
            ));
        }
        log.push_back(entry);
    }
    Ok(())
}

fn removal(id: u64, index: u64, term: u64) -> Entry {
    let change = raftpb::ConfChange {
        id: 0,
        r#type: raftpb::ConfChangeType::ConfChangeRemoveNode.into(),
        node_id: id,
        context: Vec::new(),
    };
    let mut entry = Entry::default();
    entry.set_entry_type(EntryType::EntryConfChange);
    entry.term = term;
    entry.index = index;
    entry.data = change.encode_to_vec().into();
    entry
}

fn base_record<'a>(
    base: Base,
    hard_state: &HardState,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Vec<u8> {
    let record = LogRecord {
        base: Some(base),
        hard_state: Some(hard_state_to_wire(hard_state)),
        entries: entries.into_iter().map(convert::entry_to_wire).collect(),
    };
    record.encode_to_vec()
}

fn snapshot(index: u64, term: u64, conf_state: &ConfState, data: Vec<u8>) -> Snapshot {
    convert::snapshot_from_wire(raftpb::Snapshot {
        data,
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state_to_wire(conf_state)),
            index,
            term,
        }),
    })
}

#[cfg(test)]
mod tests;
