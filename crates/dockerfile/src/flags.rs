//! Flags of instructions (`COPY --chown=…`).

use std::collections::BTreeMap;

/// The flags of one instruction, checked against those it knows.
pub(crate) struct Flags {
    given: BTreeMap<String, Vec<String>>,
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Text,
    /// Several times.
    Texts,
    Switch,
}

impl Flags {
    pub(crate) fn parse(flags: &[String], known: &[(&str, Takes)]) -> Result<Self, String> {
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for flag in flags {
            let (full, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.as_str(), None),
            };
            let name = full.trim_start_matches("--");
            let Some((_, takes)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(name, known));
            };
            let values = given.entry(name.to_owned()).or_default();
            if !values.is_empty() && *takes != Takes::Texts {
                return Err(format!("duplicate flag specified: {full}"));
            }
            let value = match (takes, value) {
                (Takes::Switch, None) => "true".to_owned(),
                (Takes::Switch, Some("")) | (Takes::Text | Takes::Texts, None) => {
                    return Err(format!("missing a value on flag: {full}"));
                }
                (Takes::Switch, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    value @ ("true" | "false") => value.to_owned(),
                    _ => {
                        return Err(format!(
                            "expecting boolean value for flag {full}, not: {value}"
                        ));
                    }
                },
                (_, Some(value)) => value.to_owned(),
            };
            values.push(value);
        }
        Ok(Self { given })
    }

    /// Refuses all flags.
    pub(crate) fn none(flags: &[String]) -> Result<(), String> {
        Self::parse(flags, &[]).map(drop)
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.given
            .get(name)
            .and_then(|values| values.first())
            .cloned()
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        self.text(name).as_deref() == Some("true")
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        self.given.get(name).cloned().unwrap_or_default()
    }
}

fn unknown(name: &str, known: &[(&str, Takes)]) -> String {
    let names = known.iter().map(|(name, _)| *name);
    match nearest(name, names) {
        Some(near) => format!("unknown flag: --{name} (did you mean {near}?)"),
        None => format!("unknown flag: --{name}"),
    }
}

/// The most similar name, if one is similar at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| {
            (
                strsim::levenshtein(&name.to_ascii_lowercase(), &known.to_ascii_lowercase()),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= 2 && *distance < known.len())
        .min()
        .map(|(_, known)| known)
}
