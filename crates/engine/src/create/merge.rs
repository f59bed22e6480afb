//! What an image says, where the request says nothing.

use bollard_stubs::models as m;

use crate::error::{EngineError, Result};

/// Fills the request's gaps from the image, as dockerd does, and refuses a container without a
/// command.
pub(crate) fn merge(config: &mut m::ContainerConfig, image: Option<&m::ImageConfig>) -> Result<()> {
    if let Some(image) = image {
        fill(config, image);
    }
    // `--entrypoint ""` arrives as one empty string and means "none, not even the image's".
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    if is_empty(config.entrypoint.as_ref()) && is_empty(config.cmd.as_ref()) {
        return Err(EngineError::invalid("no command specified"));
    }
    Ok(())
}

fn fill(config: &mut m::ContainerConfig, image: &m::ImageConfig) {
    fill_text(&mut config.user, image.user.as_ref());
    fill_text(&mut config.working_dir, image.working_dir.as_ref());
    fill_text(&mut config.stop_signal, image.stop_signal.as_ref());
    union(&mut config.exposed_ports, image.exposed_ports.as_ref());
    union(&mut config.volumes, image.volumes.as_ref());

    let env = config.env.get_or_insert_with(Vec::new);
    for variable in image.env.iter().flatten() {
        if !env.iter().any(|own| key(own) == key(variable)) {
            env.push(variable.clone());
        }
    }
    let labels = config.labels.get_or_insert_with(Default::default);
    for (name, value) in image.labels.iter().flatten() {
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if is_empty(config.entrypoint.as_ref()) {
        if is_empty(config.cmd.as_ref()) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if config.shell.is_none() {
        config.shell.clone_from(&image.shell);
    }
    if let Some(theirs) = &image.healthcheck {
        merge_healthcheck(
            config
                .healthcheck
                .get_or_insert_with(m::HealthConfig::default),
            theirs,
        );
    }
}

fn merge_healthcheck(own: &mut m::HealthConfig, theirs: &m::HealthConfig) {
    if is_empty(own.test.as_ref()) {
        own.test.clone_from(&theirs.test);
    }
    for (own, theirs) in [
        (&mut own.interval, theirs.interval),
        (&mut own.timeout, theirs.timeout),
        (&mut own.start_period, theirs.start_period),
        (&mut own.start_interval, theirs.start_interval),
        (&mut own.retries, theirs.retries),
    ] {
        if own.unwrap_or(0) == 0 {
            *own = theirs;
        }
    }
}

fn key(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(key, _)| key)
}

fn is_empty(list: Option<&Vec<String>>) -> bool {
    list.is_none_or(Vec::is_empty)
}

fn fill_text(own: &mut Option<String>, theirs: Option<&String>) {
    if own.as_ref().is_none_or(String::is_empty) {
        *own = theirs.cloned();
    }
}

fn union(own: &mut Option<Vec<String>>, theirs: Option<&Vec<String>>) {
    for item in theirs.into_iter().flatten() {
        let own = own.get_or_insert_with(Vec::new);
        if !own.contains(item) {
            own.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the models' lists are optional")]
    fn strings(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|&text| text.to_owned()).collect())
    }

    fn image() -> m::ImageConfig {
        m::ImageConfig {
            entrypoint: strings(&["/entry"]),
            cmd: strings(&["serve"]),
            env: strings(&["A=1", "B=2"]),
            user: Some("app".to_owned()),
            exposed_ports: strings(&["80/tcp"]),
            ..m::ImageConfig::default()
        }
    }

    #[test]
    fn an_empty_request_is_the_image() {
        let mut config = m::ContainerConfig::default();
        merge(&mut config, Some(&image())).unwrap();
        assert_eq!(config.entrypoint, strings(&["/entry"]));
        assert_eq!(config.cmd, strings(&["serve"]));
        assert_eq!(config.user.as_deref(), Some("app"));
    }

    #[test]
    fn an_own_entrypoint_drops_the_images_command() {
        let mut config = m::ContainerConfig {
            entrypoint: strings(&["/bin/sh"]),
            ..Default::default()
        };
        merge(&mut config, Some(&image())).unwrap();
        assert_eq!(config.cmd, None);
    }

    #[test]
    fn an_empty_entrypoint_drops_the_images_entrypoint() {
        let mut config = m::ContainerConfig {
            entrypoint: strings(&[""]),
            cmd: strings(&["true"]),
            ..Default::default()
        };
        merge(&mut config, Some(&image())).unwrap();
        assert_eq!((config.entrypoint, config.cmd), (None, strings(&["true"])));
    }

    #[test]
    fn own_variables_come_first_and_win() {
        let mut config = m::ContainerConfig {
            env: strings(&["B=3"]),
            ..Default::default()
        };
        merge(&mut config, Some(&image())).unwrap();
        assert_eq!(config.env, strings(&["B=3", "A=1"]));
    }

    #[test]
    fn no_command_anywhere_is_refused() {
        let error = merge(&mut m::ContainerConfig::default(), None).unwrap_err();
        assert_eq!(error.message, "no command specified");
    }
}
