//! `ARG` and `--build-arg`.

use std::collections::{BTreeMap, BTreeSet};

/// Known everywhere, and no part of an image's history.
const BUILT_IN: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments of a build as one stage sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BuildArgs {
    /// `--build-arg`.
    given: BTreeMap<String, Option<String>>,
    /// Declared before the first `FROM`.
    meta: BTreeMap<String, Option<String>>,
    /// Declared in the stage, with their defaults.
    declared: BTreeMap<String, Option<String>>,
    referenced: BTreeSet<String>,
}

impl BuildArgs {
    pub(crate) fn new(given: BTreeMap<String, Option<String>>) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    pub(crate) fn declare_meta(&mut self, name: &str, default: Option<String>) {
        self.meta.insert(name.to_owned(), default.clone());
        self.declare(name, default);
    }

    pub(crate) fn declare(&mut self, name: &str, default: Option<String>) {
        self.referenced.insert(name.to_owned());
        self.declared.insert(name.to_owned(), default);
    }

    /// For the next stage, where nothing is declared yet.
    pub(crate) fn next_stage(&self) -> Self {
        Self {
            declared: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// Remembers what a stage has used.
    pub(crate) fn merge_referenced(&mut self, stage: &Self) {
        self.referenced.extend(stage.referenced.iter().cloned());
    }

    /// What a `FROM` can use.
    pub(crate) fn of_from(&self, name: &str) -> Option<String> {
        self.value(name, &self.meta)
    }

    /// What an instruction of the stage can use.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let known = self.declared.contains_key(name) || BUILT_IN.contains(&name);
        known.then(|| self.value(name, &self.declared)).flatten()
    }

    fn value(&self, name: &str, declared: &BTreeMap<String, Option<String>>) -> Option<String> {
        let set = |map: &BTreeMap<String, Option<String>>| map.get(name).cloned().flatten();
        set(&self.given).or_else(|| set(declared)).or_else(|| {
            declared
                .contains_key(name)
                .then(|| set(&self.meta))
                .flatten()
        })
    }

    /// For the environment of a command: all that `env` does not set already, sorted.
    pub(crate) fn environment(&self, env: &[String]) -> Vec<(String, String)> {
        let taken: BTreeSet<&str> = env
            .iter()
            .map(|entry| entry.split('=').next().unwrap_or(entry))
            .collect();
        let names = self.declared.keys().map(String::as_str);
        let names: BTreeSet<&str> = names.chain(BUILT_IN.iter().copied()).collect();
        names
            .into_iter()
            .filter(|name| !taken.contains(name))
            .filter_map(|name| Some((name.to_owned(), self.get(name)?)))
            .collect()
    }

    /// Whether an argument counts for the cache and shows in the history.
    pub(crate) fn is_visible(&self, name: &str) -> bool {
        self.declared.contains_key(name) || !BUILT_IN.contains(&name)
    }

    /// Given, but named nowhere.
    pub(crate) fn unused(&self) -> Vec<String> {
        self.given
            .keys()
            .filter(|name| !self.referenced.contains(*name) && !BUILT_IN.contains(&name.as_str()))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BuildArgs {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned())));
        BuildArgs::new(pairs.collect())
    }

    #[test]
    fn an_argument_is_there_only_where_it_is_declared() {
        let mut args = given(&[("A", "given"), ("HTTP_PROXY", "p")]);
        assert_eq!(args.get("A"), None);
        args.declare("A", Some("default".into()));
        args.declare("B", Some("default".into()));
        args.declare("C", None);
        assert_eq!(args.get("A").as_deref(), Some("given"));
        assert_eq!(args.get("B").as_deref(), Some("default"));
        assert_eq!(args.get("C"), None);
        let env = args.environment(&["B=env".to_owned()]);
        assert_eq!(
            env,
            [
                ("A".into(), "given".into()),
                ("HTTP_PROXY".into(), "p".into())
            ]
        );
        assert!(args.is_visible("A") && !args.is_visible("HTTP_PROXY"));
        assert_eq!(args.next_stage().get("A"), None);
    }

    #[test]
    fn what_was_declared_before_the_first_stage_is_a_default_in_it() {
        let mut args = given(&[]);
        args.declare_meta("V", Some("1".into()));
        assert_eq!(args.of_from("V").as_deref(), Some("1"));
        let mut stage = args.next_stage();
        assert_eq!(stage.get("V"), None);
        stage.declare("V", None);
        assert_eq!(stage.get("V").as_deref(), Some("1"));
    }

    #[test]
    fn unused_arguments_are_known() {
        let mut args = given(&[("A", "1"), ("B", "2"), ("no_proxy", "x")]);
        let mut stage = args.next_stage();
        stage.declare("A", None);
        args.merge_referenced(&stage);
        assert_eq!(args.unused(), ["B"]);
    }
}
