use bollard_stubs::models::HealthConfig;

use crate::expand::{Lookup, expand, expand_words};

/// One instruction, its words split but variables not yet put in.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    Add(Copy),
    Arg(Vec<(String, Option<String>)>),
    Cmd(Command),
    Copy(Copy),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    /// Ports and ranges.
    Expose(Vec<String>),
    Healthcheck(HealthConfig),
    Label(Vec<(String, String)>),
    Maintainer(String),
    /// The trigger as it was written.
    OnBuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The JSON form: run as it is.
    Exec(Vec<String>),
    /// For the shell; empty if nothing was written.
    Shell(String),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub documents: Vec<crate::Heredoc>,
    /// The flags' names; all of them belong to BuildKit.
    pub flags: Vec<String>,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<String>,
    /// Files written in the Dockerfile itself.
    pub documents: Vec<Document>,
    pub destination: String,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    /// `COPY --from`: a stage or an image.
    pub from: Option<String>,
    /// `ADD --checksum`.
    pub checksum: Option<String>,
    pub excludes: Vec<String>,
    /// Flags that only BuildKit gives a meaning.
    pub foreign: Vec<String>,
}

/// A here-document as a file to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub name: String,
    pub content: String,
    /// Variables in it are put in.
    pub expand: bool,
}

impl Instruction {
    /// In capitals, as in Dockerfiles.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::OnBuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }

    /// Puts variables in wherever the instruction takes them, and takes quotes off. Each stays one
    /// word, but in `EXPOSE`, where a variable may hold several ports.
    pub fn expand(&mut self, escape: char, lookup: Lookup<'_>) -> Result<(), String> {
        let word = |word: &mut String| -> Result<(), String> {
            *word = expand(word, escape, lookup)?;
            Ok(())
        };
        match self {
            Self::Add(copy) | Self::Copy(copy) => copy.expand(escape, lookup),
            Self::Env(pairs) | Self::Label(pairs) => {
                pairs.iter_mut().try_for_each(|(key, value)| {
                    word(key)?;
                    word(value)
                })
            }
            Self::Arg(args) => args.iter_mut().try_for_each(|(key, value)| {
                word(key)?;
                value.as_mut().map_or(Ok(()), word)
            }),
            Self::Volume(words) => words.iter_mut().try_for_each(word),
            Self::Expose(words) => {
                let lists = words.iter().map(|word| expand_words(word, escape, lookup));
                *words = lists.collect::<Result<Vec<_>, _>>()?.concat();
                Ok(())
            }
            Self::StopSignal(text) | Self::User(text) | Self::Workdir(text) => word(text),
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::OnBuild(_)
            | Self::Run(_)
            | Self::Shell(_) => Ok(()),
        }
    }
}

impl Copy {
    fn expand(&mut self, escape: char, lookup: Lookup<'_>) -> Result<(), String> {
        let word = |word: &mut String| -> Result<(), String> {
            *word = expand(word, escape, lookup)?;
            Ok(())
        };
        for text in self.sources.iter_mut().chain([&mut self.destination]) {
            word(text)?;
        }
        for text in [&mut self.chown, &mut self.chmod, &mut self.checksum] {
            text.as_mut().map_or(Ok(()), word)?;
        }
        for document in self.documents.iter_mut().filter(|document| document.expand) {
            document.content = crate::expand::expand_document(&document.content, escape, lookup)?;
        }
        Ok(())
    }
}
