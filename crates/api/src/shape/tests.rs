use bollard_stubs::models as m;

use super::*;

#[test]
fn keys_that_clients_index_into_are_there_though_nothing_is_set() {
    let inspect = shaped(&m::ContainerInspectResponse::default(), CONTAINER);
    for pointer in [
        "/Config/Entrypoint",
        "/Config/Volumes",
        "/Config/Env",
        "/HostConfig/Binds",
        "/HostConfig/Links",
    ] {
        assert_eq!(inspect.pointer(pointer), Some(&Value::Null), "{pointer}");
    }
    assert_eq!(inspect.pointer("/NetworkSettings/Ports"), Some(&json!({})));
    assert_eq!(
        inspect.pointer("/NetworkSettings/Networks"),
        Some(&json!({}))
    );
    assert_eq!(inspect.pointer("/Mounts"), Some(&json!([])));
    assert_eq!(
        inspect.pointer("/HostConfig/RestartPolicy"),
        Some(&json!({"Name": "", "MaximumRetryCount": 0}))
    );
    assert_eq!(
        inspect.pointer("/HostConfig/ConsoleSize"),
        Some(&json!([0, 0]))
    );
    // `omitempty` in Docker: a template on it must fail there and here alike.
    assert_eq!(inspect.pointer("/State/Health"), None);
    assert_eq!(inspect.pointer("/Config/Healthcheck"), None);
    assert_eq!(inspect.pointer("/HostConfig/Mounts"), None);
}

#[test]
fn fields_come_in_dockers_order_and_unknown_ones_last() {
    let value = apply(
        json!({"New": 1, "Titles": ["PID"], "Processes": [["1"]]}),
        TOP,
    );
    assert_eq!(
        value.to_string(),
        r#"{"Processes":[["1"]],"Titles":["PID"],"New":1}"#
    );
}

#[test]
fn pointers_keep_their_zero_and_omitempty_loses_it() {
    let value = apply(
        json!({"Shell": [], "StopTimeout": 0, "ExposedPorts": {"80/tcp": {}}}),
        CONFIG,
    );
    assert_eq!(value.get("StopTimeout"), Some(&json!(0)));
    assert_eq!(value.get("Shell"), None);
    assert_eq!(value.get("ExposedPorts"), Some(&json!({"80/tcp": {}})));
}
