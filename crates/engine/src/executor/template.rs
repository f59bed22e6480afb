//! The placeholders of service specs: `{{.Service.Name}}`, `{{.Task.Slot}}` and their like; in
//! secrets and configs also `{{env "X"}}`, `{{secret "target"}}` and `{{config "target"}}`.

use std::collections::BTreeMap;

use skep_model::Task;
use skep_proto as proto;

use crate::gotemplate::{Functions, NoFunctions, Value, expand};

/// What placeholders can stand for.
pub(super) struct Template {
    data: Value,
}

impl Template {
    pub(super) fn new(task: &Task, hostname: &str, architecture: &str) -> Self {
        let node = task.node_id.as_ref().map(ToString::to_string);
        let node = node.unwrap_or_default();
        let service = task.service_id.as_ref().map(ToString::to_string);
        let slot = if task.slot.is_none() {
            node.clone()
        } else {
            task.slot.to_string()
        };
        let labels = task.service_annotations.labels.iter();
        let labels = labels.map(|(key, value)| (key.clone(), Value::text(value)));
        let record = |fields: [(&'static str, Value); 3]| Value::Struct(fields.into());
        let platform = BTreeMap::from([
            ("Architecture", Value::text(architecture)),
            ("OS", Value::text("linux")),
        ]);
        let data = record([
            (
                "Service",
                record([
                    ("ID", Value::Text(service.unwrap_or_default())),
                    ("Name", Value::text(&task.service_annotations.name)),
                    ("Labels", Value::Map(labels.collect())),
                ]),
            ),
            (
                "Node",
                record([
                    ("ID", Value::Text(node)),
                    ("Hostname", Value::text(hostname)),
                    ("Platform", Value::Struct(platform)),
                ]),
            ),
            (
                "Task",
                record([
                    ("ID", Value::Text(task.id.to_string())),
                    ("Name", Value::Text(task.name())),
                    ("Slot", Value::Text(slot)),
                ]),
            ),
        ]);
        Self { data }
    }

    /// Puts the values in.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        expand(text, &self.data, &NoFunctions).map_err(|error| error.to_string())
    }

    /// The same for a secret's or config's contents, which may use what else the task has.
    pub(super) fn expand_payload(
        &self,
        text: &str,
        payload: &Payload<'_>,
    ) -> Result<String, String> {
        expand(text, &self.data, payload).map_err(|error| error.to_string())
    }
}

/// What the contents of a secret or config may refer to.
pub(super) struct Payload<'a> {
    pub(super) container: &'a proto::ContainerSpec,
    pub(super) dependencies: &'a skep_agent::Dependencies,
}

impl Functions for Payload<'_> {
    fn has(&self, name: &str) -> bool {
        matches!(name, "env" | "secret" | "config")
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let [Value::Text(wanted)] = arguments else {
            let got = arguments.len();
            return Err(format!("wrong number of args for {name}: want 1 got {got}"));
        };
        match name {
            "env" => Ok(Value::text(self.env(wanted))),
            "secret" => self.secret(wanted),
            _ => self.config(wanted),
        }
    }
}

impl Payload<'_> {
    /// As the spec has it; a variable that is not there is empty.
    fn env(&self, name: &str) -> &str {
        let pairs = self.container.env.iter();
        let mut pairs = pairs.filter_map(|variable| variable.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    fn secret(&self, target: &str) -> Result<Value, String> {
        let reference = self.container.secrets.iter().find(|reference| {
            matches!(&reference.target,
                Some(proto::secret_reference::Target::File(file)) if file.name == target)
        });
        let reference = reference.ok_or_else(|| format!("secret target {target} not found"))?;
        let secret = self.dependencies.secret(&reference.secret_id);
        let secret = secret.ok_or_else(|| format!("secret {} not found", reference.secret_id))?;
        Ok(text_of(secret.spec.as_ref().map(|spec| &spec.data)))
    }

    fn config(&self, target: &str) -> Result<Value, String> {
        let reference = self.container.configs.iter().find(|reference| {
            matches!(&reference.target,
                Some(proto::config_reference::Target::File(file)) if file.name == target)
        });
        let reference = reference.ok_or_else(|| format!("config target {target} not found"))?;
        let config = self.dependencies.config(&reference.config_id);
        let config = config.ok_or_else(|| format!("config {} not found", reference.config_id))?;
        Ok(text_of(config.spec.as_ref().map(|spec| &spec.data)))
    }
}

fn text_of(data: Option<&Vec<u8>>) -> Value {
    Value::Text(String::from_utf8_lossy(data.map_or(&[], |data| data)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::Slot;
    use std::sync::Arc;

    fn task() -> Task {
        Task {
            slot: Slot(3),
            node_id: Some("n1".into()),
            service_annotations: Arc::new(proto::Annotations {
                name: "web".to_owned(),
                labels: [("tier".to_owned(), "front".to_owned())].into(),
                ..Default::default()
            }),
            ..Task::default()
        }
    }

    #[test]
    fn placeholders_are_filled_in_and_unknown_ones_refused() {
        let template = Template::new(&task(), "node-a", "x86_64");
        assert_eq!(
            template
                .expand("X={{.Service.Name}}-{{ .Task.Slot }}@{{.Node.Hostname}}!")
                .unwrap(),
            "X=web-3@node-a!"
        );
        assert_eq!(
            template
                .expand("{{.Node.Platform.OS}}/{{.Node.ID}}/{{index .Service.Labels \"tier\"}}")
                .unwrap(),
            "linux/n1/front"
        );
        assert_eq!(template.expand("plain").unwrap(), "plain");
        assert!(template.expand("{{.Nope}}").is_err() && template.expand("{{.Task").is_err());
        assert!(template.expand("{{env \"X\"}}").is_err());
    }

    #[test]
    fn a_global_services_slot_is_its_node() {
        let task = Task {
            slot: Slot::NONE,
            ..task()
        };
        let template = Template::new(&task, "node-a", "x86_64");
        assert_eq!(template.expand("{{.Task.Slot}}").unwrap(), "n1");
    }
}
