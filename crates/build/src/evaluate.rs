//! Step after step.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use skep_dockerfile::{Command, Copy, Dockerfile, Instruction, Stage, Step};
use skep_engine::{Engine, EngineError, ErrorKind, Platform, PullOptions, rooted};
use skep_image::{CommitOptions, Image, ImageId, Rootfs, RunConfig};
use tempfile::TempDir;

use crate::args::BuildArgs;
use crate::cache::{Cache, to_value};
use crate::comment::{self, comment};
use crate::context::Prepared;
use crate::copy::{self, Placement};
use crate::error::BuildError;
use crate::message::{Message, Output, cancelled};
use crate::options::BuildOptions;
use crate::owner;
use crate::run;
use crate::sources::{self, Origin, Source};
use crate::sum;

/// Where the containers' programs are looked for if the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A build under way.
pub(crate) struct Evaluation {
    engine: Arc<Engine>,
    options: BuildOptions,
    context: Arc<TempDir>,
    file: Dockerfile,
    output: Output,
    cache: Cache,
    /// Finished stages' images, by number.
    stages: Vec<Option<Image>>,
    names: BTreeMap<String, usize>,
    printed: usize,
}

/// A stage under way.
struct State {
    /// What the last step left; nothing yet in a stage from scratch.
    image: Option<Image>,
    config: RunConfig,
    args: BuildArgs,
    command_set: bool,
    author: String,
}

impl Evaluation {
    pub(crate) fn new(prepared: Prepared, output: Output) -> Self {
        let Prepared {
            engine,
            options,
            context,
            file,
        } = prepared;
        let images = engine.images().clone();
        Self {
            cache: Cache::new(images, !options.no_cache, &options.cache_from),
            engine,
            options,
            context: Arc::new(context),
            file,
            output,
            stages: Vec::new(),
            names: BTreeMap::new(),
            printed: 0,
        }
    }

    pub(crate) async fn run(&mut self) -> Result<(), BuildError> {
        let file = self.file.clone();
        for warning in &file.warnings {
            self.errors(format!("[WARNING]: {warning}\n")).await?;
        }
        if !file.warnings.is_empty() {
            let text =
                "[WARNING]: Empty continuation lines will become errors in a future release.\n";
            self.errors(text.to_owned()).await?;
        }
        let mut args = BuildArgs::new(self.options.args.clone());
        for step in &file.meta_args {
            self.announce(&step.source).await?;
            declare_meta(&mut args, step, file.escape)?;
        }
        let mut last = None;
        for (number, stage) in file.stages.iter().enumerate() {
            let state = self.stage(stage, &args).await?;
            args.merge_referenced(&state.args);
            if let Some(name) = &stage.name
                && self.names.insert(name.clone(), number).is_some()
            {
                return Err(BuildError::failed(format!(
                    "{name} stage name already used"
                )));
            }
            self.stages.push(state.image.clone());
            last = state.image;
        }
        let unused = args.unused();
        if !unused.is_empty() {
            let text = format!(
                "[Warning] One or more build-args [{}] were not consumed",
                unused.join(" ")
            );
            self.output.line(text).await?;
        }
        let image = last.ok_or_else(|| {
            BuildError::failed("No image was generated. Is your Dockerfile empty?")
        })?;
        self.finish(&image).await
    }

    async fn finish(&self, image: &Image) -> Result<(), BuildError> {
        let text = format!("Successfully built {}", image.id().short());
        self.output.line(text).await?;
        for tag in &self.options.tags {
            let reference = skep_image::Reference::parse(tag)
                .map_err(|error| BuildError::invalid(error.to_string()))?
                .with_default_tag();
            let (repo, tag) = (
                reference.familiar_name(),
                reference.tag().unwrap_or_default(),
            );
            self.engine
                .tag_image(image.id().as_str(), &repo, tag)
                .await?;
            let text = format!("Successfully tagged {}", reference.familiar());
            self.output.line(text).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, stage: &Stage, args: &BuildArgs) -> Result<State, BuildError> {
        self.announce(&stage.source).await?;
        self.cache.next_stage();
        let mut state = self.begin(stage, args).await?;
        let triggers = state.config.on_build.take().unwrap_or_default();
        if !triggers.is_empty() {
            let plural = if triggers.len() > 1 { "s" } else { "" };
            let text = format!("# Executing {} build trigger{plural}", triggers.len());
            self.output.line(text).await?;
        }
        for trigger in triggers {
            let step =
                Step::trigger(&trigger).map_err(|error| BuildError::invalid(error.reason))?;
            self.step(&mut state, &step).await?;
        }
        self.arrived(&state).await?;
        for step in &stage.steps {
            self.announce(&step.source).await?;
            self.step(&mut state, step).await?;
            self.arrived(&state).await?;
        }
        if let Some(image) = &state.image {
            let id = image.id().to_string();
            self.output.send(Message::Image(id)).await?;
        }
        Ok(state)
    }

    async fn begin(&self, stage: &Stage, args: &BuildArgs) -> Result<State, BuildError> {
        let expand = |text: &str| {
            skep_dockerfile::expand(text, self.file.escape, &|name| args.of_from(name))
                .map_err(BuildError::invalid)
        };
        let name = expand(&stage.base)?;
        if name.is_empty() {
            return Err(BuildError::invalid(format!(
                "base name ({}) should not be blank",
                stage.base
            )));
        }
        let platform = match &stage.platform {
            Some(text) => Some(expand(text)?),
            None => self.options.platform.clone(),
        };
        let image = if name == "scratch" {
            None
        } else if let Some(number) = self.names.get(&name.to_lowercase()) {
            self.stages.get(*number).cloned().flatten()
        } else {
            Some(self.image(&name, platform.as_deref()).await?)
        };
        let mut config = image
            .as_ref()
            .and_then(|image| image.run_config().cloned())
            .unwrap_or_default();
        let env = config.env.get_or_insert_default();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(DEFAULT_PATH.to_owned());
        }
        Ok(State {
            image,
            config,
            args: args.next_stage(),
            command_set: false,
            author: String::new(),
        })
    }

    /// An image that a stage begins with or copies from.
    async fn image(&self, name: &str, platform: Option<&str>) -> Result<Image, BuildError> {
        let mut warnings = Vec::new();
        let here = self.engine.image_for(name, platform, &mut warnings);
        let image = match here {
            Ok(image) if !self.options.pull => image,
            Err(error) if error.kind != ErrorKind::NotFound => return Err(error.into()),
            _ => {
                self.pull(name, platform).await?;
                self.engine.image_for(name, platform, &mut warnings)?
            }
        };
        for warning in warnings {
            self.output
                .line(format!(" ---> [Warning] {warning}"))
                .await?;
        }
        Ok(image)
    }

    async fn pull(&self, name: &str, platform: Option<&str>) -> Result<(), BuildError> {
        let reference = skep_engine::pull_reference(name, "")?.with_default_tag();
        let host = match reference.domain() {
            "docker.io" => "https://index.docker.io/v1/",
            other => other,
        };
        let platform = platform
            .filter(|text| !text.is_empty())
            .map(Platform::parse)
            .transpose()
            .map_err(EngineError::from)?;
        let options = PullOptions {
            platform,
            credentials: self
                .options
                .credentials
                .get(host)
                .cloned()
                .unwrap_or_default(),
            reference,
        };
        let mut progress = self.engine.pull_image(options).await?;
        while let Some(message) = progress.next().await {
            self.output.send(Message::Progress(message?)).await?;
        }
        Ok(())
    }

    async fn step(&mut self, state: &mut State, step: &Step) -> Result<(), BuildError> {
        let mut instruction = step.instruction.clone();
        let env = state.config.env.clone().unwrap_or_default();
        let lookup = |name: &str| {
            let mut set = env.iter().filter_map(|entry| entry.split_once('='));
            let set = set.rfind(|(key, _)| *key == name);
            set.map(|(_, value)| value.to_owned())
                .or_else(|| state.args.get(name))
        };
        instruction
            .expand(self.file.escape, &lookup)
            .map_err(BuildError::invalid)?;
        let mut containers = Vec::new();
        let result = match &instruction {
            Instruction::Run(run) => self.command(state, run, &mut containers).await,
            Instruction::Copy(copy) => self.copy(state, copy, "COPY").await,
            Instruction::Add(copy) => self.copy(state, copy, "ADD").await,
            Instruction::Workdir(_) => self.working_dir(state, &instruction).await,
            instruction => self.configure(state, instruction).await,
        };
        let keep = !(self.options.force_remove || self.options.remove && result.is_ok());
        if !keep {
            run::remove(&self.engine, &self.output, containers).await?;
        }
        result
    }

    /// An instruction that changes nothing but the configuration.
    async fn configure(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        match instruction {
            Instruction::Arg(args) => {
                for (name, default) in args {
                    state.args.declare(name, default.clone());
                }
            }
            Instruction::Maintainer(author) => state.author.clone_from(author),
            instruction => {
                if let (Instruction::Healthcheck(_), Some(old)) =
                    (instruction, &state.config.healthcheck)
                    && let Some(test) = old
                        .test
                        .as_ref()
                        .filter(|test| test.first().is_some_and(|kind| kind != "NONE"))
                {
                    let text = format!(
                        "Note: overriding previous HEALTHCHECK: [{}]",
                        test.join(" ")
                    );
                    self.output.line(text).await?;
                }
                state.config.apply(instruction, &mut state.command_set)?;
            }
        }
        let record = comment::nothing_run(&state.config, &comment(instruction, &state.config));
        if self.known(state, &record).await? {
            return Ok(());
        }
        self.commit(state, record, None).await
    }

    /// A working directory is made at once, so that it is there whoever comes later.
    async fn working_dir(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        state.config.apply(instruction, &mut state.command_set)?;
        let dir = state.config.working_dir.clone().unwrap_or_default();
        let record = comment::files_changed(&state.config, &format!("WORKDIR {dir}"));
        if self.known(state, &record).await? {
            return Ok(());
        }
        let change = move |rootfs: &Rootfs| {
            let root = rooted::open_root(rootfs.merged())?;
            Ok(rooted::make_owned_directories(&root, dir.as_ref(), None)?)
        };
        self.change_files(state, record, change).await
    }

    async fn copy(
        &mut self,
        state: &mut State,
        copy: &Copy,
        name: &'static str,
    ) -> Result<(), BuildError> {
        refuse_foreign(copy)?;
        let escape = format!("{name} failed");
        let mode = copy.chmod.as_deref().map(octal).transpose()?;
        let (found, kept) = self
            .sources(copy, name)
            .await
            .map_err(|error| error.context(&escape))?;
        let (path, is_dir) = copy::destination(
            state.config.working_dir.as_deref().unwrap_or("/"),
            &copy.destination,
        );
        if found.len() > 1 && !is_dir {
            return Err(BuildError::invalid(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let sums: Vec<_> = found.iter().map(|source| source.sum.clone()).collect();
        let flag = |flag: &str, value: &Option<String>| {
            value
                .as_ref()
                .map_or(String::new(), |value| format!("--{flag}={value} "))
        };
        let text = format!(
            "{name} {}{}{} in {} ",
            flag("chown", &copy.chown),
            flag("chmod", &copy.chmod),
            sum::sum_of_all(&sums),
            copy.destination
        );
        let record = comment::files_changed(&state.config, &text);
        if self.known(state, &record).await? {
            return Ok(());
        }
        let (chown, keeps_owner) = (copy.chown.clone(), copy.from.is_some());
        let change = move |rootfs: &Rootfs| {
            let root = rooted::open_root(rootfs.merged())?;
            let owner = match &chown {
                Some(text) => Some(owner::parse(text, &root)?),
                None => None,
            };
            for source in &found {
                let owner = owner.or((!keeps_owner && !source.extract).then_some((0, 0)));
                let placement = Placement {
                    path: path.clone(),
                    is_dir,
                    owner,
                    mode,
                };
                copy::place(source, &root, &placement)?;
            }
            drop(kept);
            Ok(())
        };
        self.change_files(state, record, change).await
    }

    /// The instruction's sources, and what must stay as long as they are used.
    async fn sources(
        &self,
        copy: &Copy,
        name: &str,
    ) -> Result<(Vec<Source>, Vec<Kept>), BuildError> {
        let mut kept = Vec::new();
        let (root, origin) = match &copy.from {
            None => (self.context.path().to_owned(), Origin::Context),
            Some(from) => {
                let image = self.image_or_stage(from).await?;
                let rootfs = self.open(&image).await?;
                let root = rootfs.0.merged().to_owned();
                kept.push(Kept::Rootfs(rootfs));
                (root, Origin::Image)
            }
        };
        let remote = copy.sources.iter().find(|word| is_url(word));
        if let Some(word) = remote {
            return Err(match name {
                "COPY" => BuildError::invalid("source can't be a URL for COPY"),
                _ => BuildError::Other(skep_engine::EngineError::not_implemented(format!(
                    "skep: ADD of a URL is not implemented yet: fetch {word} in a RUN, or put it into the context"
                ))),
            });
        }
        let (words, documents) = (copy.sources.clone(), copy.documents.clone());
        let (extract, scratch) = (name == "ADD", self.engine.scratch_dir());
        let context = Arc::clone(&self.context);
        let (found, dirs) = blocking(move || {
            let (mut found, mut dirs) = (Vec::new(), Vec::new());
            for word in &words {
                found.extend(sources::find(&root, origin, word, extract)?);
            }
            for document in documents {
                let (dir, source) = sources::document(&scratch, &document.name, &document.content)?;
                dirs.push(dir);
                found.push(source);
            }
            drop(context);
            Ok((found, dirs))
        })
        .await?;
        if found.is_empty() {
            return Err(BuildError::invalid("no source files were specified"));
        }
        kept.extend(dirs.into_iter().map(Kept::Dir));
        Ok((found, kept))
    }

    async fn image_or_stage(&self, from: &str) -> Result<Image, BuildError> {
        let wrong =
            |reason: &str| BuildError::invalid(format!("invalid from flag value {from}: {reason}"));
        let number = self.names.get(&from.to_lowercase()).copied();
        match number.or_else(|| from.parse().ok()) {
            Some(number) if number == self.stages.len() => {
                Err(wrong("refers to current build stage"))
            }
            Some(number) => match self.stages.get(number) {
                Some(image) => Ok(image.clone().unwrap_or_else(Image::scratch)),
                None => Err(wrong("index out of bounds")),
            },
            None => self
                .image(from, self.options.platform.as_deref())
                .await
                .map_err(|error| error.context(&format!("invalid from flag value {from}"))),
        }
    }

    async fn command(
        &mut self,
        state: &mut State,
        command: &skep_dockerfile::Run,
        containers: &mut Vec<String>,
    ) -> Result<(), BuildError> {
        if let Some(flag) = command.flags.first() {
            return Err(needs_buildkit(flag));
        }
        let words = command_words(&state.config, command);
        let env = state.config.env.clone().unwrap_or_default();
        let args = state.args.environment(&env);
        let mut record = state.config.clone();
        record.cmd = Some(with_args(&args, &words, &state.args));
        record.entrypoint = None;
        if self.known(state, &record).await? {
            return Ok(());
        }
        if state.image.is_none() {
            // A container needs an image, even an empty one.
            let nothing = comment::nothing_run(&state.config, "FROM scratch");
            self.commit(state, nothing, None).await?;
        }
        let Some(image) = &state.image else {
            return Err(BuildError::failed("the empty image was not kept"));
        };
        let request = run::request(image, &words, args, &self.options.host);
        let id = run::run(&self.engine, &self.output, request, containers, &words).await?;
        let rootfs = self.engine.images().open_rootfs(&id)?;
        self.commit(state, record, Some(rootfs)).await
    }

    /// Whether the step was done before; the state then stands behind it.
    async fn known(&mut self, state: &mut State, record: &RunConfig) -> Result<bool, BuildError> {
        let found = self
            .cache
            .probe(state.image.as_ref(), record, &state.config)?;
        let Some(image) = found else {
            return Ok(false);
        };
        self.output.line(" ---> Using cache").await?;
        state.image = Some(image);
        Ok(true)
    }

    /// Changes the files of the state's image and keeps the result.
    async fn change_files(
        &mut self,
        state: &mut State,
        record: RunConfig,
        change: impl FnOnce(&Rootfs) -> Result<(), BuildError> + Send + 'static,
    ) -> Result<(), BuildError> {
        let base = state.image.clone().unwrap_or_else(Image::scratch);
        let rootfs = self.open(&base).await?;
        let held = blocking(move || {
            change(&rootfs.0)?;
            Ok(rootfs)
        });
        let rootfs = tokio::select! {
            held = held => held?,
            () = self.output.closed() => return Err(cancelled()),
        };
        self.commit(state, record, Some(rootfs.0.clone())).await?;
        blocking(move || {
            drop(rootfs);
            Ok(())
        })
        .await
    }

    /// A root file system of an image to work in, mounted.
    async fn open(&self, image: &Image) -> Result<Mounted, BuildError> {
        let (images, image) = (self.engine.images().clone(), image.clone());
        blocking(move || {
            let id = format!("build-{}", run::random_id());
            let mounted = Mounted(images.rootfs(&image, &id)?);
            mounted.0.mount()?;
            Ok(mounted)
        })
        .await
    }

    async fn commit(
        &self,
        state: &mut State,
        record: RunConfig,
        rootfs: Option<Rootfs>,
    ) -> Result<(), BuildError> {
        let options = CommitOptions {
            parent: state.image.as_ref().map(|image| image.id().clone()),
            author: state.author.clone(),
            config: state.config.clone(),
            created_by: comment::created_by(&record),
            container_config: Some(to_value(&record)?),
            ..CommitOptions::default()
        };
        let images = self.engine.images().clone();
        let id: ImageId = blocking(move || {
            Ok(match rootfs {
                Some(rootfs) => images.commit(&rootfs, options)?,
                None => images.commit_config(options)?,
            })
        })
        .await?;
        state.image = self.engine.images().by_id(&id);
        Ok(())
    }

    async fn announce(&mut self, source: &str) -> Result<(), BuildError> {
        self.printed += 1;
        let steps = self.file.stages.iter().map(|stage| stage.steps.len() + 1);
        let all = self.file.meta_args.len() + steps.sum::<usize>();
        let text = format!("Step {}/{all} : {source}", self.printed);
        self.output.line(text).await
    }

    async fn arrived(&self, state: &State) -> Result<(), BuildError> {
        let id = state.image.as_ref().map_or("", |image| image.id().short());
        self.output.line(format!(" ---> {id}")).await
    }

    async fn errors(&self, text: String) -> Result<(), BuildError> {
        self.output.send(Message::Errors(text)).await
    }
}

/// What a copy's sources live in.
enum Kept {
    #[expect(dead_code, reason = "held until it is dropped")]
    Rootfs(Mounted),
    #[expect(dead_code, reason = "held until it is dropped")]
    Dir(TempDir),
}

/// A root file system that goes when it is dropped.
struct Mounted(Rootfs);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            tracing::warn!(rootfs = self.0.container_id(), %error, "a build's root file system stays until the next start");
        }
    }
}

/// Disk work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BuildError::failed(format!("internal error: {error}"))),
    }
}

fn declare_meta(args: &mut BuildArgs, step: &Step, escape: char) -> Result<(), BuildError> {
    let mut instruction = step.instruction.clone();
    let known = args.clone();
    instruction
        .expand(escape, &|name| known.get(name))
        .map_err(BuildError::invalid)?;
    if let Instruction::Arg(pairs) = instruction {
        for (name, default) in pairs {
            args.declare_meta(&name, default);
        }
    }
    Ok(())
}

/// The words to run. Here-documents are the shell's to read, but one alone is itself the script.
fn command_words(config: &RunConfig, run: &skep_dockerfile::Run) -> Vec<String> {
    let Command::Shell(text) = &run.command else {
        return config.command(&run.command);
    };
    let [document] = run.documents.as_slice() else {
        return with_documents(config, text, run);
    };
    let is_whole = text.trim_start().starts_with("<<")
        && text.split_whitespace().count() <= 2
        && text
            .trim_end()
            .trim_end_matches(['"', '\''])
            .ends_with(&document.name);
    if !is_whole || document.text().starts_with("#!") {
        return with_documents(config, text, run);
    }
    config.command(&Command::Shell(document.text()))
}

fn with_documents(config: &RunConfig, text: &str, run: &skep_dockerfile::Run) -> Vec<String> {
    let mut script = text.to_owned();
    for document in &run.documents {
        script.push('\n');
        script.push_str(&document.content);
        script.push_str(&document.name);
    }
    config.command(&Command::Shell(script))
}

/// The arguments a command depends on are part of what the cache compares; a command of a user can
/// not begin with a bar.
fn with_args(args: &[(String, String)], words: &[String], known: &BuildArgs) -> Vec<String> {
    let visible: Vec<_> = args
        .iter()
        .filter(|(name, _)| known.is_visible(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if args.is_empty() {
        return words.to_vec();
    }
    let mut all = vec![format!("|{}", visible.len())];
    all.extend(visible);
    all.extend_from_slice(words);
    all
}

fn octal(text: &str) -> Result<u32, BuildError> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| {
            BuildError::invalid(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"))
        })
}

fn refuse_foreign(copy: &Copy) -> Result<(), BuildError> {
    let exclude = (!copy.excludes.is_empty()).then_some("exclude");
    let checksum = copy.checksum.as_ref().map(|_| "checksum");
    let foreign = copy.foreign.first().map(String::as_str);
    match exclude.or(checksum).or(foreign) {
        Some(flag) => Err(needs_buildkit(flag)),
        None => Ok(()),
    }
}

fn needs_buildkit(flag: &str) -> BuildError {
    BuildError::invalid(format!(
        "the --{flag} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled"
    ))
}

fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}
