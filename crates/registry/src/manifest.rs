//! What registries say about images: manifests and indexes of Docker and OCI.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skep_reference::{Digest, Reference};

use crate::error::RegistryError;
use crate::platform::Platform;

/// The media types that mean something here.
pub mod media_type {
    pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub(crate) const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    pub(crate) const SCHEMA1_SIGNED: &str =
        "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// In the order in which they are asked for.
    pub(crate) const ACCEPTED: &[&str] = &[
        MANIFEST,
        MANIFEST_LIST,
        OCI_INDEX,
        OCI_MANIFEST,
        SCHEMA1_SIGNED,
        SCHEMA1,
    ];
    /// What a configuration or a layer may call itself.
    pub(super) const CONTENT_PREFIXES: &[&str] =
        &["application/vnd.oci.image", "application/vnd.docker"];
    pub(super) const CONTENT: &[&str] = &[
        "application/octet-stream",
        "application/json",
        "text/html",
        "",
    ];
}

/// A piece of content as a document names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
}

/// A manifest as it came, and what it says.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub media_type: String,
    pub digest: Digest,
    /// Byte for byte: the digest is theirs.
    pub bytes: Bytes,
    pub body: ManifestBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestBody {
    Image(ImageManifest),
    Index(Vec<IndexEntry>),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageManifest {
    pub config: Descriptor,
    /// Lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IndexEntry {
    #[serde(flatten)]
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    media_type: String,
    schema_version: Option<u64>,
    manifests: Option<serde_json::Value>,
    config: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
    fs_layers: Option<serde_json::Value>,
}

/// Reads a manifest whose digest is known to be right. `given` is the answer's content type.
pub(crate) fn parse(
    bytes: &Bytes,
    digest: Digest,
    given: &str,
    reference: &Reference,
) -> Result<Manifest, RegistryError> {
    let invalid = |error: serde_json::Error| {
        RegistryError::Verification(format!("error unmarshalling content: {error}"))
    };
    let shape: Shape = serde_json::from_slice(bytes).map_err(invalid)?;
    let schema1 = shape.fs_layers.is_some()
        || shape.schema_version == Some(1)
        || [media_type::SCHEMA1, media_type::SCHEMA1_SIGNED].contains(&given);
    if schema1 {
        return Err(RegistryError::Invalid(schema1_text(reference)));
    }
    let contradicts = |what: &str| {
        RegistryError::Invalid(format!(
            "media-type: {:?} should not have {what}",
            shape.media_type
        ))
    };
    let named = [shape.media_type.as_str(), given]
        .into_iter()
        .find(|name| media_type::ACCEPTED.contains(name));
    let is_index = match named {
        Some(media_type::MANIFEST | media_type::OCI_MANIFEST) => {
            if shape.manifests.is_some() {
                return Err(contradicts("\"manifests\" or \"fsLayers\""));
            }
            false
        }
        Some(_) => {
            if shape.config.is_some() || shape.layers.is_some() {
                return Err(contradicts("\"config\", \"layers\", or \"fsLayers\""));
            }
            true
        }
        None => shape.manifests.is_some(),
    };
    let body = if is_index {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<IndexEntry>,
        }
        let index: Index = serde_json::from_slice(bytes).map_err(invalid)?;
        ManifestBody::Index(index.manifests)
    } else if shape.config.is_some() {
        ManifestBody::Image(serde_json::from_slice(bytes).map_err(invalid)?)
    } else {
        return Err(RegistryError::Invalid(
            "unsupported manifest format".to_owned(),
        ));
    };
    let default = if is_index {
        media_type::OCI_INDEX
    } else {
        media_type::OCI_MANIFEST
    };
    Ok(Manifest {
        media_type: named.unwrap_or(default).to_owned(),
        digest,
        bytes: bytes.clone(),
        body,
    })
}

impl ImageManifest {
    /// Refuses what is no image: plugins, artifacts, models.
    pub fn check(&self) -> Result<(), RegistryError> {
        let config = self.config.media_type.as_str();
        if config == "application/vnd.docker.plugin.v1+json" {
            return Err(RegistryError::Invalid(format!(
                "Encountered remote {config:?}(plugin) when fetching"
            )));
        }
        std::iter::once(&self.config)
            .chain(&self.layers)
            .try_for_each(|piece| check_content(&piece.media_type))
    }
}

fn check_content(kind: &str) -> Result<(), RegistryError> {
    let lower = kind.to_ascii_lowercase();
    if lower.starts_with("application/vnd.docker.ai.") {
        return Err(RegistryError::Invalid(
            "AI models are not yet supported by the Engine, please use \"docker model pull/run\" instead".to_owned(),
        ));
    }
    let prefixed = media_type::CONTENT_PREFIXES.iter().any(|prefix| {
        lower
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('.'))
    });
    if prefixed || media_type::CONTENT.contains(&lower.as_str()) {
        return Ok(());
    }
    Err(RegistryError::Invalid(format!(
        "unsupported media type {kind}"
    )))
}

/// The entries of an index that suit `wanted`, best first; those without a platform suit everyone.
pub(crate) fn matching<'a>(entries: &'a [IndexEntry], wanted: &Platform) -> Vec<&'a IndexEntry> {
    let mut found: Vec<(usize, &IndexEntry)> = entries
        .iter()
        .filter_map(|entry| match &entry.platform {
            None => Some((usize::MAX, entry)),
            Some(platform) => wanted.rank(platform).map(|rank| (rank, entry)),
        })
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, entry)| entry).collect()
}

fn schema1_text(reference: &Reference) -> String {
    format!(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been \
         removed. Suggest the author of {reference} to upgrade the image to the OCI Format or \
         Docker Image manifest v2, schema 2. More information at \
         https://docs.docker.com/go/deprecated-image-specs/"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn read(json: &str, given: &str) -> Result<Manifest, RegistryError> {
        let reference: Reference = "reg:5000/a:1".parse().unwrap();
        let bytes = Bytes::copy_from_slice(json.as_bytes());
        parse(&bytes, DIGEST.parse().unwrap(), given, &reference)
    }

    fn descriptor(kind: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","size":3,"digest":"{DIGEST}"}}"#)
    }

    #[test]
    fn docker_and_oci_manifests_say_the_same() {
        for kind in [media_type::MANIFEST, media_type::OCI_MANIFEST, ""] {
            let json = format!(
                r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{}]}}"#,
                descriptor(media_type::OCI_CONFIG),
                descriptor(media_type::OCI_LAYER_ZSTD)
            );
            let manifest = read(&json, "application/octet-stream").unwrap();
            let ManifestBody::Image(image) = &manifest.body else {
                panic!("no image");
            };
            assert_eq!(image.layers.len(), 1);
            image.check().unwrap();
        }
    }

    #[test]
    fn the_first_schema_is_refused_in_dockers_words() {
        let error = read(r#"{"schemaVersion":1,"fsLayers":[]}"#, "").unwrap_err();
        assert!(
            error.to_string().starts_with(
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has \
                 been removed. Suggest the author of reg:5000/a:1 to upgrade"
            ),
            "{error}"
        );
    }

    #[test]
    fn artifacts_and_contradictions_are_refused() {
        let image = ImageManifest {
            config: serde_json::from_str(&descriptor("application/vnd.cncf.helm.config.v1+json"))
                .unwrap(),
            layers: Vec::new(),
        };
        assert_eq!(
            image.check().unwrap_err().to_string(),
            "unsupported media type application/vnd.cncf.helm.config.v1+json"
        );
        assert!(check_content("application/vnd.oci.images_are_fun").is_err());
        let both = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[],"config":{}}}"#,
            media_type::OCI_INDEX,
            descriptor("")
        );
        assert!(
            read(&both, "")
                .unwrap_err()
                .to_string()
                .contains("should not have")
        );
        assert!(read("[]", "").is_err());
        assert!(read("{}", "").is_err());
    }

    #[test]
    fn an_index_offers_the_best_first() {
        let entry = |platform: &str| IndexEntry {
            descriptor: serde_json::from_str(&descriptor("")).unwrap(),
            platform: Some(Platform::parse(platform).unwrap()),
        };
        let entries = ["linux/386", "linux/arm64", "linux/amd64", "linux/amd64/v2"].map(entry);
        let found = matching(&entries, &Platform::parse("linux/amd64/v2").unwrap());
        let names: Vec<_> = found
            .iter()
            .map(|entry| entry.platform.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(names, ["linux/amd64/v2", "linux/amd64", "linux/386"]);
    }
}
