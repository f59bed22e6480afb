use serde_json::json;

use super::kit::{archive, gzip, simple, store, tar};
use crate::{ErrorKind, ImportOptions};

fn names(bytes: &[u8]) -> Vec<String> {
    tar::Archive::new(bytes)
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

#[test]
fn a_saved_image_loads_elsewhere_with_the_same_id() {
    let test = store();
    let base = tar().file("base", vec![3; 100_000]).bytes();
    let top = tar().file("top", "t").bytes();
    test.load(&archive("app:1", json!({}), &[gzip(&base), top.clone()]))
        .unwrap();
    test.load(&archive("app:2", json!({"author": "a"}), &[base, top]))
        .unwrap();
    let save = test.store.save(&["app".into()]).unwrap();
    assert_eq!(save.images().count(), 2);
    let mut bytes = Vec::new();
    save.write_to(&mut bytes).unwrap();
    let names = names(&bytes);
    for name in ["index.json", "manifest.json", "oci-layout", "repositories"] {
        assert!(
            names.iter().any(|found| found == name),
            "{name} in {names:?}"
        );
    }
    let other = store();
    other.load(&bytes).unwrap();
    for name in ["app:1", "app:2"] {
        assert_eq!(
            other.store.get(name).unwrap().id(),
            test.store.get(name).unwrap().id()
        );
    }
    let again = other.store.save(&["app".into()]).unwrap();
    let mut second = Vec::new();
    again.write_to(&mut second).unwrap();
    assert_eq!(bytes, second, "saving is deterministic");
}

#[test]
fn the_oci_half_alone_loads_too() {
    let test = store();
    test.load(&simple("app:1", "x")).unwrap();
    let mut bytes = Vec::new();
    test.store
        .save(&["app:1".into()])
        .unwrap()
        .write_to(&mut bytes)
        .unwrap();
    let mut oci = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() != Some("manifest.json") {
            let mut header = entry.header().clone();
            let path = entry.path().unwrap().into_owned();
            oci.append_data(&mut header, path, &mut entry).unwrap();
        }
    }
    let other = store();
    other.load(&oci.into_inner().unwrap()).unwrap();
    assert_eq!(
        other.store.get("app:1").unwrap().id(),
        test.store.get("app:1").unwrap().id()
    );
}

#[test]
fn an_image_saved_by_id_has_no_name() {
    let test = store();
    let id = test.load(&simple("app:1", "x")).unwrap()[0].image.clone();
    let mut bytes = Vec::new();
    test.store
        .save(&[id.0.hex()[..12].to_owned()])
        .unwrap()
        .write_to(&mut bytes)
        .unwrap();
    let other = store();
    let loaded = other.load(&bytes).unwrap();
    assert_eq!(loaded[0].image, id);
    assert!(loaded[0].references.is_empty());
}

#[test]
fn an_unknown_name_is_said_before_anything_is_written() {
    let test = store();
    let error = test.store.save(&["nope".into()]).err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::NotFound, "No such image: nope:latest".into())
    );
}

#[test]
fn an_import_makes_one_layer_and_takes_instructions() {
    let test = store();
    let layer = tar().file("bin/sh", "x").bytes();
    let options = ImportOptions {
        reference: Some("imported".parse().unwrap()),
        changes: vec!["ENV A=1".into()],
        message: "from a test".into(),
        platform: Some("linux/arm64".into()),
    };
    let id = test.store.import(gzip(&layer).as_slice(), options).unwrap();
    let inspect = test.store.inspect("imported:latest").unwrap();
    assert_eq!(inspect.id.as_deref(), Some(id.as_str()));
    assert_eq!(inspect.architecture.as_deref(), Some("arm64"));
    assert_eq!(inspect.comment.as_deref(), Some("from a test"));
    assert_eq!(inspect.config.unwrap().env.unwrap(), ["A=1"]);
    assert_eq!(inspect.root_fs.unwrap().layers.unwrap().len(), 1);
    let bad = ImportOptions {
        changes: vec!["RUN x".into()],
        ..ImportOptions::default()
    };
    let error = test.store.import(layer.as_slice(), bad).unwrap_err();
    assert_eq!(error.to_string(), "RUN is not a valid change command");
    let error = test
        .store
        .import(&b"garbage"[..], ImportOptions::default())
        .unwrap_err();
    assert_eq!(error.to_string(), "unexpected EOF");
    assert_eq!(test.store.count(), 1);
}
