use crate::error::ParseError;
use crate::instruction::Instruction;
use crate::lines::{Line, logical_lines};
use crate::parse::{Parsed, parse_line};

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// `\`, or `` ` `` if a directive says so.
    pub escape: char,
    /// `ARG`s before the first `FROM`: all that a `FROM` can use.
    pub meta_args: Vec<Step>,
    pub stages: Vec<Stage>,
    /// What dockerd warns of before it begins.
    pub warnings: Vec<String>,
}

/// From one `FROM` to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub base: String,
    /// In lower case.
    pub name: Option<String>,
    pub platform: Option<String>,
    /// The `FROM` as it was written.
    pub source: String,
    pub steps: Vec<Step>,
}

/// An instruction in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub instruction: Instruction,
    /// As it was written, continued lines joined.
    pub source: String,
    /// Where it begins, counted from 1.
    pub line: usize,
}

impl Dockerfile {
    /// Reads and checks everything that can be checked without variables.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let lines = logical_lines(text)?;
        let mut file = Self {
            escape: lines.escape,
            meta_args: Vec::new(),
            stages: Vec::new(),
            warnings: lines.warnings,
        };
        for line in lines.all {
            file.add(line)?;
        }
        if file.stages.is_empty() {
            return Err(ParseError::new(1, "file with no instructions"));
        }
        Ok(file)
    }

    fn add(&mut self, line: Line) -> Result<(), ParseError> {
        let fail = |reason: String| ParseError::new(line.number, reason);
        let parsed = parse_line(&line.text, &line.heredocs, self.escape).map_err(fail)?;
        let instruction = match parsed {
            Parsed::From(from) => {
                self.stages.push(Stage {
                    base: from.base,
                    name: from.name,
                    platform: from.platform,
                    source: line.text.trim().to_owned(),
                    steps: Vec::new(),
                });
                return Ok(());
            }
            Parsed::Instruction(instruction) => instruction,
        };
        let step = Step {
            instruction,
            source: line.text,
            line: line.number,
        };
        match self.stages.last_mut() {
            Some(stage) => stage.steps.push(step),
            None if matches!(step.instruction, Instruction::Arg(_)) => self.meta_args.push(step),
            None => return Err(fail("no build stage in current context".to_owned())),
        }
        Ok(())
    }

    /// The stage of that name, or with that number.
    pub fn stage(&self, name: &str) -> Option<usize> {
        let lower = name.to_lowercase();
        self.stages
            .iter()
            .position(|stage| stage.name.as_deref() == Some(&lower))
            .or_else(|| name.parse().ok().filter(|index| *index < self.stages.len()))
    }
}

/// Reads instructions without stages: those of `docker commit --change` and `docker import`.
pub fn parse_changes(text: &str) -> Result<Vec<Instruction>, ParseError> {
    let lines = logical_lines(text)?;
    let instructions = lines.all.iter().map(|line| {
        match parse_line(&line.text, &line.heredocs, lines.escape) {
            Ok(Parsed::Instruction(instruction)) => Ok(instruction),
            Ok(Parsed::From(_)) => Err("FROM is not a valid change command".to_owned()),
            Err(reason) => Err(reason),
        }
        .map_err(|reason| ParseError::new(line.number, reason))
    });
    instructions.collect()
}

impl Step {
    /// Reads a trigger that `ONBUILD` kept.
    pub fn trigger(text: &str) -> Result<Self, ParseError> {
        let lines = logical_lines(text)?;
        let [line] = lines.all.as_slice() else {
            return Err(ParseError::new(
                1,
                "onbuild trigger should be a single expression",
            ));
        };
        match parse_line(&line.text, &line.heredocs, lines.escape) {
            Ok(Parsed::Instruction(instruction)) => Ok(Self {
                instruction,
                source: line.text.clone(),
                line: line.number,
            }),
            Ok(Parsed::From(_)) => Err(ParseError::new(
                1,
                "FROM isn't allowed as an ONBUILD trigger",
            )),
            Err(reason) => Err(ParseError::new(line.number, reason)),
        }
    }
}
