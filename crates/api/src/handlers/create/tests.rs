use super::*;

fn read(text: &str, minor: u32) -> Result<(m::ContainerCreateBody, Vec<String>), String> {
    read_body(text.as_bytes(), ApiVersion::new(1, minor)).map_err(|error| error.message)
}

#[test]
fn a_body_without_configuration_is_refused() {
    for text in ["{}", "null", r#"{"HostConfig":{}}"#] {
        assert_eq!(
            read(text, 53).unwrap_err(),
            "config cannot be empty in order to create a container",
            "{text}"
        );
    }
    assert_eq!(
        read("", 53).unwrap_err(),
        "invalid JSON: got EOF while reading request body"
    );
    assert_eq!(
        read("{} x", 53).unwrap_err(),
        "unexpected content after JSON"
    );
}

#[test]
fn unknown_words_are_named_as_docker_names_them() {
    let policy = r#"{"Image":"a","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}"#;
    assert!(
        read(policy, 53)
            .unwrap_err()
            .starts_with("invalid restart policy: unknown policy 'sometimes'; use one of")
    );
    let mount = r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"floppy","Target":"/a"}]}}"#;
    assert_eq!(
        read(mount, 53).unwrap_err(),
        "invalid mount config for type \"floppy\": mount type unknown"
    );
    let mismatch = r#"{"Image":"a","HostConfig":{"Memory":"1g"}}"#;
    assert_eq!(
        read(mismatch, 53).unwrap_err(),
        "invalid JSON: json: cannot unmarshal string into Go struct field ContainerCreateBody.HostConfig.Memory of type int64"
    );
}

#[test]
fn the_default_network_is_bridge() {
    let (body, _) = read(
        r#"{"Image":"a","HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"default":{}}}}"#,
        53,
    )
    .unwrap();
    assert_eq!(
        body.host_config.unwrap().network_mode.as_deref(),
        Some("bridge")
    );
    assert!(
        body.networking_config
            .unwrap()
            .endpoints_config
            .unwrap()
            .contains_key("bridge")
    );
    let (body, _) = read(r#"{"Image":"a"}"#, 53).unwrap();
    assert_eq!(
        body.host_config.unwrap().network_mode.as_deref(),
        Some("bridge")
    );
}

#[test]
fn an_old_clients_address_moves_to_its_endpoint() {
    let text =
        r#"{"Image":"a","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"bridge"}}"#;
    let mac = |minor| {
        let (body, warnings) = read(text, minor).unwrap();
        let endpoints = body
            .networking_config
            .and_then(|config| config.endpoints_config)
            .unwrap_or_default();
        (
            endpoints
                .get("bridge")
                .and_then(|endpoint| endpoint.mac_address.clone()),
            warnings.len(),
        )
    };
    assert_eq!(mac(41), (Some("02:42:ac:11:00:02".to_owned()), 0));
    assert_eq!(mac(47), (Some("02:42:ac:11:00:02".to_owned()), 1));
    assert_eq!(mac(53), (None, 0));
}

#[test]
fn limits_of_zero_and_empty_bindings_get_their_meaning() {
    let text = r#"{"Image":"a","HostConfig":{"PidsLimit":-1,"PortBindings":{"80/tcp":null}}}"#;
    let (body, warnings) = read(text, 53).unwrap();
    let host = body.host_config.unwrap();
    assert_eq!(host.pids_limit, None);
    assert_eq!(
        host.port_bindings.unwrap()["80/tcp"]
            .as_ref()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(warnings.len(), 1);
}

#[test]
fn options_of_another_mount_type_are_refused_since_1_42() {
    let text = r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","VolumeOptions":{}}]}}"#;
    assert_eq!(
        read(text, 42).unwrap_err(),
        "VolumeOptions must not be specified on mount type \"bind\""
    );
    assert!(read(text, 41).is_ok());
}
