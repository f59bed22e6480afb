use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::RegistryError;

/// What an image runs on, in Go's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// This host's.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "loongarch64" => "loong64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        let variant = match architecture {
            "amd64" => amd64_variant(),
            "arm64" => "v8",
            "arm" => "v7",
            _ => "",
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
    }

    /// `os`, `arch`, `os/arch` or `os/arch/variant`, as `--platform` takes it.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let bad = || {
            RegistryError::Invalid(format!(
                "{text:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.%-]*)((?:\\\\+[A-Za-z0-9_.%-]+)*)\\\\))?$\": invalid argument"
            ))
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let ok = |part: &&str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if parts.len() > 3 || !parts.iter().all(ok) {
            return Err(bad());
        }
        let host = Self::host();
        let known_os = ["linux", "windows", "darwin", "freebsd"];
        let (os, architecture, variant) = match parts[..] {
            [os] if known_os.contains(&os) => (os, host.architecture.as_str(), ""),
            [architecture] => (host.os.as_str(), architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(bad()),
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
        .normalised())
    }

    /// The spellings that mean the same made one.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        self.os.make_ascii_lowercase();
        self.architecture.make_ascii_lowercase();
        self.variant.make_ascii_lowercase();
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        self.architecture = architecture;
        self.variant = variant;
        self
    }

    /// How well an image for `offered` suits this platform: 0 is best, `None` not at all.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        let offered = offered.clone().normalised();
        self.fitting().iter().position(|fit| {
            fit.os == offered.os
                && fit.architecture == offered.architecture
                && fit.variant == offered.variant
        })
    }

    /// This platform and those whose programs run on it, best first.
    fn fitting(&self) -> Vec<Self> {
        let own = self.clone().normalised();
        let with = |architecture: &str, variant: &str| {
            Self {
                os: own.os.clone(),
                architecture: architecture.to_owned(),
                variant: variant.to_owned(),
                ..Self::default()
            }
            .normalised()
        };
        let version = |default: u8| {
            own.variant
                .trim_start_matches('v')
                .parse()
                .unwrap_or(default)
        };
        match own.architecture.as_str() {
            "amd64" => (1..=version(1))
                .rev()
                .map(|level: u8| with("amd64", &format!("v{level}")))
                .chain([with("386", "")])
                .collect(),
            "arm" => (5..=version(7))
                .rev()
                .map(|level: u8| with("arm", &format!("v{level}")))
                .collect(),
            "arm64" => [own.clone(), with("arm64", "v8")]
                .into_iter()
                .chain((5..=8).rev().map(|level| with("arm", &format!("v{level}"))))
                .collect(),
            _ => vec![own],
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

/// The level of x86-64 this processor has.
#[cfg(target_arch = "x86_64")]
fn amd64_variant() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("sse4.1")
        && has!("sse4.2")
        && has!("ssse3");
    let v3 = v2
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let v4 = v3
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, ..) => "v2",
        _ => "",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_variant() -> &'static str {
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn specifiers_are_completed_and_normalised() {
        for (text, full) in [
            ("linux/x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/amd64/v1", "linux/amd64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(text).to_string(), full);
        }
        assert!(Platform::parse("a/b/c/d").is_err());
        assert!(Platform::parse("linux//").is_err());
    }

    #[test]
    fn the_best_variant_ranks_first_and_other_machines_not_at_all() {
        let v3 = platform("linux/amd64/v3");
        let ranks: Vec<_> = [
            "linux/amd64/v3",
            "linux/amd64",
            "linux/386",
            "linux/amd64/v4",
        ]
        .map(|text| v3.rank(&platform(text)))
        .into();
        assert_eq!(ranks, [Some(0), Some(2), Some(3), None]);
        let arm = platform("linux/arm/v7");
        assert_eq!(arm.rank(&platform("linux/arm/v6")), Some(1));
        assert_eq!(arm.rank(&platform("linux/arm64")), None);
        assert!(
            platform("linux/arm64")
                .rank(&platform("linux/arm/v7"))
                .is_some()
        );
        assert_eq!(
            platform("linux/amd64").rank(&platform("windows/amd64")),
            None
        );
    }
}
