use std::fmt;

use serde::Deserialize;

use crate::error::ImageError;

/// What an image runs on, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: String,
}

/// This host's.
pub(crate) fn host() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "loongarch64" => "loong64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: String::new(),
    }
}

impl Platform {
    /// `os`, `arch`, `os/arch` or `os/arch/variant`, as `--platform` takes it.
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        let bad = || {
            ImageError::Invalid(format!(
                "{text:?} is an invalid platform specifier: it must be os/arch[/variant]"
            ))
        };
        let part_ok = |part: &&str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(part_ok) {
            return Err(bad());
        }
        let mut platform = host();
        match parts[..] {
            ["linux"] => {}
            [arch] => normal_architecture(arch).clone_into(&mut platform.architecture),
            [os, arch] => {
                os.clone_into(&mut platform.os);
                normal_architecture(arch).clone_into(&mut platform.architecture);
            }
            [os, arch, variant] => {
                os.clone_into(&mut platform.os);
                normal_architecture(arch).clone_into(&mut platform.architecture);
                variant.clone_into(&mut platform.variant);
            }
            _ => return Err(bad()),
        }
        Ok(platform)
    }

    pub(crate) fn runs_on(&self, host: &Self) -> bool {
        self.os == host.os && self.architecture == host.architecture
    }
}

fn normal_architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" => "386",
        other => other,
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
