//! The event bus: what happened, to whoever listens, and the recent past for who comes late.
//!
//! The ring and the broadcast sender are under one lock, so that a subscriber gets past and
//! future events without a gap or a duplicate between them.

use std::collections::{HashMap, VecDeque};

use bollard_stubs::models as m;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::error::Result;
use crate::filters::Filters;
use crate::time::UnixNanos;

/// How many past events are kept; dockerd keeps 256.
const HISTORY: usize = 1024;

/// The filter keys of `docker events`.
const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Docker's events: published by the engine and by the swarm, read by `docker events`.
pub struct EventBus {
    inner: Mutex<Inner>,
}

struct Inner {
    past: VecDeque<m::EventMessage>,
    live: broadcast::Sender<m::EventMessage>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                past: VecDeque::with_capacity(HISTORY),
                live: broadcast::channel(4096).0,
            }),
        }
    }
}

impl EventBus {
    /// Publishes an event; its times are set here unless they are given.
    pub fn publish(&self, mut event: m::EventMessage) {
        let now = UnixNanos::now();
        event.time.get_or_insert(now.seconds());
        event.time_nano.get_or_insert(now.0);
        event.scope.get_or_insert(m::EventMessageScopeEnum::LOCAL);
        let mut inner = self.inner.lock();
        if inner.past.len() == HISTORY {
            inner.past.pop_front();
        }
        inner.past.push_back(event.clone());
        // No receiver is no error.
        let _ = inner.live.send(event);
    }

    /// Publishes one of this node's own events.
    pub fn publish_local(
        &self,
        typ: m::EventMessageTypeEnum,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: HashMap<String, String>,
    ) {
        self.publish(m::EventMessage {
            typ: Some(typ),
            action: Some(action.into()),
            actor: Some(m::EventActor {
                id: Some(id.into()),
                attributes: Some(attributes),
            }),
            ..m::EventMessage::default()
        });
    }

    /// Past events from `since` on (none without it), then live ones up to `until` (for ever
    /// without it). Registered when this returns.
    pub fn subscribe(
        &self,
        since: Option<UnixNanos>,
        until: Option<UnixNanos>,
        filters: Filters,
    ) -> Result<BoxStream<'static, m::EventMessage>> {
        filters.check(FILTERS)?;
        let (past, live) = {
            let inner = self.inner.lock();
            let past: Vec<_> = match (since, until) {
                (None, None) => Vec::new(),
                // As in Docker, `until` alone looks at the whole past.
                _ => inner
                    .past
                    .iter()
                    .filter(|event| in_range(event, since, until))
                    .cloned()
                    .collect(),
            };
            (past, inner.live.subscribe())
        };
        let live = futures::stream::unfold(live, |mut live| async move {
            loop {
                match live.recv().await {
                    Ok(event) => return Some((event, live)),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "an event listener was too slow and missed events");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let live: BoxStream<'static, m::EventMessage> = match until {
            Some(until) => {
                let left = until.since(UnixNanos::now());
                Box::pin(live.take_until(tokio::time::sleep(left)))
            }
            None => Box::pin(live),
        };
        let all = futures::stream::iter(past).chain(live);
        Ok(Box::pin(all.filter(move |event| {
            futures::future::ready(matches(event, &filters))
        })))
    }

    /// How many listen now, for `docker info`.
    pub fn listeners(&self) -> usize {
        self.inner.lock().live.receiver_count()
    }
}

fn in_range(event: &m::EventMessage, since: Option<UnixNanos>, until: Option<UnixNanos>) -> bool {
    let at = UnixNanos(event.time_nano.unwrap_or_default());
    since.is_none_or(|since| at >= since) && until.is_none_or(|until| at <= until)
}

fn matches(event: &m::EventMessage, filters: &Filters) -> bool {
    use m::EventMessageTypeEnum as Type;

    let typ = event.typ.map_or_else(String::new, |typ| typ.to_string());
    let empty = HashMap::new();
    let id = event
        .actor
        .as_ref()
        .and_then(|actor| actor.id.as_deref())
        .unwrap_or_default();
    let attributes = event
        .actor
        .as_ref()
        .and_then(|actor| actor.attributes.as_ref())
        .unwrap_or(&empty);
    let name = attributes.get("name").map_or("", String::as_str);
    let scope = event
        .scope
        .map_or_else(String::new, |scope| scope.to_string());

    // A container's id may be shortened; other objects go by exact id or name.
    let object = |key: &str, wanted: Type| {
        !filters.contains(key)
            || (event.typ == Some(wanted)
                && filters.any(key, |value| {
                    value == id
                        || value == name
                        || (wanted == Type::CONTAINER && id.starts_with(value))
                }))
    };
    let image = || {
        let source = if event.typ == Some(Type::IMAGE) {
            name
        } else {
            attributes.get("image").map_or("", String::as_str)
        };
        filters.any("image", |value| {
            value == id || value == source || strip_tag(source) == value
        })
    };
    filters.any("event", |wanted| {
        action_matches(event.action.as_deref().unwrap_or_default(), wanted)
    }) && filters.exact("type", &typ)
        && filters.exact("scope", &scope)
        && filters.labels("label", attributes)
        && object("container", Type::CONTAINER)
        && object("daemon", Type::DAEMON)
        && object("plugin", Type::PLUGIN)
        && object("volume", Type::VOLUME)
        && object("network", Type::NETWORK)
        && object("node", Type::NODE)
        && object("service", Type::SERVICE)
        && object("secret", Type::SECRET)
        && object("config", Type::CONFIG)
        && image()
}

/// `exec_create: sh -c x` is found by `exec_create`, `health_status: healthy` by `health_status`.
fn action_matches(action: &str, wanted: &str) -> bool {
    action == wanted
        || action
            .split_once(':')
            .is_some_and(|(verb, _)| verb == wanted)
}

fn strip_tag(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(typ: m::EventMessageTypeEnum, action: &str, id: &str, name: &str) -> m::EventMessage {
        m::EventMessage {
            typ: Some(typ),
            action: Some(action.to_owned()),
            actor: Some(m::EventActor {
                id: Some(id.to_owned()),
                attributes: Some(HashMap::from([
                    ("name".to_owned(), name.to_owned()),
                    ("image".to_owned(), "busybox:1".to_owned()),
                ])),
            }),
            scope: Some(m::EventMessageScopeEnum::LOCAL),
            ..m::EventMessage::default()
        }
    }

    fn of_web(action: &str) -> m::EventMessage {
        event(m::EventMessageTypeEnum::CONTAINER, action, "a", "web")
    }

    fn found(filter: &str, event: &m::EventMessage) -> bool {
        matches(event, &Filters::from_json(filter).unwrap())
    }

    #[test]
    fn filters_select_by_object_action_and_label() {
        let start = event(m::EventMessageTypeEnum::CONTAINER, "start", "abcdef", "web");
        let exec = event(
            m::EventMessageTypeEnum::CONTAINER,
            "exec_create: sh",
            "abcdef",
            "web",
        );
        assert!(found(r#"{"container":["web"]}"#, &start));
        assert!(found(r#"{"container":["abc"]}"#, &start));
        assert!(!found(r#"{"container":["db"]}"#, &start));
        assert!(!found(r#"{"network":["web"]}"#, &start));
        assert!(found(r#"{"event":["exec_create"]}"#, &exec));
        assert!(!found(r#"{"event":["exec_start"]}"#, &exec));
        assert!(found(r#"{"image":["busybox"]}"#, &start));
        assert!(found(
            r#"{"label":["image=busybox:1"],"type":["container"]}"#,
            &start
        ));
        assert!(!found(r#"{"scope":["swarm"]}"#, &start));
    }

    #[tokio::test]
    async fn the_past_and_the_future_join_without_gap() {
        let bus = EventBus::default();
        bus.publish(of_web("create"));
        let mut stream = bus
            .subscribe(Some(UnixNanos(1)), None, Filters::default())
            .unwrap();
        bus.publish(of_web("start"));
        assert_eq!(
            stream.next().await.unwrap().action.as_deref(),
            Some("create")
        );
        assert_eq!(
            stream.next().await.unwrap().action.as_deref(),
            Some("start")
        );
    }

    #[tokio::test]
    async fn a_past_until_ends_the_stream() {
        let bus = EventBus::default();
        bus.publish(of_web("create"));
        let until = UnixNanos::now();
        let all: Vec<_> = bus
            .subscribe(None, Some(until), Filters::default())
            .unwrap()
            .collect()
            .await;
        assert_eq!(all.len(), 1);
    }
}
