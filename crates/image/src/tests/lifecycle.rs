use serde_json::json;

use super::kit::{TestStore, archive, simple, store, tar};
use crate::{ErrorKind, ImageUser, ListOptions, PruneOptions, RemoveOptions, Removed};

fn words(removed: &Removed) -> Vec<String> {
    let word = |text: &str| text.get(..16).unwrap_or(text).to_owned();
    removed
        .records
        .iter()
        .map(|record| match (&record.untagged, &record.deleted) {
            (Some(name), _) => format!("Untagged: {name}"),
            (_, Some(id)) => format!("Deleted: {}", word(id)),
            _ => String::new(),
        })
        .collect()
}

fn user(test: &TestStore, image: &str, running: bool) -> ImageUser {
    let image = test.store.get(image).unwrap().id().clone();
    ImageUser {
        container_id: "0123456789abcdef".into(),
        image,
        running,
    }
}

const FORCE: RemoveOptions = RemoveOptions {
    force: true,
    no_prune: false,
};

#[test]
fn tagging_adds_names_and_removing_them_one_by_one_ends_with_the_image() {
    let test = store();
    let id = test.load(&simple("app:1", "x")).unwrap()[0].image.clone();
    let tagged = test.store.tag("app:1", "registry:5000/app").unwrap();
    assert_eq!(tagged.reference.familiar(), "registry:5000/app:latest");
    assert!(test.store.get("app:1").unwrap().last_tag_time().is_some());
    let removed = test
        .store
        .remove("registry:5000/app", RemoveOptions::default(), &[])
        .unwrap();
    assert_eq!(words(&removed), ["Untagged: registry:5000/app:latest"]);
    let removed = test
        .store
        .remove("app:1", RemoveOptions::default(), &[])
        .unwrap();
    let expected = format!("Deleted: {}", &id.as_str()[..16]);
    assert_eq!(
        words(&removed)[..2],
        ["Untagged: app:1".to_owned(), expected]
    );
    assert_eq!(removed.records.len(), 3, "the layer is told too");
    assert_eq!(removed.reclaimed, 1);
    let actions: Vec<_> = removed.events.iter().map(|event| event.action).collect();
    assert_eq!(actions, ["untag", "delete"]);
    assert_eq!(test.files(), [] as [&str; 0]);
    let error = test.store.remove("app:1", FORCE, &[]).unwrap_err();
    assert_eq!(error.to_string(), "No such image: app:1");
}

#[test]
fn bad_tags_are_refused_in_dockerds_words() {
    let test = store();
    test.load(&simple("app:1", "x")).unwrap();
    let error = |target: &str| test.store.tag("app:1", target).unwrap_err();
    assert_eq!(error("a:b:c").to_string(), "invalid reference format");
    assert_eq!(
        error("sha256:abc").to_string(),
        "refusing to create an ambiguous tag using digest algorithm as name"
    );
    assert_eq!(error("a:b:c").kind(), ErrorKind::InvalidParameter);
    let error = test.store.tag("nope", "x").unwrap_err();
    assert_eq!(error.to_string(), "No such image: nope:latest");
}

#[test]
fn an_image_in_use_is_kept_with_dockerds_conflict() {
    let test = store();
    let id = test.load(&simple("app:1", "x")).unwrap()[0].image.clone();
    let (short, hex) = (id.short(), id.0.hex());
    let error = |name: &str, options, running| {
        let users = [user(&test, "app:1", running)];
        let error = test.store.remove(name, options, &users).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        error.to_string()
    };
    assert_eq!(
        error("app:1", RemoveOptions::default(), false),
        format!(
            "conflict: unable to remove repository reference \"app:1\" (must force) - container \
             0123456789ab is using its referenced image {short}"
        )
    );
    assert_eq!(
        error(hex, RemoveOptions::default(), true),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by \
             running container 0123456789ab"
        )
    );
    assert_eq!(
        error(hex, RemoveOptions::default(), false),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by \
             stopped container 0123456789ab"
        )
    );
    assert_eq!(
        error(&hex[..6], FORCE, true),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by \
             running container 0123456789ab"
        )
    );
    test.store.tag("app:1", "other:1").unwrap();
    let error = test
        .store
        .remove(hex, RemoveOptions::default(), &[])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in \
             multiple repositories"
        )
    );
    // Forced while it runs, a name goes and the image stays, quietly.
    let users = [user(&test, "app:1", true)];
    test.store.remove("other:1", FORCE, &users).unwrap();
    let removed = test.store.remove("app:1", FORCE, &users).unwrap();
    assert_eq!(words(&removed), ["Untagged: app:1"]);
    assert!(test.store.by_id(&id).is_some());
}

#[test]
fn shared_layers_go_with_the_last_image_that_has_them() {
    let test = store();
    let base = tar().file("base", "1234").bytes();
    let top = tar().file("top", "12").bytes();
    test.load(&archive("a:1", json!({}), std::slice::from_ref(&base)))
        .unwrap();
    test.load(&archive("b:1", json!({}), &[base, top])).unwrap();
    assert_eq!(test.store.layers_size(), 6);
    let all = test.store.list(
        &ListOptions {
            shared_size: true,
            ..ListOptions::default()
        },
        &[],
    );
    let shared: Vec<_> = all.unwrap().iter().map(|image| image.shared_size).collect();
    assert_eq!(shared, [4, 4]);
    assert_eq!(test.store.remove("b:1", FORCE, &[]).unwrap().reclaimed, 2);
    assert_eq!(test.store.remove("a:1", FORCE, &[]).unwrap().reclaimed, 4);
    assert_eq!(test.files(), [] as [&str; 0]);
}

#[test]
fn lists_are_filtered_as_docker_filters() {
    let test = store();
    let image = |name: &str, created: &str, label: &str| {
        let config = json!({"created": created, "config": {"Labels": {"tier": label}}});
        archive(name, config, &[tar().file("f", name).bytes()])
    };
    test.load(&image("old:1", "2020-01-01T00:00:00Z", "a"))
        .unwrap();
    test.load(&image("me/new:2", "2024-01-01T00:00:00.123456789Z", "b"))
        .unwrap();
    test.load(&image("", "2022-01-01T00:00:00Z", "a")).unwrap();
    let tags = |options: ListOptions| {
        let list = test.store.list(&options, &[]).unwrap();
        list.iter()
            .map(|image| image.repo_tags.join(","))
            .collect::<Vec<_>>()
    };
    let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let base = ListOptions::default;
    assert_eq!(tags(base()), ["me/new:2", "", "old:1"]);
    assert_eq!(
        tags(ListOptions {
            dangling: Some(true),
            ..base()
        }),
        [""]
    );
    assert_eq!(
        tags(ListOptions {
            dangling: Some(false),
            ..base()
        }),
        ["me/new:2", "old:1"]
    );
    assert_eq!(
        tags(ListOptions {
            labels: strings(&["tier=a"]),
            ..base()
        }),
        ["", "old:1"]
    );
    assert_eq!(
        tags(ListOptions {
            references: strings(&["*/new"]),
            ..base()
        }),
        ["me/new:2"]
    );
    assert_eq!(
        tags(ListOptions {
            before: strings(&["me/new:2"]),
            ..base()
        }),
        ["", "old:1"]
    );
    assert_eq!(
        tags(ListOptions {
            since: strings(&["old:1"]),
            ..base()
        }),
        ["me/new:2", ""]
    );
    let bad = ListOptions {
        references: strings(&["a["]),
        ..base()
    };
    assert_eq!(
        test.store.list(&bad, &[]).unwrap_err().to_string(),
        "syntax error in pattern"
    );
    let users = [user(&test, "old:1", true)];
    assert_eq!(test.store.list(&base(), &users).unwrap()[2].containers, 1);
}

#[test]
fn prune_takes_what_is_unused() {
    let test = store();
    test.load(&simple("app:1", "old")).unwrap();
    test.load(&simple("app:1", "new")).unwrap();
    test.load(&simple("used:1", "used")).unwrap();
    let pruned = test.store.prune(&PruneOptions::default(), &[]).unwrap();
    assert_eq!(pruned.reclaimed, 3);
    assert_eq!(test.store.count(), 2);
    let users = [user(&test, "used:1", false)];
    let all = PruneOptions {
        dangling: false,
        ..PruneOptions::default()
    };
    test.store.prune(&all, &users).unwrap();
    assert!(test.store.get("app:1").is_err());
    test.store.get("used:1").unwrap();
}
