//! Logs, attach and stats.

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use skep_engine::{AttachOptions, LogOptions, LogStream, StdStream};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::hijack::{self, Hijack};
use crate::query::Query;
use crate::state::ApiState;
use crate::stdcopy::{self, Channel};
use crate::timestamp;
use crate::{reply, shape};

/// The options of `GET …/logs`, checked before anything is sent.
pub(crate) fn log_options(query: &Query) -> ApiResult<LogOptions> {
    let (stdout, stderr) = (query.bool("stdout"), query.bool("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid(
            "must specify at least one of 'stdout' or 'stderr'",
        ));
    }
    let until = if query.get("until") == "0" {
        None
    } else {
        timestamp::parameter(query, "until", true)?
    };
    Ok(LogOptions {
        stdout,
        stderr,
        follow: query.bool("follow"),
        since: timestamp::parameter(query, "since", true)?,
        until,
        timestamps: query.bool("timestamps"),
        details: query.bool("details"),
        // "all", nothing and nonsense alike mean all.
        tail: query.get("tail").parse().ok(),
    })
}

pub(crate) async fn logs(call: Call<ApiState>) -> ApiResult {
    let options = log_options(&call.query)?;
    let LogStream { tty, frames } = call
        .state
        .engine
        .logs_container(call.param("name"), options)
        .await?;
    let body = frames.map(move |frame| match frame {
        Ok(frame) => stdcopy::encode(tty, channel(frame.stream), frame.bytes),
        Err(error) => log_error(tty, &error.message),
    });
    let body = body.take_until(call.shutdown());
    Ok(reply::stream(hijack::stream_type(tty, call.version), body))
}

/// An error in the middle of a log, where no status can tell it any more.
pub(crate) fn log_error(tty: bool, message: &str) -> Bytes {
    stdcopy::encode(
        tty,
        Channel::System,
        format!("Error grabbing logs: {message}\n").into(),
    )
}

pub(crate) const fn channel(stream: StdStream) -> Channel {
    match stream {
        StdStream::Stdout => Channel::Stdout,
        StdStream::Stderr => Channel::Stderr,
    }
}

pub(crate) async fn attach(mut call: Call<ApiState>) -> ApiResult {
    let hijack = Hijack::new(&call.headers, &mut call.extensions)?;
    let query = &call.query;
    let options = AttachOptions {
        stdin: query.bool("stdin"),
        stdout: query.bool("stdout"),
        stderr: query.bool("stderr"),
        stream: query.bool("stream"),
        logs: query.bool("logs"),
        detach_keys: query.some("detachKeys"),
    };
    let attach = call
        .state
        .engine
        .attach_container(call.param("name"), options)
        .await?;
    Ok(hijack.join(attach, call.version).await)
}

pub(crate) async fn stats(call: Call<ApiState>) -> ApiResult {
    let stream = call.query.bool_or("stream", true);
    let one_shot = call.version.at_least(41) && call.query.bool("one-shot");
    let mut stats = call
        .state
        .engine
        .stats_container(call.param("name"), stream, one_shot)
        .await?;
    if !stream {
        return match stats.next().await {
            Some(Ok(sample)) => Ok(reply::json(&shape::shaped(&sample, shape::STATS))),
            Some(Err(error)) => Err(error.into()),
            None => Ok(reply::empty(StatusCode::OK)),
        };
    }
    let lines = stats
        .take_while(|sample| std::future::ready(sample.is_ok()))
        .filter_map(|sample| std::future::ready(sample.ok()))
        .map(|sample| reply::json_line(&shape::shaped(&sample, shape::STATS)))
        .take_until(call.shutdown());
    Ok(reply::stream(reply::JSON, lines))
}

#[cfg(test)]
mod tests {
    use skep_engine::UnixNanos;

    use super::*;

    fn options(query: &str) -> ApiResult<LogOptions> {
        log_options(&Query::parse(Some(query)).unwrap())
    }

    #[test]
    fn a_log_needs_a_stream() {
        let error = options("follow=1").unwrap_err();
        assert_eq!(
            error.message,
            "must specify at least one of 'stdout' or 'stderr'"
        );
    }

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!(options("stdout=1&tail=10").unwrap().tail, Some(10));
        assert_eq!(options("stdout=1&tail=all").unwrap().tail, None);
        assert_eq!(options("stdout=1&tail=-1").unwrap().tail, None);
        assert_eq!(options("stdout=1&tail=0").unwrap().tail, Some(0));
    }

    #[test]
    fn until_zero_is_no_limit_and_since_zero_is_the_epoch() {
        let options = options("stderr=1&since=0&until=0").unwrap();
        assert_eq!((options.since, options.until), (Some(UnixNanos(0)), None));
    }
}
