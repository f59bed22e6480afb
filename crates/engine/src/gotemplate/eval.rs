//! Walking the tree.

use super::parse::{Command, Node, Operand, Pipeline};
use super::value::Value;
use super::{Functions, MAX_OUTPUT, MAX_STEPS, functions};

pub(super) fn run(
    nodes: &[Node],
    data: &Value,
    functions: &dyn Functions,
) -> Result<String, String> {
    let mut walk = Walk {
        functions,
        variables: vec![(String::new(), data.clone())],
        output: String::new(),
        steps: 0,
    };
    walk.list(nodes, data)?;
    Ok(walk.output)
}

struct Walk<'a> {
    functions: &'a dyn Functions,
    /// Innermost last; `$` is the first.
    variables: Vec<(String, Value)>,
    output: String,
    steps: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Walk<'_> {
    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            self.steps += 1;
            if self.steps > MAX_STEPS || self.output.len() > MAX_OUTPUT {
                return Err("template does too much".to_owned());
            }
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.output.push_str(&value.print());
                }
            }
            Node::If(condition, then, otherwise) => {
                return self.branch(condition, then, otherwise, dot, false);
            }
            Node::With(condition, then, otherwise) => {
                return self.branch(condition, then, otherwise, dot, true);
            }
            Node::Range(over, each, otherwise) => return self.range(over, each, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn branch(
        &mut self,
        condition: &Pipeline,
        then: &[Node],
        otherwise: &[Node],
        dot: &Value,
        moves_dot: bool,
    ) -> Result<Flow, String> {
        let scope = self.variables.len();
        let value = self.pipeline(condition, dot)?;
        let flow = if value.is_true() {
            self.list(then, if moves_dot { &value } else { dot })
        } else {
            self.list(otherwise, dot)
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(
        &mut self,
        over: &Pipeline,
        each: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, String> {
        let scope = self.variables.len();
        let items: Vec<(Value, Value)> = match self.commands(over, dot)? {
            Value::Map(map) => map.into_iter().map(|(k, v)| (Value::Text(k), v)).collect(),
            Value::Nil => Vec::new(),
            other => return Err(format!("range can't iterate over {}", other.print())),
        };
        if items.is_empty() {
            return self.list(otherwise, dot);
        }
        for (key, value) in items {
            match over.variables.as_slice() {
                [one] => self.variables.push((one.clone(), value.clone())),
                [first, second] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), value.clone()));
                }
                _ => {}
            }
            let flow = self.list(each, &value)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            if pipeline.declares {
                self.variables.push((name.clone(), value.clone()));
            } else {
                let known = self.variables.iter_mut().rev().find(|(n, _)| n == name);
                let known = known.ok_or_else(|| format!("undefined variable \"${name}\""))?;
                known.1 = value.clone();
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(
        &mut self,
        command: &Command,
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        let Some((first, arguments)) = command.split_first() else {
            return Err("empty command".to_owned());
        };
        let Operand::Function(name) = first else {
            if piped.is_some() || !arguments.is_empty() {
                return Err("can't give argument to non-function".to_owned());
            }
            return self.operand(first, dot);
        };
        if let "and" | "or" = name.as_str() {
            return self.shortcut(name == "and", arguments, piped, dot);
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(argument, dot)?);
        }
        values.extend(piped);
        let value = if self.functions.has(name) {
            self.functions.call(name, &values)
        } else {
            functions::call(name, &values)
        };
        value.map_err(|error| format!("error calling {name}: {error}"))
    }

    /// The first that decides; what follows it is not evaluated.
    fn shortcut(
        &mut self,
        all: bool,
        arguments: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        let mut last = None;
        for argument in arguments {
            let value = self.operand(argument, dot)?;
            if value.is_true() != all {
                return Ok(value);
            }
            last = Some(value);
        }
        piped
            .or(last)
            .ok_or_else(|| "wrong number of args: want at least 1 got 0".to_owned())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let (value, path) = match operand {
            Operand::Field(path) => (dot.clone(), path.as_slice()),
            Operand::Variable(name, path) => {
                let known = self.variables.iter().rev().find(|(n, _)| n == name);
                let known = known.ok_or_else(|| format!("undefined variable \"${name}\""))?;
                (known.1.clone(), path.as_slice())
            }
            Operand::Group(pipeline, path) => (self.pipeline(pipeline, dot)?, path.as_slice()),
            Operand::Literal(text) => (Value::Text(text.clone()), &[][..]),
            Operand::Number(number) => (Value::Int(*number), &[][..]),
            Operand::Bool(value) => (Value::Bool(*value), &[][..]),
            Operand::Nil => (Value::Nil, &[][..]),
            Operand::Function(_) => (self.command(&vec![operand.clone()], None, dot)?, &[][..]),
        };
        path.iter().try_fold(value, |value, name| value.field(name))
    }
}
