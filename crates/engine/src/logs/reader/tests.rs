use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::*;

fn line(number: i64) -> String {
    let time = UnixNanos(number * 1_000_000_000).rfc3339();
    format!("{{\"log\":\"{number}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
}

fn append(path: &Path, numbers: std::ops::RangeInclusive<i64>) {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for number in numbers {
        file.write_all(line(number).as_bytes()).unwrap();
    }
}

fn rotated(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

async fn all(mut entries: mpsc::Receiver<io::Result<Entry>>) -> Vec<i64> {
    let mut numbers = Vec::new();
    while let Some(entry) = entries.recv().await {
        numbers.push(number(&entry.unwrap()));
    }
    numbers
}

fn number(entry: &Entry) -> i64 {
    std::str::from_utf8(&entry.line)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

async fn next(entries: &mut mpsc::Receiver<io::Result<Entry>>) -> i64 {
    let entry = tokio::time::timeout(Duration::from_secs(10), entries.recv()).await;
    number(&entry.expect("the reader hangs").unwrap().unwrap())
}

fn log_with_history() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    let mut gz = flate2::write::GzEncoder::new(
        File::create(rotated(&path, ".2.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    for number in 1..=3 {
        gz.write_all(line(number).as_bytes()).unwrap();
    }
    gz.finish().unwrap();
    append(&rotated(&path, ".1"), 4..=6);
    append(&path, 7..=9);
    (dir, path)
}

#[tokio::test]
async fn rotated_and_compressed_files_come_first() {
    let (_dir, path) = log_with_history();
    let read = |options| read(path.clone(), options, None, None).unwrap();
    assert_eq!(
        all(read(ReadOptions::default())).await,
        (1..=9).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn tail_reaches_into_older_files() {
    let (_dir, path) = log_with_history();
    for tail in [0, 2, 3, 5, 6, 8, 9, 50] {
        let options = ReadOptions {
            tail: Some(tail),
            ..ReadOptions::default()
        };
        let expected: Vec<_> = (1..=9).skip(9_usize.saturating_sub(tail)).collect();
        assert_eq!(
            all(read(path.clone(), options, None, None).unwrap()).await,
            expected,
            "tail {tail}"
        );
    }
}

#[tokio::test]
async fn since_and_until_cut_by_time() {
    let (_dir, path) = log_with_history();
    let at = |seconds: i64| Some(UnixNanos(seconds * 1_000_000_000));
    let options = ReadOptions {
        since: at(3),
        until: at(7),
        tail: None,
    };
    assert_eq!(
        all(read(path, options, None, None).unwrap()).await,
        [3, 4, 5, 6, 7]
    );
}

#[tokio::test]
async fn following_crosses_rotations_and_ends_with_the_container() {
    let (_dir, path) = log_with_history();
    let running = Arc::new(AtomicBool::new(true));
    let wake = Arc::new(Notify::new());
    let is_running = running.clone();
    let options = ReadOptions {
        tail: Some(1),
        ..ReadOptions::default()
    };
    let mut entries = read(
        path.clone(),
        options,
        Some(Box::new(move || is_running.load(Ordering::SeqCst))),
        Some(wake.clone()),
    )
    .unwrap();
    assert_eq!(next(&mut entries).await, 9);
    append(&path, 10..=12);
    assert_eq!(
        (
            next(&mut entries).await,
            next(&mut entries).await,
            next(&mut entries).await
        ),
        (10, 11, 12)
    );
    std::fs::rename(rotated(&path, ".1"), rotated(&path, ".3")).unwrap();
    std::fs::rename(&path, rotated(&path, ".1")).unwrap();
    append(&path, 13..=14);
    assert_eq!(
        (next(&mut entries).await, next(&mut entries).await),
        (13, 14)
    );
    append(&path, 15..=15);
    running.store(false, Ordering::SeqCst);
    wake.notify_one();
    assert_eq!(next(&mut entries).await, 15);
    assert!(
        tokio::time::timeout(Duration::from_secs(10), entries.recv())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_unfinished_line_waits_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    let whole = line(1);
    std::fs::write(&path, &whole[..10]).unwrap();
    let mut entries = read(
        path.clone(),
        ReadOptions::default(),
        Some(Box::new(|| true)),
        None,
    )
    .unwrap();
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(&whole.as_bytes()[10..])
        .unwrap();
    assert_eq!(next(&mut entries).await, 1);
}
