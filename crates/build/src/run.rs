//! `RUN`: a container of the engine that lives for one command.

use std::sync::Arc;

use bollard_stubs::models as m;
use futures::StreamExt as _;
use skep_engine::{AttachOptions, CreateRequest, Engine, RemoveOptions, StdStream, WaitCondition};
use skep_image::Image;

use crate::error::BuildError;
use crate::message::{Message, Output, cancelled};

/// The container of a step. What the request leaves open comes from the image.
pub(crate) fn request(
    image: &Image,
    words: &[String],
    args: Vec<(String, String)>,
    host: &m::HostConfig,
) -> CreateRequest {
    let args = args
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"));
    CreateRequest {
        config: m::ContainerConfig {
            image: Some(image.id().to_string()),
            cmd: Some(words.to_vec()),
            // "None, not even the image's".
            entrypoint: Some(vec![String::new()]),
            env: Some(args.collect()),
            healthcheck: Some(m::HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..m::HealthConfig::default()
            }),
            ..m::ContainerConfig::default()
        },
        host_config: m::HostConfig {
            log_config: Some(m::HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ..host.clone()
        },
        ..CreateRequest::default()
    }
}

/// Runs it to its end and returns its id, which is put into `containers` as soon as there is one.
pub(crate) async fn run(
    engine: &Arc<Engine>,
    output: &Output,
    request: CreateRequest,
    containers: &mut Vec<String>,
    words: &[String],
) -> Result<String, BuildError> {
    let created = engine.create_container(None, request).await?;
    let id = created.id;
    containers.push(id.clone());
    for warning in created.warnings {
        output.line(format!(" ---> [Warning] {warning}")).await?;
    }
    output
        .line(format!(" ---> Running in {}", short(&id)))
        .await?;
    let followed = tokio::select! {
        biased;
        () = output.closed() => Err(cancelled()),
        followed = follow(engine, output, &id) => followed,
    };
    let code = match followed {
        Ok(code) => code,
        Err(error) => {
            // Whatever the options say: it may still run, and nobody is there to look at it.
            let options = RemoveOptions {
                force: true,
                volumes: true,
                link: false,
            };
            engine.remove_container(&id, options).await?;
            containers.retain(|container| *container != id);
            return Err(error);
        }
    };
    if code == 0 {
        return Ok(id);
    }
    Err(BuildError::Command {
        code,
        message: format!(
            "The command '{}' returned a non-zero code: {code}",
            words.join(" ")
        ),
    })
}

async fn follow(engine: &Arc<Engine>, output: &Output, id: &str) -> Result<i64, BuildError> {
    let options = AttachOptions {
        stdout: true,
        stderr: true,
        stream: true,
        ..AttachOptions::default()
    };
    let mut attached = engine.attach_container(id, options).await?;
    let ended = engine.wait_container(id, WaitCondition::NextExit).await?;
    engine.start_container(id).await?;
    while let Some(frame) = attached.output.next().await {
        let text = String::from_utf8_lossy(&frame.bytes).into_owned();
        output
            .send(match frame.stream {
                StdStream::Stdout => Message::Stream(text),
                StdStream::Stderr => Message::Errors(text),
            })
            .await?;
    }
    Ok(ended.await?.status_code)
}

/// Removes a step's containers and says so.
pub(crate) async fn remove(
    engine: &Arc<Engine>,
    output: &Output,
    containers: Vec<String>,
) -> Result<(), BuildError> {
    for id in containers {
        let options = RemoveOptions {
            force: true,
            volumes: true,
            link: false,
        };
        let text = match engine.remove_container(&id, options).await {
            Ok(()) => format!(" ---> Removed intermediate container {}", short(&id)),
            Err(error) if error.kind == skep_engine::ErrorKind::NotFound => continue,
            Err(error) => format!("Removing intermediate container {}: {error}", short(&id)),
        };
        output.line(text).await?;
    }
    Ok(())
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

pub(crate) fn random_id() -> String {
    skep_engine::random_id()
}
