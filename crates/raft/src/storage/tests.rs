use super::*;
use crate::RealDisk;
use raft::Storage as _;
use std::fs;

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: format!("entry {index} of term {term}").into_bytes().into(),
        ..Default::default()
    }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (term, vote, commit);
    state
}

fn voters(ids: &[u64]) -> ConfState {
    ConfState::from((ids.to_vec(), Vec::new()))
}

struct Lab {
    dir: tempfile::TempDir,
    key: SecretKey,
}

impl Lab {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            key: SecretKey::generate(),
        }
    }

    fn keys(&self) -> Keyring {
        Keyring::new(self.key.clone(), Vec::new())
    }

    fn create(&self) -> LogStorage {
        LogStorage::create(
            Arc::new(RealDisk),
            self.dir.path(),
            self.keys(),
            7,
            hard_state(1, 0, 1),
            vec![entry(1, 1)],
        )
        .unwrap()
    }

    fn open(&self) -> Result<LogStorage, StorageError> {
        LogStorage::open(Arc::new(RealDisk), self.dir.path(), self.keys())
            .map(|storage| storage.unwrap())
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join(
            self.files()
                .iter()
                .find(|name| name.starts_with("log-"))
                .unwrap(),
        )
    }
}

fn all(storage: &LogStorage) -> Vec<Entry> {
    let (first, last) = (
        storage.first_index().unwrap(),
        storage.last_index().unwrap(),
    );
    if first > last {
        return Vec::new();
    }
    storage
        .entries(first, last + 1, None, GetEntriesContext::empty(false))
        .unwrap()
}

#[test]
fn an_empty_directory_has_no_log() {
    let lab = Lab::new();
    assert!(
        LogStorage::open(Arc::new(RealDisk), lab.dir.path(), lab.keys())
            .unwrap()
            .is_none()
    );
    let missing = lab.dir.path().join("missing");
    assert!(
        LogStorage::open(Arc::new(RealDisk), &missing, lab.keys())
            .unwrap()
            .is_none()
    );
}

#[test]
fn everything_appended_is_there_after_a_crash() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage
        .append(Some(&hard_state(2, 7, 1)), entries(2..=4, 2))
        .unwrap();
    storage.append(None, entries(5..=5, 2)).unwrap();
    drop(storage);

    let storage = lab.open().unwrap();
    assert_eq!(storage.raft_id(), 7);
    assert_eq!(
        storage.initial_state().unwrap().hard_state,
        hard_state(2, 7, 1)
    );
    let mut expected = vec![entry(1, 1)];
    expected.extend(entries(2..=5, 2));
    assert_eq!(all(&storage), expected);
    assert_eq!(storage.term(3).unwrap(), 2);
}

#[test]
fn a_new_leaders_entries_replace_the_old_ones() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage.append(None, entries(2..=6, 1)).unwrap();
    storage
        .append(Some(&hard_state(3, 0, 1)), entries(4..=5, 3))
        .unwrap();
    let expected = [
        entry(1, 1),
        entry(2, 1),
        entry(3, 1),
        entry(4, 3),
        entry(5, 3),
    ];
    assert_eq!(all(&storage), expected);
    drop(storage);
    assert_eq!(all(&lab.open().unwrap()), expected);
}

#[test]
fn a_write_cut_at_any_byte_is_undone_and_the_log_goes_on() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage.append(None, entries(2..=3, 1)).unwrap();
    let path = lab.log();
    let whole = fs::metadata(&path).unwrap().len();
    storage.append(None, entries(4..=9, 1)).unwrap();
    drop(storage);
    let full = fs::read(&path).unwrap();

    for length in whole as usize..full.len() {
        fs::write(&path, &full[..length]).unwrap();
        let mut storage = lab.open().unwrap();
        assert_eq!(storage.last_index().unwrap(), 3, "cut at {length}");
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
        // Only every so often: each append syncs.
        if length % 50 == 0 {
            storage.append(None, entries(4..=4, 1)).unwrap();
            drop(storage);
            assert_eq!(lab.open().unwrap().last_index().unwrap(), 4);
        }
    }
}

#[test]
fn a_flipped_bit_is_an_error_that_names_file_and_offset() {
    let lab = Lab::new();
    let mut storage = lab.create();
    let first = fs::metadata(lab.log()).unwrap().len();
    storage.append(None, entries(2..=3, 1)).unwrap();
    let second = fs::metadata(lab.log()).unwrap().len();
    storage.append(None, entries(4..=5, 1)).unwrap();
    drop(storage);
    let path = lab.log();
    let full = fs::read(&path).unwrap();

    for position in 0..full.len() {
        let mut bad = full.clone();
        bad[position] ^= 0x40;
        fs::write(&path, &bad).unwrap();
        let error = lab
            .open()
            .err()
            .unwrap_or_else(|| panic!("byte {position} was not missed"));
        let start = [0, first, second]
            .into_iter()
            .rfind(|&start| start <= position as u64);
        match error {
            StorageError::Damaged {
                path: named,
                offset,
                ..
            } => {
                assert_eq!(
                    (named, Some(offset)),
                    (path.clone(), start),
                    "byte {position}"
                );
            }
            other => panic!("byte {position}: {other}"),
        }
        // Nothing was repaired away.
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
}

#[test]
fn another_key_is_told_from_damage() {
    let mut lab = Lab::new();
    drop(lab.create());
    lab.key = SecretKey::generate();
    let error = lab.open().err().unwrap();
    let text = error.to_string();
    assert!(
        matches!(error, StorageError::WrongKey { offset: 0, .. }),
        "{text}"
    );
    assert!(
        text.ends_with("it was written with another data encryption key"),
        "{text}"
    );
}

#[test]
fn nothing_readable_is_on_the_disk() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage.append(None, entries(2..=3, 1)).unwrap();
    storage
        .compact(3, &voters(&[7]), b"the secret state".to_vec(), 500)
        .unwrap();
    for name in lab.files() {
        let bytes = fs::read(lab.dir.path().join(&name)).unwrap();
        for secret in [&b"entry 2"[..], b"the secret state"] {
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret),
                "{name}"
            );
        }
    }
}

#[test]
fn compaction_leaves_one_log_one_snapshot_and_the_entries_to_keep() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage
        .append(Some(&hard_state(1, 7, 20)), entries(2..=20, 1))
        .unwrap();
    storage
        .compact(15, &voters(&[7, 8]), b"state at 15".to_vec(), 5)
        .unwrap();
    assert_eq!(
        lab.files(),
        [
            "log-0000000000000002",
            "snapshot-0000000000000001-000000000000000f"
        ]
    );
    storage.append(None, entries(21..=21, 1)).unwrap();
    drop(storage);

    let storage = lab.open().unwrap();
    assert_eq!(all(&storage), entries(11..=21, 1));
    assert_eq!(storage.term(10).unwrap(), 1);
    assert!(storage.term(9).is_err());
    assert_eq!(storage.snapshot_index(), 15);
    let state = storage.initial_state().unwrap();
    assert_eq!(state.hard_state, hard_state(1, 7, 20));
    assert_eq!(state.conf_state, voters(&[7, 8]));
    let snapshot = storage.snapshot(0, 8).unwrap();
    assert_eq!(&snapshot.data[..], b"state at 15");
    assert_eq!(snapshot.get_metadata().index, 15);
}

#[test]
fn a_crash_between_the_steps_of_a_compaction_leaves_the_old_state() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage
        .append(Some(&hard_state(1, 7, 9)), entries(2..=9, 1))
        .unwrap();
    drop(storage);
    // The snapshot file was written, and the new log only half.
    fs::write(
        lab.dir
            .path()
            .join("snapshot-0000000000000001-0000000000000008"),
        "x",
    )
    .unwrap();
    fs::write(lab.dir.path().join("log-0000000000000002.tmp"), "half").unwrap();
    let storage = lab.open().unwrap();
    assert_eq!(storage.snapshot_index(), 0);
    assert_eq!(storage.last_index().unwrap(), 9);
    assert_eq!(lab.files(), ["log-0000000000000001"]);
}

#[test]
fn a_crash_before_the_old_log_is_removed_leaves_the_new_state() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage
        .append(Some(&hard_state(1, 7, 9)), entries(2..=9, 1))
        .unwrap();
    let old = fs::read(lab.log()).unwrap();
    storage
        .compact(9, &voters(&[7]), b"state".to_vec(), 0)
        .unwrap();
    drop(storage);
    fs::write(lab.dir.path().join("log-0000000000000001"), old).unwrap();
    let storage = lab.open().unwrap();
    assert_eq!(storage.snapshot_index(), 9);
    assert_eq!(lab.files().len(), 2);
}

#[test]
fn a_missing_or_damaged_snapshot_is_an_error() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage
        .append(Some(&hard_state(1, 7, 3)), entries(2..=3, 1))
        .unwrap();
    storage
        .compact(3, &voters(&[7]), b"state".to_vec(), 500)
        .unwrap();
    drop(storage);
    let path = lab.dir.path().join(lab.files().pop().unwrap());
    let whole = fs::read(&path).unwrap();

    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(
        lab.open().err(),
        Some(StorageError::Damaged { .. })
    ));
    fs::write(&path, "").unwrap();
    assert!(matches!(
        lab.open().err(),
        Some(StorageError::Damaged { .. })
    ));
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        lab.open().err(),
        Some(StorageError::MissingSnapshot(_))
    ));
}

#[test]
fn a_leaders_snapshot_replaces_the_log() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage.append(None, entries(2..=9, 1)).unwrap();
    let theirs = snapshot(100, 4, &voters(&[7, 8, 9]), b"their state".to_vec());
    storage
        .install(&theirs, Some(&hard_state(4, 0, 100)))
        .unwrap();
    assert!(all(&storage).is_empty());
    storage.append(None, entries(101..=102, 4)).unwrap();
    drop(storage);

    let storage = lab.open().unwrap();
    assert_eq!(all(&storage), entries(101..=102, 4));
    assert_eq!(storage.term(100).unwrap(), 4);
    assert_eq!(
        storage.initial_state().unwrap().hard_state,
        hard_state(4, 0, 100)
    );
    assert_eq!(
        storage.initial_state().unwrap().conf_state,
        voters(&[7, 8, 9])
    );
}

#[test]
fn after_a_rotation_only_the_new_key_is_needed() {
    let mut lab = Lab::new();
    let mut storage = lab.create();
    storage
        .append(Some(&hard_state(1, 7, 3)), entries(2..=3, 1))
        .unwrap();
    let new = SecretKey::generate();
    storage.rotate_key(new.clone());
    // Before the rewrite both keys are in use: a crash here needs both.
    storage.append(None, entries(4..=4, 1)).unwrap();
    let both = Keyring::new(new.clone(), vec![lab.key.clone()]);
    assert!(
        LogStorage::open(Arc::new(RealDisk), lab.dir.path(), both)
            .unwrap()
            .is_some()
    );

    storage
        .compact(3, &voters(&[7]), b"state".to_vec(), 500)
        .unwrap();
    drop(storage);
    assert!(matches!(
        lab.open().err(),
        Some(StorageError::WrongKey { .. })
    ));
    lab.key = new;
    assert_eq!(lab.open().unwrap().last_index().unwrap(), 4);
}

#[test]
fn an_entry_that_was_committed_and_is_missing_is_damage() {
    let lab = Lab::new();
    let mut storage = lab.create();
    storage
        .append(Some(&hard_state(1, 7, 9)), entries(2..=3, 1))
        .unwrap();
    drop(storage);
    let error = lab.open().err().unwrap().to_string();
    assert!(
        error.ends_with("entry 9 is committed, but the log ends at 3"),
        "{error}"
    );
}
