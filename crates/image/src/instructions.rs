//! What Dockerfile instructions do to an image's configuration.

use serde_json::json;
use skep_dockerfile::{Command, Instruction, exposed_ports, parse_changes};

use crate::config::RunConfig;
use crate::error::ImageError;

/// Applies the instructions of `docker commit --change` and `docker import --change` in order, with
/// dockerd's refusals.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<(), ImageError> {
    if changes.iter().all(|change| change.trim().is_empty()) {
        return Ok(());
    }
    let instructions =
        parse_changes(&changes.join("\n")).map_err(|error| ImageError::Invalid(error.reason))?;
    let mut command_set = false;
    for mut instruction in instructions {
        let env = config.env.clone().unwrap_or_default();
        instruction
            .expand('\\', &|name| variable(&env, name))
            .map_err(ImageError::Invalid)?;
        config.apply(&instruction, &mut command_set)?;
    }
    Ok(())
}

/// A variable of an environment.
fn variable(env: &[String], name: &str) -> Option<String> {
    env.iter()
        .filter_map(|entry| entry.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

impl RunConfig {
    /// Applies an instruction whose variables are put in. `command_set` tells, and is told, whether
    /// there was a `CMD` before in the same file: an `ENTRYPOINT` then does not clear it.
    pub fn apply(
        &mut self,
        instruction: &Instruction,
        command_set: &mut bool,
    ) -> Result<(), ImageError> {
        match instruction {
            Instruction::Cmd(command) => {
                let command = self.command(command);
                *command_set |= !command.is_empty();
                self.cmd = Some(command);
                self.args_escaped = None;
            }
            Instruction::Entrypoint(command) => {
                self.entrypoint = Some(self.command(command)).filter(|list| !list.is_empty());
                if !*command_set {
                    self.cmd = None;
                }
            }
            Instruction::Env(pairs) => pairs.iter().for_each(|(key, value)| self.set(key, value)),
            Instruction::Label(pairs) => {
                let labels = self.labels.get_or_insert_default();
                labels.extend(pairs.iter().cloned());
            }
            Instruction::Expose(words) => {
                for word in words {
                    let ports = exposed_ports(word).map_err(ImageError::Invalid)?;
                    let exposed = self.exposed_ports.get_or_insert_default();
                    exposed.extend(ports.into_iter().map(|port| (port, json!({}))));
                }
            }
            Instruction::User(user) => self.user = Some(user.clone()),
            Instruction::Workdir(path) => {
                let current = self.working_dir.take().unwrap_or_default();
                self.working_dir = Some(join_dir(&current, path));
            }
            Instruction::StopSignal(signal) => {
                if !is_signal(signal) {
                    return Err(ImageError::Invalid(format!("invalid signal: {signal}")));
                }
                self.stop_signal = Some(signal.clone());
            }
            Instruction::Volume(paths) => {
                let volumes = self.volumes.get_or_insert_default();
                volumes.extend(paths.iter().map(|path| (path.clone(), json!({}))));
            }
            Instruction::OnBuild(trigger) => {
                self.on_build.get_or_insert_default().push(trigger.clone());
            }
            Instruction::Healthcheck(health) => self.healthcheck = Some(health.clone()),
            Instruction::Shell(shell) => self.shell = Some(shell.clone()),
            Instruction::Add(_)
            | Instruction::Arg(_)
            | Instruction::Copy(_)
            | Instruction::Maintainer(_)
            | Instruction::Run(_) => {
                let name = instruction.name();
                return Err(ImageError::Invalid(format!(
                    "{name} is not a valid change command"
                )));
            }
        }
        Ok(())
    }

    /// The shell that runs command lines, with its arguments.
    pub fn shell(&self) -> Vec<String> {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        self.shell.clone().unwrap_or_else(default)
    }

    /// The words a command is run with.
    pub fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(list) => list.clone(),
            Command::Shell(text) if text.is_empty() => Vec::new(),
            Command::Shell(text) => {
                let mut words = self.shell();
                words.push(text.clone());
                words
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let env = self.env.get_or_insert_default();
        let entry = format!("{key}={value}");
        let known = env
            .iter_mut()
            .find(|old| old.split('=').next() == Some(key));
        match known {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }
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
