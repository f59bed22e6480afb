//! Execs: create, start, resize, inspect.

use bollard_stubs::models as m;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use serde_json::json;
use skep_engine::{Attach, EngineError, ExecStart, Frame, StdStream};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::handlers::containers;
use crate::hijack::Hijack;
use crate::reply;
use crate::shape::{self, shaped};
use crate::state::ApiState;

pub(crate) async fn create(mut call: Call<ApiState>) -> ApiResult {
    let mut config: m::ExecConfig = call.json().await?;
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(ApiError::invalid("No exec command specified"));
    }
    if call.version.before(42) {
        config.console_size = None;
    }
    let id = call
        .state
        .engine
        .create_exec(call.param("name"), config)
        .await?;
    Ok(reply::json_with(StatusCode::CREATED, &json!({ "Id": id })))
}

pub(crate) async fn start(mut call: Call<ApiState>) -> ApiResult {
    let config: m::ExecStartConfig = call.json().await?;
    let tty = config.tty.unwrap_or_default();
    let detach = config.detach.unwrap_or_default();
    let console_size =
        console_size(config.console_size.as_deref()).filter(|_| tty && call.version.at_least(42));
    let options = ExecStart {
        detach,
        tty,
        console_size,
    };
    let id = call.param("name").to_owned();
    if detach {
        call.state.engine.start_exec(&id, options).await?;
        return Ok(reply::empty(StatusCode::OK));
    }
    // Docker finds out before it takes over the connection that there is no such exec …
    let engine = call.state.engine.clone();
    engine.inspect_exec(&id).await?;
    let hijack = Hijack::new(&call.headers, &mut call.extensions)?;
    let start = async move {
        match engine.start_exec(&id, options).await {
            Ok(Some(attach)) => attach,
            Ok(None) => nothing(tty),
            // … and all else after: it is printed where the output would be.
            Err(error) => failed(tty, &error),
        }
    };
    Ok(hijack.join_after_head(tty, call.version, start).await)
}

/// A session in which nothing happens.
fn nothing(tty: bool) -> Attach {
    Attach {
        tty,
        input: None,
        output: Box::pin(stream::empty()),
    }
}

/// A session that only says why the process could not be started.
fn failed(tty: bool, error: &EngineError) -> Attach {
    let bytes = Bytes::from(format!("{}\r\n", error.message));
    let frame = Frame {
        stream: StdStream::Stdout,
        bytes,
    };
    Attach {
        tty,
        input: None,
        output: Box::pin(stream::iter([frame])),
    }
}

fn console_size(size: Option<&[usize]>) -> Option<(u16, u16)> {
    match size? {
        [height, width] => Some((u16::try_from(*height).ok()?, u16::try_from(*width).ok()?)),
        _ => None,
    }
}

pub(crate) async fn resize(call: Call<ApiState>) -> ApiResult {
    let (height, width) = containers::size(&call)?;
    call.state
        .engine
        .resize_exec(call.param("name"), height, width)
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    let exec = call.state.engine.inspect_exec(call.param("id")).await?;
    Ok(reply::json(&shaped(&exec, shape::EXEC)))
}
