//! The placeholders of service specs: `{{.Service.Name}}`, `{{.Task.Slot}}` and their like.

use skep_model::Task;

/// What placeholders can stand for.
pub(super) struct Template {
    fields: Vec<(&'static str, String)>,
}

impl Template {
    pub(super) fn new(task: &Task, hostname: &str, architecture: &str) -> Self {
        let text = |id: Option<String>| id.unwrap_or_default();
        let slot = if task.slot.is_none() {
            text(task.node_id.as_ref().map(ToString::to_string))
        } else {
            task.slot.to_string()
        };
        let fields = vec![
            (
                ".Service.ID",
                text(task.service_id.as_ref().map(ToString::to_string)),
            ),
            (".Service.Name", task.service_annotations.name.clone()),
            (
                ".Node.ID",
                text(task.node_id.as_ref().map(ToString::to_string)),
            ),
            (".Node.Hostname", hostname.to_owned()),
            (".Node.Platform.OS", "linux".to_owned()),
            (".Node.Platform.Architecture", architecture.to_owned()),
            (".Task.ID", task.id.to_string()),
            (".Task.Name", task.name()),
            (".Task.Slot", slot),
        ];
        Self { fields }
    }

    /// Puts the values in; anything else between braces is an error.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let end = rest[start..]
                .find("}}")
                .map(|end| start + end)
                .ok_or_else(|| format!("unclosed action in {text:?}"))?;
            let name = rest[start + 2..end].trim_matches(['-', ' ']);
            let field = self.fields.iter().find(|(field, _)| *field == name);
            let (_, value) =
                field.ok_or_else(|| format!("template {{{{{name}}}}} is not supported"))?;
            expanded.push_str(&rest[..start]);
            expanded.push_str(value);
            rest = &rest[end + 2..];
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::Slot;
    use std::sync::Arc;

    #[test]
    fn placeholders_are_filled_in_and_unknown_ones_refused() {
        let task = Task {
            slot: Slot(3),
            service_annotations: Arc::new(skep_proto::Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            ..Task::default()
        };
        let template = Template::new(&task, "node-a", "x86_64");
        assert_eq!(
            template
                .expand("X={{.Service.Name}}-{{ .Task.Slot }}@{{.Node.Hostname}}!")
                .unwrap(),
            "X=web-3@node-a!"
        );
        assert_eq!(template.expand("plain").unwrap(), "plain");
        assert!(template.expand("{{.Nope}}").is_err() && template.expand("{{.Task").is_err());
    }
}
