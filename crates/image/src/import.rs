use std::io::Read;

use serde_json::Value;
use skep_reference::{Digest, Reference};

use crate::chain::chain_id;
use crate::compression::decompress;
use crate::config::{History, ImageConfig, RootFs, RunConfig};
use crate::error::{Context, ImageError};
use crate::image::ImageId;
use crate::instructions::apply_changes;
use crate::platform::{Platform, host};
use crate::register::{Job, NewImage, Registration, Shown};
use crate::spool::{Spool, Spooled};
use crate::store::{ImageStore, Inner, now, taggable};

#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    pub reference: Option<Reference>,
    /// Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME, WORKDIR.
    pub changes: Vec<String>,
    pub message: String,
    /// `os/arch[/variant]`; the host's if not given.
    pub platform: Option<String>,
}

impl ImageStore {
    /// Makes a one-layer image of a root file system's tar, compressed or not.
    pub fn import(
        &self,
        reader: impl Read + Send,
        options: ImportOptions,
    ) -> Result<ImageId, ImageError> {
        let platform = match &options.platform {
            Some(text) => Platform::parse(text)?,
            None => host(),
        };
        if platform.os != "linux" {
            return Err(ImageError::Invalid(format!(
                "os {:?} is not supported",
                platform.os
            )));
        }
        let mut run = RunConfig::default();
        apply_changes(&mut run, &options.changes)?;
        let inner = &*self.inner;
        let mut spool = Spool::new(&inner.tmp)?;
        let mut content = decompress(reader).context(|| "read archive".to_owned())?;
        let source = spool.take(&mut content, None)?;
        let created = now();
        let config = ImageConfig {
            created: Some(created.clone()),
            comment: options.message.clone(),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            config: Some(run),
            rootfs: Some(RootFs {
                kind: "layers".to_owned(),
                diff_ids: Some(vec![source.blob.digest.clone()]),
            }),
            history: Some(vec![History {
                created: Some(created),
                comment: options.message,
                ..History::default()
            }]),
            ..ImageConfig::default()
        };
        inner.register_one(config, None, options.reference, None, Some(source))
    }
}

impl Inner {
    /// Records an image made here, with its new top layer if it has one.
    pub(crate) fn register_one(
        &self,
        config: ImageConfig,
        parent: Option<ImageId>,
        reference: Option<Reference>,
        below: Option<&Digest>,
        layer: Option<Spooled>,
    ) -> Result<ImageId, ImageError> {
        let mut registration = Registration::new(self);
        if let Some(below) = below
            && !registration.pin(below)
        {
            return Err(ImageError::NotFound(format!(
                "layer {below} does not exist"
            )));
        }
        if let Some(source) = layer {
            let diff_id = source.blob.digest.clone();
            let index = config.diff_ids().len() - 1;
            if !registration.pin(&chain_id(below, &diff_id)) {
                let job = Job {
                    index,
                    parent: below.cloned(),
                    shown: Shown::loading(&diff_id),
                    diff_id,
                    source,
                };
                registration.unpack(&mut std::iter::once(Ok(job)), &mut |_| {})?;
            }
        }
        let references = reference
            .map(|reference| taggable(&reference.to_string()))
            .transpose()?
            .into_iter()
            .collect();
        let config = encode(&config)?;
        let recorded = registration.commit(vec![NewImage {
            config,
            parent,
            references,
        }])?;
        Ok(recorded.into_iter().next().expect("one image went in").0)
    }
}

/// Keys are sorted, as Docker sorts them: through a `Value`, whose maps are.
fn encode(config: &ImageConfig) -> Result<Vec<u8>, ImageError> {
    serde_json::to_value(config)
        .and_then(|value: Value| serde_json::to_vec(&value))
        .map_err(|error| ImageError::Invalid(format!("invalid image configuration: {error}")))
}
