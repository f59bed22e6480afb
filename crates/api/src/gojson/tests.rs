use std::collections::BTreeMap;

use bollard_stubs::models::{ContainerCreateBody, RestartPolicyNameEnum};
use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Spec {
    name: String,
    replicas: u64,
    ratio: f32,
    init: Option<bool>,
    args: Vec<String>,
    labels: BTreeMap<String, String>,
    inner: Inner,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inner {
    level: u8,
}

fn read(text: &str) -> Result<Spec, String> {
    from_slice(text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn null_is_the_zero_value_everywhere() {
    let spec = read(
        r#"{"Name":null,"Replicas":null,"Ratio":null,"Init":null,"Args":[null],"Labels":{"a":null},"Inner":null}"#,
    );
    let labels = BTreeMap::from([("a".to_owned(), String::new())]);
    assert_eq!(
        spec.unwrap(),
        Spec {
            args: vec![String::new()],
            labels,
            ..Spec::default()
        }
    );
    assert_eq!(read("null").unwrap(), Spec::default());
}

#[test]
fn keys_match_without_case_and_unknown_ones_are_ignored() {
    let spec = read(r#"{"name":"a","REPLICAS":3,"Colour":{"x":[1]},"Inner":{"level":7}}"#).unwrap();
    assert_eq!(
        (spec.name.as_str(), spec.replicas, spec.inner.level),
        ("a", 3, 7)
    );
    assert_eq!(read(r#"{"name":"a","Name":"b"}"#).unwrap().name, "b");
}

#[test]
fn numbers_are_strict_and_errors_name_the_field() {
    assert_eq!(
        read(r#"{"Replicas":"3"}"#).unwrap_err(),
        "json: cannot unmarshal string into Go struct field Spec.Replicas of type uint64"
    );
    assert_eq!(
        read(r#"{"Replicas":-1}"#).unwrap_err(),
        "json: cannot unmarshal number -1 into Go struct field Spec.Replicas of type uint64"
    );
    assert_eq!(
        read(r#"{"Inner":{"Level":300}}"#).unwrap_err(),
        "json: cannot unmarshal number 300 into Go struct field Spec.Inner.Level of type uint8"
    );
    assert!(read(r#"{"Replicas":1.5}"#).is_err());
    assert_eq!(
        read("[]").unwrap_err(),
        "json: cannot unmarshal array into Go value of type Spec"
    );
}

#[test]
fn broken_texts_are_told_apart() {
    assert_eq!(read(" \n").unwrap_err(), "EOF");
    assert_eq!(read(r#"{"Name":"#).unwrap_err(), "unexpected EOF");
    assert_eq!(read("{} {}").unwrap_err(), "unexpected content after JSON");
    assert_eq!(
        read("{x}").unwrap_err(),
        "invalid character 'x' looking for beginning of value"
    );
}

#[test]
fn a_create_request_as_old_clients_send_it_is_understood() {
    let body: ContainerCreateBody = from_slice(
        br#"{"Image":"busybox","Cmd":["true"],"Volumes":{"/data":null},"ExposedPorts":{"80/tcp":{}},
             "HostConfig":{"RestartPolicy":{"Name":"","MaximumRetryCount":0},"Memory":0,"Binds":null,
             "PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"Isolation":""},
             "NetworkingConfig":{"EndpointsConfig":{}}}"#,
    )
    .unwrap();
    let host = body.host_config.unwrap();
    assert_eq!(body.volumes.unwrap(), ["/data"]);
    assert_eq!(
        host.restart_policy.unwrap().name,
        Some(RestartPolicyNameEnum::EMPTY)
    );
    assert_eq!(host.binds, None);
}
