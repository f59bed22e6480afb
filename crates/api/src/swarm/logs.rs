//! The logs of services and tasks: one stream of the lines of many containers.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use skep_engine::{LogOptions, UnixNanos};
use skep_proto::{self as p, task_spec};

use super::control::{self, Control};
use super::lookup;
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::handlers::streams;
use crate::query::Query;
use crate::state::ApiState;
use crate::stdcopy::{self, Channel};
use crate::{hijack, reply};

const NODE: &str = "com.docker.swarm.node.id";
const SERVICE: &str = "com.docker.swarm.service.id";
const TASK: &str = "com.docker.swarm.task.id";

pub(crate) async fn service(call: Call<ApiState>) -> ApiResult {
    let options = streams::log_options(&call.query)?;
    let control = Control::of(&call.state)?;
    let service = lookup::service(&control, call.param("id"))?;
    let tty = uses_tty(service.spec.as_ref().and_then(|spec| spec.task.as_ref()))?;
    let selector = p::LogSelector {
        service_ids: vec![service.id],
        ..Default::default()
    };
    answer(call, selector, options, tty).await
}

pub(crate) async fn task(call: Call<ApiState>) -> ApiResult {
    let options = streams::log_options(&call.query)?;
    let control = Control::of(&call.state)?;
    let task = lookup::task(&control, call.param("id"))?;
    let tty = uses_tty(task.spec.as_ref())?;
    let selector = p::LogSelector {
        task_ids: vec![task.id],
        ..Default::default()
    };
    answer(call, selector, options, tty).await
}

fn uses_tty(spec: Option<&p::TaskSpec>) -> ApiResult<bool> {
    match spec.and_then(|spec| spec.runtime.as_ref()) {
        Some(task_spec::Runtime::Container(container)) => Ok(container.tty),
        _ => Err(ApiError::internal(
            "error making log selector: logs only supported on container tasks",
        )),
    }
}

async fn answer(
    call: Call<ApiState>,
    selector: p::LogSelector,
    options: LogOptions,
    tty: bool,
) -> ApiResult {
    let request = p::SubscribeLogsRequest {
        selector: Some(selector),
        options: Some(subscription(&call.query, &options)?),
    };
    let messages = control::subscribe_logs(&call.state, request).await?;
    let lines = render(messages, options, tty).take_until(call.shutdown());
    Ok(reply::stream(hijack::stream_type(tty, call.version), lines))
}

/// SwarmKit counts the tail backwards from -1, which is "nothing"; 0 is everything.
fn subscription(query: &Query, options: &LogOptions) -> ApiResult<p::LogSubscriptionOptions> {
    let tail = match query.get("tail") {
        "" | "all" => 0,
        text => match text.parse::<i64>() {
            Ok(lines) if lines >= 0 => -(lines + 1),
            Ok(_) => return Err(ApiError::internal("negative tail values not supported")),
            Err(_) => {
                return Err(ApiError::internal(
                    "tail value must be a positive integer or \"all\"",
                ));
            }
        },
    };
    let mut streams = Vec::new();
    if options.stdout {
        streams.push(p::LogStream::Stdout.into());
    }
    if options.stderr {
        streams.push(p::LogStream::Stderr.into());
    }
    let since = options.since.map(|since| prost_types::Timestamp {
        seconds: since.0.div_euclid(1_000_000_000),
        nanos: since.0.rem_euclid(1_000_000_000) as i32,
    });
    Ok(p::LogSubscriptionOptions {
        streams,
        follow: options.follow,
        tail,
        since,
    })
}

fn render(
    messages: impl Stream<Item = Result<p::SubscribeLogsMessage, ApiError>> + Send + 'static,
    options: LogOptions,
    tty: bool,
) -> impl Stream<Item = Bytes> + Send + 'static {
    messages.flat_map(move |message| {
        let lines = match message {
            Ok(message) => message
                .messages
                .iter()
                .filter_map(|line| encode(line, &options, tty))
                .collect(),
            Err(error) => vec![streams::log_error(tty, &error.message)],
        };
        stream::iter(lines)
    })
}

fn encode(message: &p::LogMessage, options: &LogOptions, tty: bool) -> Option<Bytes> {
    let channel = match message.stream() {
        p::LogStream::Stdout if options.stdout => Channel::Stdout,
        p::LogStream::Stderr if options.stderr => Channel::Stderr,
        _ => return None,
    };
    let mut line = Vec::with_capacity(message.data.len() + 160);
    if options.timestamps {
        let time = message.timestamp.unwrap_or_default();
        let nanos = time
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(time.nanos));
        line.extend_from_slice(UnixNanos(nanos).rfc3339_fixed().as_bytes());
        line.push(b' ');
    }
    if options.details {
        line.extend_from_slice(details(message).as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(&message.data);
    Some(stdcopy::encode(tty, channel, line.into()))
}

/// `key=value` pairs, sorted; the CLI makes its `name.slot.task@node` prefix from the swarm's own.
fn details(message: &p::LogMessage) -> String {
    let context = message.context.clone().unwrap_or_default();
    let own = [
        (NODE, context.node_id),
        (SERVICE, context.service_id),
        (TASK, context.task_id),
    ];
    let mut pairs: Vec<(String, String)> = own
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    // The context has the last word over a label of the same name.
    pairs.extend(
        message
            .attrs
            .iter()
            .filter(|attr| !matches!(attr.key.as_str(), NODE | SERVICE | TASK))
            .map(|attr| (attr.key.clone(), attr.value.clone())),
    );
    pairs.sort();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect();
    pairs.join(",")
}

/// Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b' ');
    percent_encode(text.as_bytes(), KEPT)
        .to_string()
        .replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> p::LogMessage {
        p::LogMessage {
            context: Some(p::LogContext {
                service_id: "s1".to_owned(),
                node_id: "n1".to_owned(),
                task_id: "t1".to_owned(),
            }),
            timestamp: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 500_000_000,
            }),
            stream: p::LogStream::Stdout.into(),
            data: b"hello\n".to_vec(),
            attrs: vec![
                p::LogAttr {
                    key: "a b".to_owned(),
                    value: "c,d=e".to_owned(),
                },
                p::LogAttr {
                    key: TASK.to_owned(),
                    value: "forged".to_owned(),
                },
            ],
        }
    }

    #[test]
    fn a_line_carries_its_time_and_its_origin_in_front() {
        let options = LogOptions {
            stdout: true,
            timestamps: true,
            details: true,
            ..LogOptions::default()
        };
        let line = encode(&message(), &options, true).unwrap();
        assert_eq!(
            std::str::from_utf8(&line).unwrap(),
            "1970-01-01T00:00:01.500000000Z a+b=c%2Cd%3De,com.docker.swarm.node.id=n1,\
             com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1 hello\n"
        );
    }

    #[test]
    fn lines_of_a_stream_not_asked_for_are_left_out_and_others_framed() {
        let stderr = LogOptions {
            stderr: true,
            ..LogOptions::default()
        };
        assert_eq!(encode(&message(), &stderr, false), None);
        let stdout = LogOptions {
            stdout: true,
            ..LogOptions::default()
        };
        assert_eq!(
            &encode(&message(), &stdout, false).unwrap()[..],
            b"\x01\0\0\0\0\0\0\x06hello\n"
        );
    }

    #[test]
    fn the_tail_is_counted_as_swarmkit_counts_it() {
        let tail = |query: &str| {
            let query = Query::parse(Some(query)).unwrap();
            let options = LogOptions {
                stdout: true,
                ..LogOptions::default()
            };
            subscription(&query, &options)
                .map(|options| options.tail)
                .map_err(|error| error.message)
        };
        assert_eq!(tail(""), Ok(0));
        assert_eq!(tail("tail=all"), Ok(0));
        assert_eq!(tail("tail=0"), Ok(-1));
        assert_eq!(tail("tail=10"), Ok(-11));
        assert_eq!(
            tail("tail=-3"),
            Err("negative tail values not supported".to_owned())
        );
        assert_eq!(
            tail("tail=x"),
            Err("tail value must be a positive integer or \"all\"".to_owned())
        );
    }
}
