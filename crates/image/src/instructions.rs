//! The Dockerfile instructions that `docker import --change` and `docker commit --change` take.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::RunConfig;
use crate::error::ImageError;
use crate::healthcheck;
use crate::words::{expand, split_words, unquote};

/// Applies instructions in order, with dockerd's refusals.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<(), ImageError> {
    let mut state = State {
        config,
        command_set: false,
    };
    for line in logical_lines(&changes.join("\n")) {
        let (name, rest) = line
            .split_once(char::is_whitespace)
            .unwrap_or((line.as_str(), ""));
        state.apply(name, rest.trim())?;
    }
    Ok(())
}

/// Lines without comments and blanks, those that end in a backslash joined with the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if let Some(part) = trimmed.strip_suffix('\\') {
            open.push_str(part);
            continue;
        }
        lines.push(std::mem::take(&mut open) + trimmed);
    }
    if !open.is_empty() {
        lines.push(open);
    }
    lines
}

struct State<'a> {
    config: &'a mut RunConfig,
    /// CMD was among the changes: an ENTRYPOINT then does not clear it.
    command_set: bool,
}

impl State<'_> {
    fn apply(&mut self, name: &str, rest: &str) -> Result<(), ImageError> {
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            "CMD" => {
                self.config.cmd = Some(self.command(rest));
                self.config.args_escaped = None;
                self.command_set = true;
            }
            "ENTRYPOINT" => {
                let entrypoint = self.command(rest);
                self.config.entrypoint =
                    (!rest.is_empty() && !entrypoint.is_empty()).then_some(entrypoint);
                if !self.command_set {
                    self.config.cmd = None;
                }
            }
            "ENV" => self.env(rest)?,
            "LABEL" => self.label(rest)?,
            "EXPOSE" => self.expose(rest)?,
            "USER" => self.config.user = Some(self.single("USER", rest)?),
            "WORKDIR" => {
                let dir = self.single("WORKDIR", rest)?;
                let current = self.config.working_dir.take().unwrap_or_default();
                self.config.working_dir = Some(join_dir(&current, &dir));
            }
            "STOPSIGNAL" => {
                let signal = self.single("STOPSIGNAL", rest)?;
                if !is_signal(&signal) {
                    return Err(invalid(format!("invalid signal: {signal}")));
                }
                self.config.stop_signal = Some(signal);
            }
            "VOLUME" => self.volume(rest)?,
            "ONBUILD" => self.on_build(rest)?,
            "HEALTHCHECK" => self.config.healthcheck = Some(healthcheck::parse(rest)?),
            _ => return Err(invalid(format!("{name} is not a valid change command"))),
        }
        Ok(())
    }

    /// A JSON array is taken as it is, anything else is for the shell.
    fn command(&self, rest: &str) -> Vec<String> {
        if let Some(list) = json_list(rest) {
            return list;
        }
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        let mut command = self.config.shell.clone().unwrap_or_else(default);
        command.push(rest.to_owned());
        command
    }

    fn expand(&self, text: &str) -> Result<String, ImageError> {
        let env = self.config.env.clone().unwrap_or_default();
        expand(text, &env)
    }

    fn single(&self, name: &str, rest: &str) -> Result<String, ImageError> {
        let words = split_words(rest);
        let [word] = words.as_slice() else {
            return Err(invalid(format!("{name} requires exactly one argument")));
        };
        self.expand(word)
    }

    fn pairs(&self, name: &str, rest: &str) -> Result<Vec<(String, String)>, ImageError> {
        let words = split_words(rest);
        if words.is_empty() {
            return Err(invalid(format!("{name} requires at least one argument")));
        }
        let mut pairs = Vec::new();
        if words[0].contains('=') {
            for word in &words {
                let (key, value) = word.split_once('=').ok_or_else(|| {
                    invalid(format!(
                        "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
                    ))
                })?;
                pairs.push((self.expand(key)?, self.expand(value)?));
            }
        } else {
            let (key, value) = rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| invalid(format!("{name} must have two arguments")))?;
            pairs.push((self.expand(key)?, self.expand(value.trim())?));
        }
        if pairs.iter().any(|(key, _)| key.is_empty()) {
            return Err(invalid(format!("{name} names can not be blank")));
        }
        Ok(pairs)
    }

    fn env(&mut self, rest: &str) -> Result<(), ImageError> {
        for (key, value) in self.pairs("ENV", rest)? {
            let env = self.config.env.get_or_insert_default();
            let entry = format!("{key}={value}");
            let known = env
                .iter_mut()
                .find(|old| old.split('=').next() == Some(key.as_str()));
            match known {
                Some(old) => *old = entry,
                None => env.push(entry),
            }
        }
        Ok(())
    }

    fn label(&mut self, rest: &str) -> Result<(), ImageError> {
        let pairs = self.pairs("LABEL", rest)?;
        self.config.labels.get_or_insert_default().extend(pairs);
        Ok(())
    }

    fn expose(&mut self, rest: &str) -> Result<(), ImageError> {
        let words = split_words(rest);
        if words.is_empty() {
            return Err(invalid("EXPOSE requires at least one argument".to_owned()));
        }
        for word in words {
            let word = self.expand(&word)?;
            let ports = expose_ports(&word)?;
            let exposed = self.config.exposed_ports.get_or_insert_default();
            exposed.extend(ports.into_iter().map(|port| (port, empty())));
        }
        Ok(())
    }

    fn volume(&mut self, rest: &str) -> Result<(), ImageError> {
        let paths = json_list(rest).unwrap_or_else(|| split_words(rest));
        if paths.is_empty() {
            return Err(invalid("VOLUME requires at least one argument".to_owned()));
        }
        for path in paths {
            let path = self.expand(&path)?;
            if path.trim().is_empty() {
                return Err(invalid(
                    "VOLUME specified can not be an empty string".to_owned(),
                ));
            }
            let volumes: &mut BTreeMap<String, Value> = self.config.volumes.get_or_insert_default();
            volumes.insert(path, empty());
        }
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Result<(), ImageError> {
        let trigger = rest
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        match trigger.as_str() {
            "" => return Err(invalid("ONBUILD requires at least one argument".to_owned())),
            "ONBUILD" => {
                return Err(invalid(
                    "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned(),
                ));
            }
            "MAINTAINER" | "FROM" => {
                return Err(invalid(format!(
                    "{trigger} isn't allowed as an ONBUILD trigger"
                )));
            }
            _ => {}
        }
        self.config
            .on_build
            .get_or_insert_default()
            .push(rest.to_owned());
        Ok(())
    }
}

pub(crate) fn json_list(text: &str) -> Option<Vec<String>> {
    text.trim_start()
        .starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

pub(crate) fn invalid(text: String) -> ImageError {
    ImageError::Invalid(text)
}

fn empty() -> Value {
    json!({})
}

/// `80`, `80/udp`, `8000-8002/tcp`.
fn expose_ports(text: &str) -> Result<Vec<String>, ImageError> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid(format!("invalid proto: {protocol}")));
    }
    // A host part has no meaning in an image; dockerd drops it too.
    let ports = unquote(ports.rsplit(':').next().unwrap_or(ports));
    let bad = || invalid(format!("invalid containerPort: {ports}"));
    let (first, last) = ports.split_once('-').unwrap_or((&ports, &ports));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    if first > last {
        return Err(bad());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn join_dir(current: &str, dir: &str) -> String {
    let joined = if dir.starts_with('/') {
        dir.to_owned()
    } else {
        format!("/{current}/{dir}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(real_time) = name
        .strip_prefix("RTMIN")
        .or_else(|| name.strip_prefix("RTMAX"))
    {
        let offset = real_time.trim_start_matches(['+', '-']);
        return real_time.is_empty() || offset.parse::<u8>().is_ok_and(|offset| offset <= 15);
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .is_ok()
}

#[cfg(test)]
mod tests;
