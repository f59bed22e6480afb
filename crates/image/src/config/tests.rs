use super::*;

#[test]
fn nulls_and_unknown_fields_are_taken_as_docker_takes_them() {
    let config = ImageConfig::parse(
        br#"{"architecture":"amd64","config":{"Env":null,"Cmd":["sh"],"Volumes":null,
            "ExposedPorts":{"80/tcp":{}},"Labels":null,"Unknown":1},"history":null,
            "rootfs":{"type":"layers","diff_ids":null}}"#,
    )
    .unwrap();
    assert_eq!(config.os(), "linux");
    assert!(config.diff_ids().is_empty());
    let run = config.config.unwrap().to_model();
    assert_eq!(run.cmd.unwrap(), ["sh"]);
    assert_eq!(run.exposed_ports.unwrap(), ["80/tcp"]);
}

#[test]
fn a_document_without_rootfs_or_with_more_history_than_layers_is_no_image() {
    let error = ImageConfig::parse(b"{}").unwrap_err();
    assert_eq!(error.to_string(), "invalid image JSON, no RootFS key");
    let error = ImageConfig::parse(
        br#"{"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x"}]}"#,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "too many non-empty layers in History section"
    );
}
