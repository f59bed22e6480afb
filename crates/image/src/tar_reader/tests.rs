use proptest::prelude::*;

use super::*;

fn reader(bytes: &[u8]) -> TarReader<&[u8]> {
    TarReader::new(bytes, 100, 1 << 20)
}

fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_mtime(7);
    let long = "d/".repeat(80) + "file";
    builder
        .append_data(&mut header.clone(), &long, &b"hello"[..])
        .unwrap();
    builder
        .append_pax_extensions([
            ("mtime", &b"-1.25"[..]),
            ("SCHILY.xattr.user.a", &b"x=\ny"[..]),
            ("uid", b"70000"),
        ])
        .unwrap();
    builder
        .append_data(&mut header, "b", &b"world"[..])
        .unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn reads_long_names_and_extended_attributes() {
    let tar = sample();
    let mut reader = reader(&tar);
    let first = reader.next_entry().unwrap().unwrap();
    assert_eq!(first.path.len(), 164);
    let second = reader.next_entry().unwrap().unwrap();
    assert_eq!(
        second.mtime,
        Time {
            seconds: -2,
            nanos: 750_000_000
        }
    );
    assert_eq!(second.xattrs, [(b"user.a".to_vec(), b"x=\ny".to_vec())]);
    assert_eq!(second.uid, 70000);
    let mut content = String::new();
    reader.read_to_string(&mut content).unwrap();
    assert_eq!(content, "world");
    assert!(reader.next_entry().unwrap().is_none());
    assert!(reader.drain().unwrap().is_empty());
}

#[test]
fn garbage_and_truncation_are_told_in_gos_words() {
    let error = reader(&[b'x'; 1024]).next_entry().unwrap_err();
    assert_eq!(error.to_string(), "archive/tar: invalid tar header");
    assert_eq!(
        reader(b"hello").next_entry().unwrap_err().to_string(),
        "unexpected EOF"
    );
    let tar = sample();
    let mut cut = reader(&tar[..1200]);
    let error = loop {
        match cut.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a truncated archive ended well"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "unexpected EOF");
}

#[test]
fn metadata_beyond_the_limit_is_refused() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let error = reader(header.as_bytes()).next_entry().unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

proptest! {
    #[test]
    fn damaged_archives_never_panic(at in 0..4096_usize, byte: u8, cut in 0..4096_usize) {
        let mut tar = sample();
        let at = at % tar.len();
        tar[at] = byte;
        tar.truncate(tar.len() - cut % tar.len());
        let mut reader = reader(&tar);
        while let Ok(Some(_)) = reader.next_entry() {}
    }
}
