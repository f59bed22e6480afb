use std::collections::BTreeMap;

use skep_proto::feed;

use super::difference;

fn networks(names: &[(&str, &str)]) -> BTreeMap<String, feed::NetworkState> {
    let state = |&(id, name): &(&str, &str)| {
        let state = feed::NetworkState {
            id: id.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        };
        (id.to_owned(), state)
    };
    names.iter().map(state).collect()
}

#[test]
fn the_first_update_is_everything_even_if_that_is_nothing() {
    let update = difference(None, &networks(&[]), 7).unwrap();
    assert!(update.reset && update.networks.is_empty());
    assert_eq!(update.version, 7);
}

#[test]
fn later_updates_are_what_changed() {
    let before = networks(&[("a", "a"), ("b", "b"), ("c", "c")]);
    let after = networks(&[("a", "a"), ("b", "changed"), ("d", "d")]);
    let update = difference(Some(&before), &after, 8).unwrap();
    let ids: Vec<_> = update.networks.iter().map(|one| one.id.as_str()).collect();
    assert_eq!((ids, update.gone), (vec!["b", "d"], vec!["c".to_owned()]));
    assert!(!update.reset);
    assert_eq!(difference(Some(&after), &after, 9), None);
}
