//! The daemon's own log: to standard error, as text or JSON, its level changeable by a reload.

use anyhow::bail;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use super::settings::Settings;

/// Changes the level later.
pub(crate) struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// Takes over the level of new settings.
    pub(crate) fn set(&self, settings: &Settings) -> anyhow::Result<()> {
        self.0.reload(level(settings)?)?;
        Ok(())
    }
}

/// Starts logging.
pub(crate) fn start(settings: &Settings) -> anyhow::Result<Level> {
    let (filter, handle) = reload::Layer::new(level(settings)?);
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let layer = match settings.text("log-format").as_str() {
        "text" => format.with_ansi(false).boxed(),
        "json" => format.json().boxed(),
        other => bail!("invalid log format: {other}"),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .init();
    Ok(Level(handle))
}

fn level(settings: &Settings) -> anyhow::Result<LevelFilter> {
    if settings.bool("debug") {
        return Ok(LevelFilter::DEBUG);
    }
    Ok(
        match settings.text("log-level").to_ascii_lowercase().as_str() {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" => LevelFilter::WARN,
            "error" | "fatal" | "panic" => LevelFilter::ERROR,
            other => bail!("invalid logging level: {other}"),
        },
    )
}
