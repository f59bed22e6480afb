use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ReferenceError;
use crate::grammar;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Of the path; the domain is not counted.
const NAME_LENGTH_MAX: usize = 255;

/// A normalised image reference: domain, path and perhaps a tag, a digest or both.
///
/// `Display` and ordering use the full form (`docker.io/library/busybox:latest`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What commands accept that take "an image": a full id or digest, or a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyReference {
    Digest(Digest),
    Named(Reference),
}

impl AnyReference {
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if grammar::is_identifier(text) {
            return Ok(Self::Digest(format!("sha256:{text}").parse()?));
        }
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        Reference::parse(text).map(Self::Named)
    }
}

impl Reference {
    /// Parses a familiar or full name and normalises it. No default tag is added: see
    /// [`Reference::with_default_tag`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if grammar::is_identifier(text) {
            return Err(ReferenceError::NameIsAnId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(ReferenceError::NameContainsUppercase(remote.to_owned()));
        }
        Self::parse_parts(domain, &remainder)
    }

    fn parse_parts(domain: &str, remainder: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let shape_ok = grammar::is_domain(domain)
            && path.split('/').all(grammar::is_path_component)
            && tag.is_none_or(grammar::is_tag)
            && digest.is_none_or(grammar::has_digest_shape);
        if !shape_ok {
            let lower = remainder.to_lowercase();
            if lower != remainder && Self::parse_parts(domain, &lower).is_ok() {
                return Err(ReferenceError::Uppercase);
            }
            return Err(ReferenceError::InvalidFormat);
        }
        if path.len() > NAME_LENGTH_MAX {
            return Err(ReferenceError::NameTooLong);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::parse).transpose()?,
        })
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/busybox`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// `busybox`: the name as Docker shows it.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// `busybox:1.36`: name, tag and digest as Docker shows them.
    pub fn familiar(&self) -> String {
        self.decorate(self.familiar_name())
    }

    fn decorate(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
        name
    }

    /// Neither tag nor digest was given.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Adds `:latest` where neither tag nor digest was given.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Sets the tag; fails with Docker's `invalid tag format`.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !grammar::is_tag(tag) {
            return Err(ReferenceError::InvalidTag);
        }
        self.tag = Some(tag.to_owned());
        Ok(self)
    }

    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The name alone.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        self.tag = None;
        self.digest = None;
        self
    }

    /// Where tag and digest were both given, only the digest counts: content beats a label.
    #[must_use]
    pub fn favour_digest(mut self) -> Self {
        if self.digest.is_some() {
            self.tag = None;
        }
        self
    }
}

/// The domain is what stands before the first slash, if it looks like a host: has a dot, a colon or
/// a capital, or is `localhost`. Everything else lives on the default registry.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, remainder) = match text.split_once('/') {
        None => return (DEFAULT_DOMAIN, format!("{OFFICIAL_PREFIX}{text}")),
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain, format!("{OFFICIAL_PREFIX}{remainder}"));
    }
    (domain, remainder.to_owned())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decorate(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests;
