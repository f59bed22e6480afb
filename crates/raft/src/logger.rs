//! The `raft` crate logs through slog; here its records go to tracing, one level quieter, because a
//! lost peer or an election is not news at INFO.

use slog::{Drain, KV as _, Key, Level, OwnedKVList, Record, Serializer};
use std::fmt::{self, Write as _};

pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(TracingDrain, slog::o!())
}

struct TracingDrain;

impl Drain for TracingDrain {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::warn!(detail = %detail(record, values), "raft: {}", record.msg());
            }
            Level::Warning | Level::Info if tracing::enabled!(tracing::Level::DEBUG) => {
                tracing::debug!(detail = %detail(record, values), "raft: {}", record.msg());
            }
            _ if tracing::enabled!(tracing::Level::TRACE) => {
                tracing::trace!(detail = %detail(record, values), "raft: {}", record.msg());
            }
            _ => {}
        }
        Ok(())
    }
}

fn detail(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut text = Text(String::new());
    // Writing to a string cannot fail, and a value that refuses to be printed is only left out.
    let _ = record.kv().serialize(record, &mut text);
    let _ = values.serialize(record, &mut text);
    text.0
}

struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        let separator = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{separator}{key}={value}")?;
        Ok(())
    }
}
