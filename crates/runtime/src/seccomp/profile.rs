//! Docker's JSON format for profiles, and its conditions.

use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use super::SeccompError;
use crate::spec::capability_bit;

/// A profile as it is written: rules with conditions on kernel, machine and capabilities.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    pub(super) default_action: Action,
    #[serde(rename = "defaultErrnoRet", skip_serializing_if = "Option::is_none")]
    pub(super) default_errno: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) architectures: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) arch_map: Vec<Architecture>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) flags: Vec<String>,
    pub(super) listener_path: String,
    #[serde(rename = "syscalls", deserialize_with = "null_is_default")]
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Architecture {
    pub architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    pub sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rule {
    #[serde(deserialize_with = "null_is_default")]
    pub names: Vec<String>,
    /// The older spelling of a single name.
    pub name: String,
    pub action: Action,
    #[serde(rename = "errnoRet")]
    pub errno: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    pub args: Vec<ArgumentRule>,
    #[serde(deserialize_with = "null_is_default")]
    pub includes: Condition,
    #[serde(deserialize_with = "null_is_default")]
    pub excludes: Condition,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    #[serde(deserialize_with = "null_is_default")]
    pub caps: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub arches: Vec<String>,
    pub min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArgumentRule {
    pub index: u8,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: Operator,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[default]
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    /// Nothing was written. As a default action this is what makes a profile say nothing.
    #[default]
    #[serde(rename = "")]
    Unset,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

impl Profile {
    /// `None`: the profile says nothing, which means no confinement.
    pub(super) fn parse(json: &str) -> Result<Option<Self>, SeccompError> {
        let mut profile: Self =
            serde_json::from_str(json).map_err(|error| SeccompError::Decode(error.to_string()))?;
        if profile.default_action == Action::Unset && profile.rules.is_empty() {
            return Ok(None);
        }
        let unsupported = |text: &str| Err(SeccompError::Unsupported(text.to_owned()));
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            return unsupported(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
            );
        }
        for rule in &mut profile.rules {
            if !rule.name.is_empty() {
                if !rule.names.is_empty() {
                    return unsupported(
                        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
                    );
                }
                rule.names.push(std::mem::take(&mut rule.name));
            }
            if rule.args.iter().any(|argument| argument.index > 5) {
                return unsupported("a system call has arguments 0 to 5 only");
            }
        }
        Ok(Some(profile))
    }

    /// The rules that count for this machine and these capabilities.
    pub(super) fn rules_for(&self, bounding: u64) -> Vec<&Rule> {
        let kernel = kernel_version();
        self.rules
            .iter()
            .filter(|rule| rule.counts(bounding, kernel))
            .collect()
    }

    /// Architectures in libseccomp's names; the native one first. Without a word about them: the
    /// native one.
    pub(super) fn architectures(&self) -> Vec<&str> {
        let native = super::tables::NATIVE_NAME;
        if !self.architectures.is_empty() {
            return self.architectures.iter().map(String::as_str).collect();
        }
        let mapped = self.arch_map.iter().find(|map| map.architecture == native);
        let mut all = vec![native];
        if let Some(map) = mapped {
            all.extend(map.sub_architectures.iter().map(String::as_str));
        }
        all
    }

    pub(super) fn to_oci(&self, bounding: u64) -> Result<LinuxSeccomp, SeccompError> {
        let decode = |error: serde_json::Error| SeccompError::Decode(error.to_string());
        let rules: Vec<serde_json::Value> = self
            .rules_for(bounding)
            .into_iter()
            .map(|rule| {
                let mut value = serde_json::json!({ "names": rule.names, "action": rule.action });
                if let Some(errno) = rule.errno {
                    value["errnoRet"] = errno.into();
                }
                if !rule.args.is_empty() {
                    value["args"] = serde_json::json!(rule.args);
                }
                value
            })
            .collect();
        let mut value = serde_json::json!({
            "defaultAction": self.default_action,
            "architectures": self.architectures(),
            "syscalls": rules,
        });
        if let Some(errno) = self.default_errno {
            value["defaultErrnoRet"] = errno.into();
        }
        if !self.flags.is_empty() {
            value["flags"] = serde_json::json!(self.flags);
        }
        if !self.listener_path.is_empty() {
            value["listenerPath"] = self.listener_path.clone().into();
        }
        serde_json::from_value(value).map_err(decode)
    }
}

impl Rule {
    pub(super) fn allow(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            action: Action::Allow,
            ..Self::default()
        }
    }

    pub(super) fn allow_if(name: &str, argument: ArgumentRule) -> Self {
        Self {
            args: vec![argument],
            ..Self::allow(&[name])
        }
    }

    fn counts(&self, bounding: u64, kernel: (u32, u32)) -> bool {
        let has =
            |capability: &String| capability_bit(capability).is_some_and(|bit| bounding & bit != 0);
        let here = |arch: &String| arch == super::tables::NATIVE_CONDITION;
        let new_enough = |text: &String| parse_kernel(text).is_some_and(|wanted| kernel >= wanted);
        if self.excludes.arches.iter().any(here)
            || self.excludes.caps.iter().any(has)
            || self.excludes.min_kernel.as_ref().is_some_and(new_enough)
        {
            return false;
        }
        (self.includes.arches.is_empty() || self.includes.arches.iter().any(here))
            && self.includes.caps.iter().all(has)
            && self.includes.min_kernel.as_ref().is_none_or(new_enough)
    }
}

impl Condition {
    pub(super) fn caps(caps: &[&str]) -> Self {
        Self {
            caps: caps.iter().map(|&cap| cap.to_owned()).collect(),
            ..Self::default()
        }
    }

    pub(super) fn arches(arches: &[&str]) -> Self {
        Self {
            arches: arches.iter().map(|&arch| arch.to_owned()).collect(),
            ..Self::default()
        }
    }
}

impl Architecture {
    pub(super) fn new(architecture: &str, sub: &[&str]) -> Self {
        Self {
            architecture: architecture.to_owned(),
            sub_architectures: sub.iter().map(|&name| name.to_owned()).collect(),
        }
    }
}

impl ArgumentRule {
    pub(super) fn new(index: u8, op: Operator, value: u64, value_two: u64) -> Self {
        Self {
            index,
            value,
            value_two,
            op,
        }
    }
}

fn kernel_version() -> (u32, u32) {
    nix::sys::utsname::uname()
        .ok()
        .and_then(|name| parse_kernel(name.release().to_str()?))
        .unwrap_or((0, 0))
}

/// `6.1` of `6.1.0-18-amd64`.
fn parse_kernel(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Go writes empty lists and absent structs as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
