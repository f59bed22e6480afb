//! What this node is and has, as the managers schedule by it.

use skep_proto as proto;

use crate::SERVER_VERSION;
use crate::engine::Engine;

pub(super) fn describe(engine: &Engine) -> proto::NodeDescription {
    let facts = &engine.facts;
    let plugins = [
        ("Log", "json-file"),
        ("Log", "none"),
        ("Network", "bridge"),
        ("Network", "host"),
        ("Network", "null"),
        ("Network", "overlay"),
        ("Volume", "local"),
    ];
    let labels = engine.reloadable().labels;
    let labels = labels.iter().map(|label| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    });
    proto::NodeDescription {
        hostname: engine.host_name(),
        platform: Some(proto::Platform {
            architecture: facts.architecture.clone(),
            os: "linux".to_owned(),
        }),
        resources: Some(proto::Resources {
            nano_cpus: facts.cpus * 1_000_000_000,
            memory_bytes: facts.memory_total,
            generic: engine.config.generic_resources.clone(),
        }),
        engine: Some(proto::EngineDescription {
            engine_version: SERVER_VERSION.to_owned(),
            labels: labels.collect(),
            plugins: plugins
                .iter()
                .map(|(typ, name)| proto::PluginDescription {
                    r#type: (*typ).to_owned(),
                    name: (*name).to_owned(),
                })
                .collect(),
        }),
        ..proto::NodeDescription::default()
    }
}
