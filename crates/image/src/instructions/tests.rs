use proptest::prelude::*;

use super::*;

fn apply(changes: &[&str]) -> Result<RunConfig, String> {
    let mut config = RunConfig::default();
    let changes: Vec<_> = changes.iter().map(|&change| change.to_owned()).collect();
    apply_changes(&mut config, &changes).map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn instructions_shape_the_configuration() {
    let config = apply(&[
        "ENV A=1 B=\"two words\"",
        "env C ${A}3",
        "CMD [\"sh\", \"-c\", \"x\"]",
        "ENTRYPOINT /run me",
        "EXPOSE 80 8000-8001/udp",
        "LABEL a=b \"c d\"='e f'",
        "WORKDIR /srv",
        "WORKDIR app",
        "USER nobody",
        "VOLUME /data /more",
        "STOPSIGNAL SIGQUIT",
        "ONBUILD RUN true",
        "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost",
    ])
    .unwrap();
    assert_eq!(config.env.unwrap(), ["A=1", "B=two words", "C=13"]);
    assert_eq!(config.cmd.unwrap(), ["sh", "-c", "x"]);
    assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "/run me"]);
    let ports: Vec<_> = config.exposed_ports.unwrap().into_keys().collect();
    assert_eq!(ports, ["80/tcp", "8000/udp", "8001/udp"]);
    assert_eq!(config.labels.unwrap()["c d"], "e f");
    assert_eq!(config.working_dir.unwrap(), "/srv/app");
    assert_eq!(config.user.unwrap(), "nobody");
    assert_eq!(config.volumes.unwrap().len(), 2);
    assert_eq!(config.stop_signal.unwrap(), "SIGQUIT");
    assert_eq!(config.on_build.unwrap(), ["RUN true"]);
    let health = config.healthcheck.unwrap();
    assert_eq!(health.interval, Some(90_000_000_000));
    assert_eq!(health.test.unwrap(), ["CMD-SHELL", "curl -f localhost"]);
}

#[test]
fn an_entrypoint_clears_the_command_it_was_not_given_with() {
    let mut config = RunConfig {
        cmd: Some(vec!["old".to_owned()]),
        ..RunConfig::default()
    };
    apply_changes(&mut config, &["ENTRYPOINT [\"/new\"]".to_owned()]).unwrap();
    assert_eq!(config.cmd, None);
    assert_eq!(config.entrypoint.unwrap(), ["/new"]);
}

#[test]
fn what_is_not_an_instruction_is_refused_in_dockerds_words() {
    let error = |change| apply(&[change]).unwrap_err();
    assert_eq!(error("RUN true"), "RUN is not a valid change command");
    assert_eq!(error("ENV A"), "ENV must have two arguments");
    assert_eq!(error("EXPOSE http"), "invalid containerPort: http");
    assert_eq!(error("EXPOSE 80/foo"), "invalid proto: foo");
    assert_eq!(error("STOPSIGNAL SIGNOPE"), "invalid signal: SIGNOPE");
    assert_eq!(
        error("ONBUILD FROM a"),
        "FROM isn't allowed as an ONBUILD trigger"
    );
    assert_eq!(error("USER"), "USER requires exactly one argument");
}

proptest! {
    #[test]
    fn arbitrary_changes_never_panic(
        name in "CMD|ENV|LABEL|EXPOSE|VOLUME|WORKDIR|HEALTHCHECK|ENTRYPOINT|ONBUILD",
        rest in "\\PC{0,60}",
    ) {
        let _ = apply(&[&format!("{name} {rest}")]);
    }
}
