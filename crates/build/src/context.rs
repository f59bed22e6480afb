//! The build context: unpacked into a directory of its own, its Dockerfile read.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rustix::fs::OFlags;
use skep_dockerfile::{Dockerfile, Instruction, Stage, Step};
use skep_engine::{ByteStream, Engine, EngineError, archive, rooted};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::error::BuildError;
use crate::evaluate::Evaluation;
use crate::ignore;
use crate::message::{Message, Output};
use crate::options::BuildOptions;

/// A Dockerfile larger than this is none.
const MAX_DOCKERFILE: u64 = 16 << 20;
/// Lines that may wait for a slow client.
const BACKLOG: usize = 64;

/// A build that can begin: everything that is wrong with the request itself is found by now.
pub struct Prepared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: BuildOptions,
    pub(crate) context: TempDir,
    pub(crate) file: Dockerfile,
}

/// Takes the context in and reads the Dockerfile.
pub async fn prepare(
    engine: Arc<Engine>,
    options: BuildOptions,
    body: ByteStream,
) -> Result<Prepared, BuildError> {
    for tag in &options.tags {
        skep_image::Reference::parse(tag)
            .map_err(|error| BuildError::invalid(error.to_string()))?;
    }
    let reader = archive::BodyReader::new(body);
    let parent = engine.scratch_dir();
    let name = options.dockerfile.clone();
    let unpacked = tokio::task::spawn_blocking(move || unpack(&parent, reader, &name));
    let (context, mut file) = unpacked
        .await
        .map_err(|error| BuildError::failed(format!("internal error: {error}")))??;
    if !options.target.is_empty() {
        let target = file.stage(&options.target).ok_or_else(|| {
            BuildError::invalid(format!(
                "target stage {:?} could not be found",
                options.target
            ))
        })?;
        file.stages.truncate(target + 1);
    }
    if let Some(stage) = file.stages.last_mut() {
        add_labels(stage, &options);
    }
    Ok(Prepared {
        engine,
        options,
        context,
        file,
    })
}

impl Prepared {
    /// Builds. Dropping the stream cancels the build.
    pub fn run(self) -> BoxStream<'static, Result<Message, BuildError>> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let output = Output::new(sender);
        tokio::spawn(async move {
            let mut evaluation = Evaluation::new(self, output.clone());
            if let Err(error) = evaluation.run().await {
                output.fail(error).await;
            }
        });
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        })
        .boxed()
    }
}

/// `--label`s are a last instruction of the last stage, each in its own step. Their values are
/// taken as they are: quotes keep variables out.
fn add_labels(stage: &mut Stage, options: &BuildOptions) {
    for (key, value) in &options.labels {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "'\"'\"'"));
        stage.steps.push(Step {
            instruction: Instruction::Label(vec![(quote(key), quote(value))]),
            source: format!("LABEL {key}={value}"),
            line: 0,
        });
    }
}

fn unpack(
    parent: &Path,
    mut reader: impl io::Read,
    dockerfile: &str,
) -> Result<(TempDir, Dockerfile), BuildError> {
    std::fs::create_dir_all(parent)?;
    let context = tempfile::Builder::new()
        .prefix("build-")
        .tempdir_in(parent)?;
    let root = rooted::open_root(context.path())?;
    let attributes = archive::Attributes::default();
    archive::unpack(&mut reader, &root, Path::new("/"), attributes)
        .map_err(|error| error.context("Error processing tar file"))?;
    // To its end, padding included: only behind it can the server see that the client has gone.
    io::copy(&mut reader, &mut io::sink())?;
    let name = find(&root, dockerfile)?;
    let text = read(&root, &name)?;
    if text.is_empty() {
        return Err(BuildError::invalid(format!(
            "the Dockerfile ({name}) cannot be empty"
        )));
    }
    let file = Dockerfile::parse(&text).map_err(|error| BuildError::invalid(error.to_string()))?;
    forget(context.path(), &root, &name)?;
    Ok((context, file))
}

/// The Dockerfile's name; the default one may be in lower case.
fn find(root: &OwnedFd, name: &str) -> Result<String, BuildError> {
    let name = if name.is_empty() { "Dockerfile" } else { name };
    let there = |name: &str| rooted::open_in(root, Path::new(name), OFlags::PATH).is_ok();
    if there(name) {
        return Ok(name.to_owned());
    }
    let lower = name.to_lowercase();
    if name == "Dockerfile" && there(&lower) {
        return Ok(lower);
    }
    Err(BuildError::failed(format!(
        "Cannot locate specified Dockerfile: {name}"
    )))
}

fn read(root: &OwnedFd, name: &str) -> Result<String, BuildError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = std::fs::File::from(rooted::open_in(root, Path::new(name), flags)?);
    if !file.metadata()?.is_file() {
        return Err(BuildError::invalid(format!(
            "the Dockerfile ({name}) is not a file"
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(BuildError::invalid(format!(
            "{name} is larger than {MAX_DOCKERFILE} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|_| {
        BuildError::Other(EngineError::invalid(format!(
            "failed to parse {name}: it is not UTF-8"
        )))
    })
}

/// Removes the Dockerfile and `.dockerignore` from the context if the latter excludes them.
fn forget(context: &Path, root: &OwnedFd, dockerfile: &str) -> Result<(), BuildError> {
    let Ok(patterns) = read(root, ".dockerignore") else {
        return Ok(());
    };
    for name in [".dockerignore", dockerfile] {
        let plain = name.trim_start_matches("./");
        let inside = !plain.split('/').any(|part| part == "..");
        if inside && ignore::excludes(&patterns, plain) {
            match rooted::real_path(context, Path::new(plain)) {
                Ok(path) => std::fs::remove_file(path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
