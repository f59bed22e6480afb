//! From words to a tree.

use std::iter::Peekable;
use std::vec::IntoIter;

use super::lex::Token;
use super::{Functions, MAX_DEPTH, functions};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pipeline {
    /// Variables that get the value; two in a `range`: key and value.
    pub(super) variables: Vec<String>,
    /// `:=` rather than `=`.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or a value with what follows it.
pub(super) type Command = Vec<Operand>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Literal(String),
    Number(i64),
    Bool(bool),
    Nil,
    Function(String),
    /// In parentheses, with the fields that follow.
    Group(Box<Pipeline>, Vec<String>),
}

pub(super) fn parse(tokens: Vec<Token>, functions: &dyn Functions) -> Result<Vec<Node>, String> {
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        functions,
        depth: 0,
    };
    let (nodes, end) = parser.list()?;
    match end {
        End::Input => Ok(nodes),
        End::Block => Err("unexpected {{end}}".to_owned()),
        End::Else(_) => Err("unexpected {{else}}".to_owned()),
    }
}

struct Parser<'a> {
    tokens: Peekable<IntoIter<Token>>,
    functions: &'a dyn Functions,
    depth: usize,
}

/// What a list of nodes ended with.
enum End {
    Input,
    Block,
    /// With the condition of an `else if` or `else with`.
    Else(Option<(String, Pipeline)>),
}

impl Parser<'_> {
    fn list(&mut self) -> Result<(Vec<Node>, End), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("nested too deeply".to_owned());
        }
        let mut nodes = Vec::new();
        let end = loop {
            match self.tokens.next() {
                None => break End::Input,
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => {
                    if let Some(end) = self.action(&mut nodes)? {
                        break end;
                    }
                }
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    /// One action after its opening braces.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<Option<End>, String> {
        let word = match self.tokens.peek() {
            Some(Token::Word(word)) => word.clone(),
            _ => String::new(),
        };
        match word.as_str() {
            "if" | "with" | "range" => {
                self.tokens.next();
                let pipeline = self.pipeline(word == "range")?;
                self.close()?;
                nodes.push(self.block(&word, pipeline)?);
            }
            "end" => {
                self.tokens.next();
                self.close()?;
                return Ok(Some(End::Block));
            }
            "else" => {
                self.tokens.next();
                let condition = match self.tokens.peek() {
                    Some(Token::Word(word)) => {
                        let word = word.clone();
                        self.tokens.next();
                        Some((word, self.pipeline(false)?))
                    }
                    _ => None,
                };
                self.close()?;
                return Ok(Some(End::Else(condition)));
            }
            "break" | "continue" => {
                self.tokens.next();
                self.close()?;
                let node = if word == "break" {
                    Node::Break
                } else {
                    Node::Continue
                };
                nodes.push(node);
            }
            "define" | "template" | "block" => {
                return Err(format!("{{{{{word}}}}} is not supported"));
            }
            _ => {
                let pipeline = self.pipeline(false)?;
                self.close()?;
                nodes.push(Node::Action(pipeline));
            }
        }
        Ok(None)
    }

    fn block(&mut self, word: &str, pipeline: Pipeline) -> Result<Node, String> {
        let (then, end) = self.list()?;
        let otherwise = match end {
            End::Input => return Err("unexpected EOF".to_owned()),
            End::Block => Vec::new(),
            End::Else(Some((next, condition))) if next == word && word != "range" => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err("nested too deeply".to_owned());
                }
                let nested = self.block(word, condition)?;
                self.depth -= 1;
                vec![nested]
            }
            End::Else(Some((next, _))) => return Err(format!("unexpected <{next}> in else")),
            End::Else(None) => match self.list()? {
                (nodes, End::Block) => nodes,
                (_, End::Input) => return Err("unexpected EOF".to_owned()),
                (_, End::Else(_)) => return Err("expected end; found {{else}}".to_owned()),
            },
        };
        Ok(match word {
            "if" => Node::If(pipeline, then, otherwise),
            "with" => Node::With(pipeline, then, otherwise),
            _ => Node::Range(pipeline, then, otherwise),
        })
    }

    fn close(&mut self) -> Result<(), String> {
        match self.tokens.next() {
            Some(Token::Close) => Ok(()),
            other => Err(format!(
                "unexpected {} in command",
                describe(other.as_ref())
            )),
        }
    }

    fn pipeline(&mut self, in_range: bool) -> Result<Pipeline, String> {
        let mut pipeline = Pipeline::default();
        self.variables(&mut pipeline, in_range)?;
        loop {
            let command = self.command()?;
            if command.is_empty() {
                return Err("missing value for command".to_owned());
            }
            pipeline.commands.push(command);
            if self.tokens.next_if_eq(&Token::Pipe).is_none() {
                return Ok(pipeline);
            }
        }
    }

    /// `$x :=`, `$x =`, `$k, $v :=`. A variable that nothing is assigned to is a value.
    fn variables(&mut self, pipeline: &mut Pipeline, in_range: bool) -> Result<(), String> {
        let mut ahead = self.tokens.clone();
        let mut names = Vec::new();
        while let Some(Token::Variable(name, path)) = ahead.next() {
            if !path.is_empty() {
                return Ok(());
            }
            names.push(name);
            match ahead.next() {
                Some(Token::Comma) if in_range && names.len() == 1 => {}
                Some(token @ (Token::Declare | Token::Assign)) => {
                    pipeline.variables = names;
                    pipeline.declares = token == Token::Declare;
                    self.tokens = ahead;
                    return Ok(());
                }
                Some(Token::Comma) => return Err("too many declarations in command".to_owned()),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut command = Vec::new();
        while let Some(token) = self
            .tokens
            .next_if(|token| !matches!(token, Token::Close | Token::Pipe | Token::Right))
        {
            command.push(self.operand(token)?);
        }
        Ok(command)
    }

    fn operand(&mut self, token: Token) -> Result<Operand, String> {
        Ok(match token {
            Token::Field(path) => Operand::Field(path),
            Token::Variable(name, path) => Operand::Variable(name, path),
            Token::Literal(text) => Operand::Literal(text),
            Token::Number(number) => Operand::Number(number),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                _ if functions::is_common(&word) || self.functions.has(&word) => {
                    Operand::Function(word)
                }
                _ => return Err(format!("function {word:?} not defined")),
            },
            Token::Left => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err("nested too deeply".to_owned());
                }
                let inner = self.pipeline(false)?;
                self.depth -= 1;
                if self.tokens.next_if_eq(&Token::Right).is_none() {
                    return Err("unclosed left paren".to_owned());
                }
                let path = match self.tokens.peek() {
                    Some(Token::Field(path)) if !path.is_empty() => path.clone(),
                    _ => Vec::new(),
                };
                if !path.is_empty() {
                    self.tokens.next();
                }
                Operand::Group(Box::new(inner), path)
            }
            other => return Err(format!("unexpected {} in operand", describe(Some(&other)))),
        })
    }
}

fn describe(token: Option<&Token>) -> String {
    match token {
        None => "EOF".to_owned(),
        Some(Token::Close) => "\"}}\"".to_owned(),
        Some(Token::Right) => "right paren".to_owned(),
        Some(Token::Declare) => "\":=\"".to_owned(),
        Some(Token::Assign) => "\"=\"".to_owned(),
        Some(Token::Comma) => "\",\"".to_owned(),
        Some(Token::Pipe) => "\"|\"".to_owned(),
        Some(other) => format!("{other:?}"),
    }
}
