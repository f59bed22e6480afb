//! A container's environment.

/// What is searched when an image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The default variables and those of links, then the container's own, which replace them. A name without `=` takes
/// the variable away.
pub(crate) fn environment(
    own: Option<&Vec<String>>,
    hostname: &str,
    tty: bool,
    links: Vec<String>,
) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(links);
    replace_or_append(env, own.into_iter().flatten())
}

/// Puts each of `overrides` in the place of the variable of the same name, or at the end.
pub(crate) fn replace_or_append<'a>(
    mut env: Vec<String>,
    overrides: impl Iterator<Item = &'a String>,
) -> Vec<String> {
    for variable in overrides {
        let Some((name, _)) = variable.split_once('=') else {
            env.retain(|have| have.split_once('=').map(|(have, _)| have) != Some(variable));
            continue;
        };
        let place = env
            .iter()
            .position(|have| have.split_once('=').is_some_and(|(have, _)| have == name));
        match place {
            Some(place) => env[place].clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_variables_replace_the_defaults_in_place() {
        let own = vec![
            "FOO=1".to_owned(),
            "PATH=/bin".to_owned(),
            "HOSTNAME".to_owned(),
        ];
        assert_eq!(
            environment(Some(&own), "box", true, Vec::new()),
            ["PATH=/bin", "TERM=xterm", "FOO=1"]
        );
        assert_eq!(
            environment(None, "box", false, vec!["A=1".to_owned()])[1..],
            ["HOSTNAME=box", "A=1"]
        );
    }
}
