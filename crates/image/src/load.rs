use std::collections::BTreeMap;
use std::io::Read;

use skep_reference::Reference;

use crate::chain::{chain_id, digest_of};
use crate::compression::decompress;
use crate::config::ImageConfig;
use crate::error::{Context, ImageError};
use crate::image::ImageId;
use crate::register::{Job, NewImage, Registration, Shown};
use crate::spool::{Spool, Spooled};
use crate::store::{ImageStore, Inner};
use crate::tar_reader::{Kind, TarReader};

mod docker;
mod oci;

/// How far a load is, in the terms of Docker's progress messages.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Twelve hex digits of the layer's diff id.
    pub id: String,
    /// `Loading layer`
    pub status: &'static str,
    /// Bytes.
    pub current: u64,
    pub total: u64,
}

/// One image a load brought.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub image: ImageId,
    pub references: Vec<LoadedReference>,
}

#[derive(Debug, Clone)]
pub struct LoadedReference {
    pub reference: Reference,
    /// The image that had the name before and has lost it.
    pub previous: Option<ImageId>,
}

impl ImageStore {
    /// Loads every image of a tarball made by `docker save` or holding an OCI layout, compressed or
    /// not. All or nothing: after an error no image, layer, blob or temporary file remains.
    pub fn load(
        &self,
        reader: impl Read + Send,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Vec<Loaded>, ImageError> {
        let inner = &*self.inner;
        let mut spool = Spool::new(&inner.tmp)?;
        let archive = Archive::read(inner, reader, &mut spool)?;
        let described = if archive.has("manifest.json") {
            docker::describe(&archive)?
        } else if archive.has("index.json") {
            oci::describe(&archive)?
        } else {
            return Err(ImageError::bad(
                "invalid archive: does not contain a manifest.json",
            ));
        };
        let mut registration = Registration::new(inner);
        let mut jobs: BTreeMap<_, Job> = BTreeMap::new();
        let mut images = Vec::new();
        for image in described {
            let config = ImageConfig::parse(&image.config)?;
            if config.os() != "linux" {
                return Err(ImageError::bad(format!(
                    "cannot load {} image on linux",
                    config.os()
                )));
            }
            plan_layers(&mut registration, &config, &image.layers, &mut jobs)?;
            images.push(NewImage {
                config: image.config,
                parent: image.parent,
                references: image.references,
            });
        }
        registration.unpack(&mut jobs.into_values().map(Ok), progress)?;
        keep_valid_parents(&mut images);
        let recorded = registration.commit(images)?;
        Ok(recorded
            .into_iter()
            .map(|(image, names)| Loaded::new(image, names))
            .collect())
    }
}

impl Loaded {
    fn new(image: ImageId, names: Vec<(Reference, Option<ImageId>)>) -> Self {
        let references = names
            .into_iter()
            .map(|(reference, previous)| LoadedReference {
                reference,
                previous,
            })
            .collect();
        Self { image, references }
    }
}

/// What `docker load` prints for its result, line by line, without line ends. Ids are printed only
/// if the last image has no name, as dockerd does it.
pub fn load_messages(loaded: &[Loaded]) -> Vec<String> {
    let mut lines = Vec::new();
    for name in loaded.iter().flat_map(|image| &image.references) {
        let familiar = name.reference.familiar();
        if let Some(previous) = &name.previous {
            lines.push(format!(
                "The image {familiar} already exists, renaming the old one with ID {previous} to \
                 empty string"
            ));
        }
        lines.push(format!("Loaded image: {familiar}"));
    }
    if loaded
        .last()
        .is_some_and(|image| image.references.is_empty())
    {
        lines.extend(
            loaded
                .iter()
                .map(|image| format!("Loaded image ID: {}", image.image)),
        );
    }
    lines
}

/// An image as an archive describes it.
struct Described {
    config: Vec<u8>,
    layers: Vec<Spooled>,
    references: Vec<Reference>,
    parent: Option<ImageId>,
}

fn plan_layers(
    registration: &mut Registration<'_>,
    config: &ImageConfig,
    layers: &[Spooled],
    jobs: &mut BTreeMap<skep_reference::Digest, Job>,
) -> Result<(), ImageError> {
    let diff_ids = config.diff_ids();
    if layers.len() != diff_ids.len() {
        return Err(ImageError::bad(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            layers.len(),
            diff_ids.len()
        )));
    }
    let mut parent = None;
    for (index, (diff_id, source)) in diff_ids.iter().zip(layers).enumerate() {
        let chain = chain_id(parent.as_ref(), diff_id);
        if !registration.pin(&chain) {
            let (diff_id, source) = (diff_id.clone(), source.clone());
            let shown = Shown::loading(&diff_id);
            jobs.entry(chain.clone()).or_insert(Job {
                index,
                parent,
                diff_id,
                source,
                shown,
            });
        }
        parent = Some(chain);
    }
    Ok(())
}

/// A parent counts only if it comes in the same archive and is one step of history behind.
fn keep_valid_parents(images: &mut [NewImage]) {
    let histories: BTreeMap<_, _> = images
        .iter()
        .filter_map(|image| {
            let config = ImageConfig::parse(&image.config).ok()?;
            Some((ImageId(digest_of(&image.config)), config.history().to_vec()))
        })
        .collect();
    for image in images {
        let own = histories.get(&ImageId(digest_of(&image.config)));
        let valid = image
            .parent
            .as_ref()
            .and_then(|parent| histories.get(parent))
            .is_some_and(|parent| {
                own.is_some_and(|own| {
                    let both_empty = own.is_empty() && parent.is_empty();
                    both_empty || (own.len() == parent.len() + 1 && own.starts_with(parent))
                })
            });
        if !valid {
            image.parent = None;
        }
    }
}

/// An archive's members, each in a temporary file.
struct Archive {
    members: BTreeMap<String, Member>,
    document_limit: u64,
}

enum Member {
    File(Spooled),
    /// Older `docker save` writes layers that several images share as links.
    Link(String),
}

impl Archive {
    fn read(
        inner: &Inner,
        reader: impl Read + Send,
        spool: &mut Spool,
    ) -> Result<Self, ImageError> {
        let limits = &inner.limits;
        let input = decompress(reader).context(|| "read archive".to_owned())?;
        let mut tar = TarReader::new(input, limits.entries, limits.document_bytes);
        let mut members = BTreeMap::new();
        while let Some(entry) = tar.next_entry()? {
            let name = member_name(&entry.path)?;
            let member = match entry.kind {
                Kind::File if entry.size > limits.layer_bytes => {
                    return Err(ImageError::bad(format!(
                        "{name} is larger than {} bytes",
                        limits.layer_bytes
                    )));
                }
                Kind::File => {
                    let size = entry.size;
                    Member::File(spool.take(&mut (&mut tar).take(size), Some(size))?)
                }
                Kind::Symlink => Member::Link(link_target(&name, &entry.link)?),
                Kind::HardLink => Member::Link(member_name(&entry.link)?),
                _ => continue,
            };
            if let Some(Member::File(old)) = members.insert(name, member) {
                std::fs::remove_file(&old.path)
                    .context(|| format!("remove {}", old.path.display()))?;
            }
        }
        // A client that is still sending padding wants to be heard out, within reason.
        let mut rest = tar.into_input().take(64 << 20);
        std::io::copy(&mut rest, &mut std::io::sink()).context(|| "read archive".to_owned())?;
        Ok(Self {
            members,
            document_limit: limits.document_bytes,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    fn find(&self, name: &str) -> Result<&Spooled, ImageError> {
        let mut at = member_name(name.as_bytes())?;
        for _ in 0..10 {
            match self.members.get(&at) {
                Some(Member::File(file)) => return Ok(file),
                Some(Member::Link(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(ImageError::bad(format!(
            "invalid archive: open {name}: no such file or directory"
        )))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        self.find(name)?.document(name, self.document_limit)
    }
}

fn member_name(path: &[u8]) -> Result<String, ImageError> {
    let clean = crate::unpack::normalise(path)?.unwrap_or_default();
    String::from_utf8(clean).map_err(|_| ImageError::bad("invalid archive: a name is not UTF-8"))
}

/// Where a symlink in the archive points, as a member's name; it must stay inside.
fn link_target(name: &str, link: &[u8]) -> Result<String, ImageError> {
    let target = String::from_utf8_lossy(link);
    let escape = || {
        ImageError::bad(format!(
            "invalid symlink {:?} -> {target:?}",
            format!("/{name}")
        ))
    };
    if target.starts_with('/') {
        return Err(escape());
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(escape)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
