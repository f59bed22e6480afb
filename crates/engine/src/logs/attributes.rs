//! What goes into every line beside the text: labels, variables and a tag of the container's.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;

use crate::container::Record;
use crate::error::{EngineError, Result};
use crate::names::short;

/// The options that say what.
pub(super) const OPTIONS: &[&str] = &["labels", "labels-regex", "env", "env-regex", "tag"];

/// Refuses expressions and templates that cannot be understood.
pub(super) fn check(options: &HashMap<String, String>) -> Result<()> {
    expression(options, "labels-regex")?;
    expression(options, "env-regex")?;
    options
        .get("tag")
        .map_or(Ok(()), |tag| expand(tag, |_| Some(String::new())).map(drop))
}

fn expression(options: &HashMap<String, String>, name: &str) -> Result<Option<Regex>> {
    let given = options.get(name).filter(|text| !text.is_empty());
    given
        .map(|text| {
            Regex::new(text).map_err(|error| {
                EngineError::invalid(format!("error parsing regexp of log opt '{name}': {error}"))
            })
        })
        .transpose()
}

/// The attributes of a container; `host` is this machine's name.
pub(super) fn of(
    record: &Record,
    host: &str,
    options: &HashMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let labels: Vec<_> = record
        .labels()
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let env: Vec<_> = record
        .config
        .env
        .iter()
        .flatten()
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let mut attributes = BTreeMap::new();
    for (pairs, listed, matched) in [
        (&labels, "labels", "labels-regex"),
        (&env, "env", "env-regex"),
    ] {
        let names: Vec<_> = options
            .get(listed)
            .map_or("", String::as_str)
            .split(',')
            .collect();
        let pattern = expression(options, matched)?;
        for (key, value) in pairs {
            if names.contains(key) || pattern.as_ref().is_some_and(|it| it.is_match(key)) {
                attributes.insert((*key).to_owned(), (*value).to_owned());
            }
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        let tag = expand(tag, |field| field_of(record, host, field))?;
        attributes.insert("tag".to_owned(), tag);
    }
    Ok(attributes)
}

fn field_of(record: &Record, host: &str, field: &str) -> Option<String> {
    let (path, args) = record.command();
    let command = std::iter::once(path).chain(args).collect::<Vec<_>>();
    let image = record.image_id.strip_prefix("sha256:");
    Some(match field {
        "ID" => short(&record.id).to_owned(),
        "FullID" => record.id.clone(),
        "Name" => record.name.clone(),
        "Command" => command.join(" "),
        "ImageID" => short(image.unwrap_or(&record.image_id)).to_owned(),
        "ImageFullID" => record.image_id.clone(),
        "ImageName" => record.image_name().to_owned(),
        "DaemonName" => "docker".to_owned(),
        "Hostname" => host.to_owned(),
        _ => return None,
    })
}

/// Fills the fields of a template in: `{{.Name}}/{{.ID}}`. Other parts of Go's templates are refused.
fn expand(template: &str, field: impl Fn(&str) -> Option<String>) -> Result<String> {
    const FIELDS: &[&str] = &[
        "ID",
        "FullID",
        "Name",
        "Command",
        "ImageID",
        "ImageFullID",
        "ImageName",
        "DaemonName",
        "Hostname",
    ];
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let found = after.split_once("}}").and_then(|(inside, after)| {
            let name = inside.trim().strip_prefix('.')?;
            FIELDS.contains(&name).then_some((name, after))
        });
        let value = found.and_then(|(name, after)| Some((field(name)?, after)));
        let Some((value, after)) = value else {
            return Err(EngineError::invalid(format!(
                "log opt 'tag': the template {template:?} can have these fields only: {}",
                FIELDS.join(", ")
            )));
        };
        text.push_str(&value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    fn options(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn labels_and_variables_are_chosen_by_name_or_expression() {
        let mut record = record();
        record.config.labels = Some(
            [("com.a", "1"), ("com.b", "2"), ("org", "3")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        );
        record.config.env = Some(vec!["LANG=C".to_owned(), "LC_ALL=de".to_owned()]);
        let wanted = options(&[
            ("labels", "org"),
            ("labels-regex", "^com\\.b"),
            ("env", "LANG"),
        ]);
        let attributes = of(&record, "box", &wanted).unwrap();
        let keys: Vec<_> = attributes.keys().map(String::as_str).collect();
        assert_eq!(keys, ["LANG", "com.b", "org"]);
        assert!(check(&options(&[("env-regex", "(")])).is_err());
    }

    #[test]
    fn tags_are_templates_over_the_containers_fields() {
        let tagged = |tag: &str| of(&record(), "box", &options(&[("tag", tag)]));
        assert_eq!(
            tagged("{{.Name}}/{{ .ID }}@{{.Hostname}}").unwrap()["tag"],
            "web/aaaaaaaaaaaa@box"
        );
        assert_eq!(tagged("plain").unwrap()["tag"], "plain");
        assert!(check(&options(&[("tag", "{{.Nope}}")])).is_err());
        assert!(check(&options(&[("tag", "{{ printf \"x\" }}")])).is_err());
        assert!(check(&options(&[("tag", "{{.ID")])).is_err());
    }
}
