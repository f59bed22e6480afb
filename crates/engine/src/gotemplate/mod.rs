//! Go's `text/template`, as far as swarm specs, secrets and configs use it: fields, pipelines,
//! variables, `if`, `range`, `with`, trimming, comments and the common functions. A missing map key
//! is an error, as SwarmKit sets it. There are no named templates and no methods.

mod eval;
mod functions;
mod lex;
mod parse;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use value::Value;

/// A template is data from users; nothing it does may take long or much memory.
const MAX_OUTPUT: usize = 4 << 20;
const MAX_STEPS: usize = 1_000_000;
const MAX_DEPTH: usize = 100;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("template: expansion: {0}")]
    Parse(String),
    #[error("template: expansion: {0}")]
    Execute(String),
}

/// Functions beyond the common ones; `None` for a name it does not know.
pub(crate) trait Functions {
    fn has(&self, name: &str) -> bool;
    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String>;
}

/// Only the common functions.
pub(crate) struct NoFunctions;

impl Functions for NoFunctions {
    fn has(&self, _name: &str) -> bool {
        false
    }

    fn call(&self, name: &str, _arguments: &[Value]) -> Result<Value, String> {
        Err(format!("function \"{name}\" not defined"))
    }
}

/// Evaluates `text` on `data`.
pub(crate) fn expand(
    text: &str,
    data: &Value,
    functions: &dyn Functions,
) -> Result<String, TemplateError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let tokens = lex::lex(text).map_err(TemplateError::Parse)?;
    let nodes = parse::parse(tokens, functions).map_err(TemplateError::Parse)?;
    eval::run(&nodes, data, functions).map_err(TemplateError::Execute)
}
