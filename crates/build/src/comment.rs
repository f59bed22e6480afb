//! What a step is called in an image's history, and what the cache compares.

use skep_dockerfile::Instruction;
use skep_image::RunConfig;

/// Of instructions that change the configuration only.
pub(crate) fn comment(instruction: &Instruction, config: &RunConfig) -> String {
    let rest = match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            pairs.join(" ")
        }
        Instruction::Arg(args) => {
            let args: Vec<_> = args
                .iter()
                .map(|(name, value)| match value {
                    Some(value) => format!("{name}={value}"),
                    None => name.clone(),
                })
                .collect();
            args.join(" ")
        }
        Instruction::Cmd(command) | Instruction::Entrypoint(command) => {
            quoted(&config.command(command))
        }
        Instruction::Expose(words) => words.join(" "),
        Instruction::Healthcheck(health) => {
            let nanos = |time: Option<i64>| time.unwrap_or(0);
            format!(
                "&{{[{}] {} {} {} {} {}}}",
                health.test.clone().unwrap_or_default().join(" "),
                nanos(health.interval),
                nanos(health.timeout),
                nanos(health.start_period),
                nanos(health.start_interval),
                health.retries.unwrap_or(0),
            )
        }
        Instruction::Shell(words) | Instruction::Volume(words) => format!("[{}]", words.join(" ")),
        Instruction::Maintainer(text)
        | Instruction::OnBuild(text)
        | Instruction::StopSignal(text)
        | Instruction::User(text)
        | Instruction::Workdir(text) => text.clone(),
        Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) => String::new(),
    };
    format!("{} {rest}", instruction.name())
}

/// Go's `%q` of a list.
fn quoted(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// The record of a step that runs nothing.
pub(crate) fn nothing_run(config: &RunConfig, comment: &str) -> RunConfig {
    let mut record = config.clone();
    let mut words = config.shell();
    words.extend(["#(nop) ".to_owned(), comment.to_owned()]);
    record.cmd = Some(words);
    record
}

/// The same for steps that change files, which dockerd words a little differently.
pub(crate) fn files_changed(config: &RunConfig, comment: &str) -> RunConfig {
    let mut record = config.clone();
    let mut words = config.shell();
    words.push(format!("#(nop) {comment}"));
    record.cmd = Some(words);
    record
}

/// What the history says of a record.
pub(crate) fn created_by(record: &RunConfig) -> String {
    record.cmd.clone().unwrap_or_default().join(" ")
}
