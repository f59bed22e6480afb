//! A task's secrets and configs as files.

use skep_agent::{ControllerError, Dependencies};
use skep_model::Task;
use skep_proto as proto;

use super::template::{Payload, Template};
use crate::mounts::clean_path;
use crate::task_files::TaskFile;

/// Whether the task has any.
pub(super) fn wants_files(task: &Task) -> bool {
    task.container()
        .is_some_and(|spec| !spec.secrets.is_empty() || !spec.configs.is_empty())
}

/// All of them, with their templates filled in. One that the managers have not sent yet is worth
/// waiting for: after a restart of the daemon the tasks are known before the secrets come.
pub(super) fn files(
    task: &Task,
    dependencies: &Dependencies,
    template: &Template,
) -> Result<Vec<TaskFile>, ControllerError> {
    let Some(spec) = task.container() else {
        return Ok(Vec::new());
    };
    let payload = Payload {
        container: spec,
        dependencies,
    };
    let mut files = Vec::new();
    for reference in &spec.secrets {
        let Some(proto::secret_reference::Target::File(target)) = &reference.target else {
            continue;
        };
        let id = &reference.secret_id;
        let secret = dependencies
            .secret(id)
            .ok_or_else(|| not_there("secret", id))?;
        let spec = secret.spec.clone().unwrap_or_default();
        let data = contents(
            "secret",
            id,
            spec.data,
            spec.templating.as_ref(),
            template,
            &payload,
        )?;
        files.push(file("/run/secrets", target, data)?);
    }
    for reference in &spec.configs {
        // One for the runtime alone is no file: a Windows matter, and refused there.
        let Some(proto::config_reference::Target::File(target)) = &reference.target else {
            continue;
        };
        let id = &reference.config_id;
        let config = dependencies
            .config(id)
            .ok_or_else(|| not_there("config", id))?;
        let spec = config.spec.clone().unwrap_or_default();
        let data = contents(
            "config",
            id,
            spec.data,
            spec.templating.as_ref(),
            template,
            &payload,
        )?;
        files.push(file("/", target, data)?);
    }
    Ok(files)
}

fn not_there(what: &str, id: &str) -> ControllerError {
    ControllerError::Temporary(format!("{what} {id} not found"))
}

fn contents(
    what: &str,
    id: &str,
    data: Vec<u8>,
    templating: Option<&proto::Driver>,
    template: &Template,
    payload: &Payload<'_>,
) -> Result<Vec<u8>, ControllerError> {
    let failed = |error: String| {
        ControllerError::fatal(format!(
            "starting container failed: unable to get {what} from {what} store: failed to expand \
             templated {what} {id}: {error}"
        ))
    };
    let Some(driver) = templating else {
        return Ok(data);
    };
    if driver.name != "golang" {
        return Err(failed("unrecognized template type".to_owned()));
    }
    let text = String::from_utf8(data).map_err(|_| failed("not a text".to_owned()))?;
    let expanded = template.expand_payload(&text, payload).map_err(failed)?;
    Ok(expanded.into_bytes())
}

fn file(
    default_dir: &str,
    target: &proto::FileTarget,
    data: Vec<u8>,
) -> Result<TaskFile, ControllerError> {
    let proto::FileTarget {
        name,
        uid,
        gid,
        mode,
    } = target;
    let id = |text: &str| {
        let parsed = if text.is_empty() { Ok(0) } else { text.parse() };
        parsed.map_err(|_| {
            ControllerError::fatal(format!(
                "starting container failed: strconv.Atoi: parsing {text:?}: invalid syntax"
            ))
        })
    };
    let target = if name.starts_with('/') {
        clean_path(name)
    } else {
        clean_path(&format!("{default_dir}/{name}"))
    };
    Ok(TaskFile {
        target,
        uid: id(uid)?,
        gid: id(gid)?,
        mode: *mode,
        data,
    })
}
