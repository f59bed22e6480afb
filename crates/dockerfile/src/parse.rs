//! From a logical line to an instruction.

use crate::flags::{Flags, Takes, nearest};
use crate::healthcheck;
use crate::instruction::{Command, Copy, Document, Instruction, Run};
use crate::lines::{Heredoc, heredoc_word};
use crate::words::{is_blank, json_list, split, split_command};

/// A line of a Dockerfile.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    From(From),
    Instruction(Instruction),
}

/// `FROM [--platform=…] base [AS name]`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) base: String,
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
}

const NAMES: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

pub(crate) fn parse_line(line: &str, heredocs: &[Heredoc], escape: char) -> Result<Parsed, String> {
    let (written, flags, rest) = split_command(line, escape);
    let name = written.to_ascii_uppercase();
    let flags = flags.as_slice();
    let instruction = match name.as_str() {
        "FROM" => return from(flags, &rest).map(Parsed::From),
        "ADD" => Instruction::Add(copy("ADD", flags, &rest, heredocs)?),
        "COPY" => Instruction::Copy(copy("COPY", flags, &rest, heredocs)?),
        "ARG" => Instruction::Arg(args(&rest, escape)?),
        "ENV" => Instruction::Env(pairs("ENV", flags, &rest, escape)?),
        "LABEL" => Instruction::Label(pairs("LABEL", flags, &rest, escape)?),
        "RUN" => run(flags, &rest, heredocs)?,
        "CMD" => {
            Flags::none(flags)?;
            Instruction::Cmd(command(&rest)?)
        }
        "ENTRYPOINT" => {
            Flags::none(flags)?;
            Instruction::Entrypoint(command(&rest)?)
        }
        "EXPOSE" => Instruction::Expose(expose(flags, &rest)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck::parse(flags, &rest)?),
        "ONBUILD" => Instruction::OnBuild(on_build(line, &rest, heredocs)?),
        "SHELL" => Instruction::Shell(shell(flags, &rest, line)?),
        "VOLUME" => Instruction::Volume(volume(flags, &rest)?),
        "MAINTAINER" => Instruction::Maintainer(single("MAINTAINER", flags, rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(single("STOPSIGNAL", flags, rest)?),
        "USER" => Instruction::User(single("USER", flags, rest)?),
        "WORKDIR" => Instruction::Workdir(single("WORKDIR", flags, rest)?),
        _ => {
            return Err(match nearest(&name, NAMES.iter().copied()) {
                Some(near) => format!("unknown instruction: {written} (did you mean {near}?)"),
                None => format!("unknown instruction: {written}"),
            });
        }
    };
    Ok(Parsed::Instruction(instruction))
}

fn from(flags: &[String], rest: &str) -> Result<From, String> {
    let words = blank_separated(rest);
    let (base, name) = match words.as_slice() {
        [base] => (base, None),
        [base, as_, name] if as_.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let platform = Flags::parse(flags, &[("platform", Takes::Text)])?.text("platform");
    Ok(From {
        base: base.clone(),
        name,
        platform,
    })
}

fn stage_name(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if fits {
        Ok(name)
    } else {
        Err(format!(
            "invalid name for build stage: {text:?}, name can't start with a number or contain symbols"
        ))
    }
}

fn copy(name: &str, flags: &[String], rest: &str, heredocs: &[Heredoc]) -> Result<Copy, String> {
    let mut words = list_or_words(rest)?;
    if words.len() < 2 {
        return Err(format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    }
    let own: &[_] = if name == "COPY" {
        &[("from", Takes::Text), ("parents", Takes::Switch)]
    } else {
        &[
            ("checksum", Takes::Text),
            ("keep-git-dir", Takes::Switch),
            ("unpack", Takes::Switch),
        ]
    };
    let common = [
        ("chown", Takes::Text),
        ("chmod", Takes::Text),
        ("link", Takes::Switch),
        ("exclude", Takes::Texts),
    ];
    let flags = Flags::parse(flags, &[&common, own].concat())?;
    let destination = words.pop().unwrap_or_default();
    if heredoc_word(&destination).is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    let (mut sources, mut documents) = (Vec::new(), Vec::new());
    for word in words {
        match heredocs
            .iter()
            .find(|document| heredoc_word(&word).is_some_and(|said| said.name == document.name))
        {
            Some(document) => documents.push(Document {
                name: document.name.clone(),
                content: document.text(),
                expand: document.expand,
            }),
            None => sources.push(word),
        }
    }
    let foreign = ["parents", "keep-git-dir", "unpack"];
    Ok(Copy {
        sources,
        documents,
        destination,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        from: flags.text("from"),
        checksum: flags.text("checksum"),
        excludes: flags.texts("exclude"),
        foreign: foreign
            .into_iter()
            .filter(|name| flags.switch(name))
            .map(str::to_owned)
            .collect(),
    })
}

fn run(flags: &[String], rest: &str, heredocs: &[Heredoc]) -> Result<Instruction, String> {
    let known = ["mount", "network", "security", "device"].map(|name| (name, Takes::Texts));
    Flags::parse(flags, &known)?;
    let names = flags.iter().map(|flag| {
        let name = flag.trim_start_matches("--");
        name.split('=').next().unwrap_or(name).to_owned()
    });
    let command = command(rest)?;
    if matches!(&command, Command::Shell(text) if text.is_empty())
        || matches!(&command, Command::Exec(list) if list.is_empty())
    {
        return Err("RUN requires at least one argument".to_owned());
    }
    Ok(Instruction::Run(Run {
        command,
        documents: heredocs.to_vec(),
        flags: names.collect(),
    }))
}

fn command(rest: &str) -> Result<Command, String> {
    Ok(match json_list(rest)? {
        Some(list) => Command::Exec(list),
        None => Command::Shell(rest.to_owned()),
    })
}

fn args(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let words = split(rest, escape);
    if words.is_empty() {
        return Err("ARG requires at least one argument".to_owned());
    }
    let args = words.into_iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    });
    args.collect()
}

/// `name=value …`, or the old form `name value` with one pair.
fn pairs(
    name: &str,
    flags: &[String],
    rest: &str,
    escape: char,
) -> Result<Vec<(String, String)>, String> {
    let words = split(rest, escape);
    let Some(first) = words.first() else {
        return Err(format!("{name} requires at least one argument"));
    };
    Flags::none(flags)?;
    let pairs: Vec<(String, String)> = if first.contains('=') {
        let pairs = words.iter().map(|word| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            )),
        });
        pairs.collect::<Result<_, _>>()?
    } else {
        let (key, value) = rest
            .split_once(is_blank)
            .ok_or_else(|| format!("{name} must have two arguments"))?;
        vec![(
            key.to_owned(),
            value.trim_start_matches(is_blank).to_owned(),
        )]
    };
    if pairs.iter().any(|(key, _)| key.is_empty()) {
        return Err(format!("{name} names can not be blank"));
    }
    Ok(pairs)
}

fn expose(flags: &[String], rest: &str) -> Result<Vec<String>, String> {
    let mut words = blank_separated(rest);
    if words.is_empty() {
        return Err("EXPOSE requires at least one argument".to_owned());
    }
    Flags::none(flags)?;
    words.sort();
    Ok(words)
}

fn on_build(line: &str, rest: &str, heredocs: &[Heredoc]) -> Result<String, String> {
    let trigger = rest
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    match trigger.as_str() {
        "" => return Err("ONBUILD requires at least one argument".to_owned()),
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "MAINTAINER" | "FROM" => {
            return Err(format!("{trigger} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let line = line.trim();
    let mut expression = line
        .get("ONBUILD".len()..)
        .unwrap_or_default()
        .trim()
        .to_owned();
    for document in heredocs {
        expression.extend(["\n", &document.content, &document.name]);
    }
    Ok(expression)
}

fn shell(flags: &[String], rest: &str, line: &str) -> Result<Vec<String>, String> {
    Flags::none(flags)?;
    match json_list(rest)? {
        Some(list) if !list.is_empty() => Ok(list),
        None if !rest.is_empty() => Err(format!(
            "SHELL requires the arguments to be in JSON form: {line}"
        )),
        _ => Err("SHELL requires at least one argument".to_owned()),
    }
}

fn volume(flags: &[String], rest: &str) -> Result<Vec<String>, String> {
    let words = list_or_words(rest)?;
    if words.is_empty() {
        return Err("VOLUME requires at least one argument".to_owned());
    }
    Flags::none(flags)?;
    let paths = words.into_iter().map(|word| match word.trim() {
        "" => Err("VOLUME specified can not be an empty string".to_owned()),
        path => Ok(path.to_owned()),
    });
    paths.collect()
}

fn single(name: &str, flags: &[String], rest: String) -> Result<String, String> {
    if rest.is_empty() {
        return Err(format!("{name} requires exactly one argument"));
    }
    Flags::none(flags)?;
    Ok(rest)
}

fn list_or_words(rest: &str) -> Result<Vec<String>, String> {
    Ok(json_list(rest)?.unwrap_or_else(|| blank_separated(rest)))
}

fn blank_separated(rest: &str) -> Vec<String> {
    let words = rest.split(is_blank).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}
