use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::*;

fn target(path: PathBuf, max_size: Option<u64>, max_file: u32, compress: bool) -> LogTarget {
    LogTarget::JsonFile {
        path,
        max_size,
        max_file,
        compress,
        attrs: BTreeMap::new(),
        buffer: None,
    }
}

fn entries(path: &Path) -> Vec<(String, String)> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(entry_of)
        .collect()
}

fn entry_of(line: &str) -> (String, String) {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    (text("stream"), text("log"))
}

fn at(directory: &TempDir) -> PathBuf {
    directory.path().join("c-json.log")
}

#[test]
fn a_line_is_written_byte_for_byte_as_dockerd_does() {
    let mut out = Vec::new();
    let attributes = encode::attributes(&BTreeMap::from([("tag".to_owned(), "a<b".to_owned())]));
    let line = b"a\"\\\t<&>\x01 \xe2\x80\xa8\xff\xfe\xc3\xa9\r\n";
    encode::entry(
        &mut out,
        line,
        "stdout",
        &attributes,
        b"2026-01-02T03:04:05.6Z",
    );
    let expected = concat!(
        r#"{"log":"a\"\\\u0009\u003c\u0026\u003e\u0001 \u2028\ufffd\ufffdé\r\n","stream":"stdout","#,
        r#""attrs":{"tag":"a\u003cb"},"time":"2026-01-02T03:04:05.6Z"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn lines_are_put_together_from_whatever_is_read() {
    let directory = TempDir::new().unwrap();
    let mut log = ContainerLog::open(&target(at(&directory), None, 1, false)).unwrap();
    log.write(STDOUT, b"one\ntw");
    log.write(STDERR, b"other\n");
    log.write(STDOUT, b"o\n\nrest");
    log.close();
    let expected = [
        ("stdout", "one\n"),
        ("stderr", "other\n"),
        ("stdout", "two\n"),
        ("stdout", "\n"),
        ("stdout", "rest"),
    ];
    let found = entries(&at(&directory));
    let found: Vec<_> = found
        .iter()
        .map(|(stream, log)| (stream.as_str(), log.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn long_lines_go_out_in_parts_of_16_kib() {
    for (length, parts) in [
        (16 * 1024 - 1, vec![16 * 1024]),
        (16 * 1024, vec![16 * 1024, 1]),
        (16 * 1024 + 1, vec![16 * 1024, 2]),
        (40_000, vec![16 * 1024, 16 * 1024, 40_001 - 2 * 16 * 1024]),
    ] {
        let directory = TempDir::new().unwrap();
        let mut log = ContainerLog::open(&target(at(&directory), None, 1, false)).unwrap();
        let mut line = vec![b'x'; length];
        line.push(b'\n');
        for chunk in line.chunks(5000) {
            log.write(STDOUT, chunk);
        }
        log.close();
        let lengths: Vec<_> = entries(&at(&directory))
            .iter()
            .map(|(_, log)| log.len())
            .collect();
        assert_eq!(lengths, parts, "a line of {length}");
    }
}

#[test]
fn rotation_keeps_so_many_files_and_loses_no_line_between_them() {
    let directory = TempDir::new().unwrap();
    let path = at(&directory);
    let mut log = ContainerLog::open(&target(path.clone(), Some(1000), 3, false)).unwrap();
    for number in 0..40 {
        log.write(STDOUT, format!("line {number}\n").as_bytes());
    }
    log.close();
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    assert!(
        !numbered(3).exists(),
        "three files are kept, the current one included"
    );
    let mut all = Vec::new();
    for file in [numbered(2), numbered(1), path.clone()] {
        all.extend(entries(&file).into_iter().map(|(_, log)| log));
    }
    let expected: Vec<String> = (40 - all.len()..40)
        .map(|number| format!("line {number}\n"))
        .collect();
    assert_eq!(all, expected);
    assert!(
        all.len() > 25,
        "what fits into three files is there: {}",
        all.len()
    );
}

#[test]
fn a_batch_that_is_larger_than_the_limit_is_split_between_files() {
    let directory = TempDir::new().unwrap();
    let path = at(&directory);
    let mut log = ContainerLog::open(&target(path.clone(), Some(1000), 100, false)).unwrap();
    let text: Vec<String> = (0..100).map(|number| format!("line {number}\n")).collect();
    log.write(STDOUT, text.concat().as_bytes());
    log.close();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() < 1200);
    }
}

#[test]
fn rotated_files_are_compressed() {
    let directory = TempDir::new().unwrap();
    let path = at(&directory);
    let mut log = ContainerLog::open(&target(path.clone(), Some(500), 3, true)).unwrap();
    for number in 0..20 {
        log.write(STDOUT, format!("line {number}\n").as_bytes());
    }
    log.close();
    let first = PathBuf::from(format!("{}.1.gz", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(&first).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let current = entries(&path).first().unwrap().1.clone();
    let before = text.lines().map(entry_of).next_back().unwrap().1;
    let number = |line: &str| {
        line.trim_end()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    assert_eq!(number(&before) + 1, number(&current));
    assert!(!PathBuf::from(format!("{}.1", path.display())).exists());
}

#[test]
fn with_one_file_only_the_newest_lines_stay() {
    let directory = TempDir::new().unwrap();
    let path = at(&directory);
    let mut log = ContainerLog::open(&target(path.clone(), Some(300), 1, false)).unwrap();
    for number in 0..50 {
        log.write(STDOUT, format!("line {number}\n").as_bytes());
    }
    log.close();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(entries(&path).last().unwrap().1, "line 49\n");
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_nothing_else() {
    let sink = Sink {
        path: PathBuf::from("/dev/full"),
        file: Some(OpenOptions::new().write(true).open("/dev/full").unwrap()),
        size: 0,
        rotation: Rotation {
            max_size: None,
            max_file: 1,
            compress: false,
            compressor: None,
        },
    };
    let mut log = ContainerLog {
        target: Target::Here(sink),
        attributes: String::new(),
        stdout: Line::default(),
        stderr: Line::default(),
        batch: Vec::new(),
        entries: 0,
        dropped: 0,
    };
    log.write(STDOUT, b"one\ntwo\n");
    log.write(STDOUT, b"three\n");
    assert_eq!(log.dropped, 3);
}

#[test]
fn what_a_child_writes_is_whole_and_rotated_by_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = at(&directory);
    let target = LogTarget::JsonFile {
        path: path.clone(),
        max_size: Some(4000),
        max_file: 100,
        compress: false,
        attrs: BTreeMap::new(),
        buffer: Some(1 << 20),
    };
    let mut log = ContainerLog::open(&target).unwrap();
    for number in 0..500 {
        log.write(STDOUT, format!("line {number}\n").as_bytes());
    }
    log.close();
    assert_eq!(log.dropped, 0, "it all fits into the buffer");
    let mut seen = Vec::new();
    for number in (1..100).rev() {
        let old = directory.path().join(format!("c-json.log.{number}"));
        if old.exists() {
            assert!(std::fs::metadata(&old).unwrap().len() < 4200);
            seen.extend(entries(&old));
        }
    }
    seen.extend(entries(&path));
    let wanted: Vec<_> = (0..500)
        .map(|number| ("stdout".to_owned(), format!("line {number}\n")))
        .collect();
    assert_eq!(seen, wanted);
}
