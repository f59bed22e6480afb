use proptest::prelude::*;

use super::*;
use crate::DigestError;

const HEX: &str = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

fn full(text: &str) -> String {
    Reference::parse(text).unwrap().to_string()
}

fn familiar(text: &str) -> String {
    Reference::parse(text).unwrap().familiar()
}

fn error(text: &str) -> String {
    Reference::parse(text).unwrap_err().to_string()
}

#[test]
fn official_names_live_in_the_library() {
    assert_eq!(full("busybox"), "docker.io/library/busybox");
    assert_eq!(full("docker.io/busybox:1"), "docker.io/library/busybox:1");
    assert_eq!(full("index.docker.io/busybox"), "docker.io/library/busybox");
    assert_eq!(full("me/echo:1.0"), "docker.io/me/echo:1.0");
}

#[test]
fn hosts_are_told_from_namespaces() {
    assert_eq!(full("registry:5000/me/echo"), "registry:5000/me/echo");
    assert_eq!(full("localhost/echo"), "localhost/echo");
    assert_eq!(full("LOCALHOST/echo"), "LOCALHOST/echo");
    assert_eq!(full("[::1]:5000/echo:2"), "[::1]:5000/echo:2");
    assert_eq!(full("127.0.0.1/echo"), "127.0.0.1/echo");
    assert_eq!(full("registry/echo"), "docker.io/registry/echo");
}

#[test]
fn familiar_forms_drop_what_is_the_default() {
    assert_eq!(familiar("docker.io/library/redis:7"), "redis:7");
    assert_eq!(familiar("docker.io/me/app"), "me/app");
    assert_eq!(familiar("docker.io/library/a/b"), "library/a/b");
    assert_eq!(familiar("registry:5000/redis"), "registry:5000/redis");
}

#[test]
fn the_default_tag_is_added_only_to_bare_names() {
    let with = |text: &str| {
        Reference::parse(text)
            .unwrap()
            .with_default_tag()
            .familiar()
    };
    assert_eq!(with("redis"), "redis:latest");
    assert_eq!(with("redis:7"), "redis:7");
    assert_eq!(
        with(&format!("redis@sha256:{HEX}")),
        format!("redis@sha256:{HEX}")
    );
}

#[test]
fn a_digest_beats_a_tag() {
    let both = Reference::parse(&format!("redis:7@sha256:{HEX}")).unwrap();
    assert_eq!(both.tag(), Some("7"));
    assert_eq!(
        both.favour_digest().familiar(),
        format!("redis@sha256:{HEX}")
    );
}

#[test]
fn errors_are_dockers() {
    assert_eq!(
        error("Foo"),
        "invalid reference format: repository name (library/Foo) must be lowercase"
    );
    assert_eq!(
        error("me/Foo:1"),
        "invalid reference format: repository name (me/Foo) must be lowercase"
    );
    for bad in [
        "", ":", "a:", "a@", "a//b", "-a", "a_-b", "a___b", "a:b:c", "a b", "a/", "é", "/a",
    ] {
        assert_eq!(error(bad), "invalid reference format", "{bad:?}");
    }
    assert_eq!(
        error(HEX),
        format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")
    );
    assert_eq!(
        error(&format!("docker.io/{}", "a".repeat(256))),
        "repository name must not be more than 255 characters"
    );
    assert_eq!(
        error(&format!("a@sha256:{}", &HEX[..40])),
        "invalid checksum digest length"
    );
    assert_eq!(
        error(&format!("a@md5:{}", &HEX[..32])),
        "unsupported digest algorithm"
    );
    assert_eq!(
        Reference::parse("a")
            .unwrap()
            .with_tag("-x")
            .unwrap_err()
            .to_string(),
        "invalid tag format"
    );
}

#[test]
fn a_full_id_is_an_id_and_not_a_name() {
    let id = AnyReference::Digest(format!("sha256:{HEX}").parse().unwrap());
    assert_eq!(AnyReference::parse(HEX).unwrap(), id);
    assert_eq!(AnyReference::parse(&format!("sha256:{HEX}")).unwrap(), id);
    assert!(matches!(
        AnyReference::parse(&HEX[..12]).unwrap(),
        AnyReference::Named(_)
    ));
    assert!(matches!(
        AnyReference::parse("sha256:abc").unwrap(),
        AnyReference::Named(_)
    ));
}

#[test]
fn digests_are_checked() {
    assert_eq!("sha256".parse::<Digest>(), Err(DigestError::Format));
    assert_eq!("sha256:ab".parse::<Digest>(), Err(DigestError::Length));
    assert_eq!(
        format!("sha256:{}", HEX.to_uppercase()).parse::<Digest>(),
        Err(DigestError::Format)
    );
    assert_eq!(
        format!("sha256:{HEX}").parse::<Digest>().unwrap().short(),
        &HEX[..12]
    );
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,80}") {
        let _ = AnyReference::parse(&text);
    }

    #[test]
    fn full_and_familiar_forms_parse_back_to_the_same(
        host in proptest::option::of("[a-z0-9]{1,8}\\.[a-z]{2,3}(:[0-9]{2,5})?|localhost"),
        path in "[a-z0-9]{1,6}([._-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,6}){0,2}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digest in proptest::option::of("[0-9a-f]{64}"),
    ) {
        let mut text = host.map_or(path.clone(), |host| format!("{host}/{path}"));
        if let Some(tag) = tag { text = format!("{text}:{tag}"); }
        if let Some(digest) = digest { text = format!("{text}@sha256:{digest}"); }
        if let Ok(parsed) = Reference::parse(&text) {
            prop_assert_eq!(&Reference::parse(&parsed.to_string()).unwrap(), &parsed);
            prop_assert_eq!(&Reference::parse(&parsed.familiar()).unwrap(), &parsed);
        }
    }
}
