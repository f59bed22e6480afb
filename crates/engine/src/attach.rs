//! Attaching to a container's streams.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use skep_runtime::AttachRequest;
use tokio_util::sync::CancellationToken;

use crate::container::{Container, pending_attach};
use crate::detach_keys::{self, Escapable};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::logs::{ReadOptions, read};
use crate::types::{Attach, AttachOptions, Frame, Input, StdStream};

impl Engine {
    /// Attaches to a container, running or not yet. Its output so far, if asked for, comes from
    /// the log.
    pub async fn attach_container(
        self: &Arc<Self>,
        id: &str,
        options: AttachOptions,
    ) -> Result<Attach> {
        let container = self.containers.get(id)?;
        let keys = detach_keys::parse(options.detach_keys.as_deref())?;
        {
            let state = &container.record().state;
            if state.phase == crate::container::Phase::Paused {
                return Err(EngineError::conflict(format!(
                    "container {id} is paused, unpause the container before attach"
                )));
            }
            if state.phase == crate::container::Phase::Restarting {
                return Err(EngineError::conflict(format!(
                    "container {id} is restarting, wait until the container is running"
                )));
            }
        }
        let tty = container.record().tty();
        let past = if options.logs {
            Self::past_output(&container, &options)?
        } else {
            futures::stream::empty().boxed()
        };
        if !options.stream {
            return Ok(Attach {
                tty,
                input: None,
                output: past,
            });
        }
        let stdin = options.stdin && container.record().config.open_stdin == Some(true);
        let request = AttachRequest {
            stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let detached = CancellationToken::new();
        let (input, live) = Self::live_streams(&container, request, detached.clone()).await?;
        self.container_event(&container, "attach");

        let engine = self.clone();
        let (left, who) = (detached.clone(), container.clone());
        let live = live.take_until(async move {
            left.cancelled().await;
            engine.container_event(&who, "detach");
        });
        let input = input.map(|input| -> Input {
            if tty {
                Box::pin(Escapable::new(input, keys, detached))
            } else {
                input
            }
        });
        Ok(Attach {
            tty,
            input,
            output: past.chain(live).boxed(),
        })
    }

    async fn live_streams(
        container: &Arc<Container>,
        request: AttachRequest,
        detached: CancellationToken,
    ) -> Result<(Option<Input>, BoxStream<'static, Frame>)> {
        let (pending, waiting) = pending_attach(request, detached);
        // With the operation held nobody starts it between the question and the answer.
        let running = {
            let _operation = container.operation.lock().await;
            if let Ok(shim) = container.shim() {
                Some((shim, pending))
            } else {
                container.live().attachments.add(pending);
                None
            }
        };
        if let Some((shim, pending)) = running {
            let attached = shim.attach(request).await?;
            pending.join(attached);
        }
        let input = waiting.input.map(|input| -> Input { Box::pin(input) });
        let output = futures::stream::unfold(waiting.output, |mut output| async move {
            output.recv().await.map(|frame| (frame, output))
        });
        Ok((input, output.boxed()))
    }

    fn past_output(
        container: &Container,
        options: &AttachOptions,
    ) -> Result<BoxStream<'static, Frame>> {
        if container.record().log_driver() == "none" {
            return Ok(futures::stream::empty().boxed());
        }
        let entries = read(container.log_path(), ReadOptions::default(), None, None)?;
        let (stdout, stderr) = (options.stdout, options.stderr);
        let frames = futures::stream::unfold(entries, |mut entries| async move {
            entries.recv().await.map(|entry| (entry, entries))
        });
        Ok(frames
            .filter_map(move |entry| async move {
                let entry = entry.ok()?;
                let wanted = match entry.stream {
                    StdStream::Stdout => stdout,
                    StdStream::Stderr => stderr,
                };
                wanted.then_some(Frame {
                    stream: entry.stream,
                    bytes: entry.line,
                })
            })
            .boxed())
    }

    /// Sets the size of a container's terminal.
    pub async fn resize_container(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let container = self.containers.get(id)?;
        // `docker run -t` may tell the size before the container has started.
        let shim = match container.shim() {
            Ok(shim) => shim,
            Err(error) => {
                container.live().console_size = Some((height, width));
                return Err(error);
            }
        };
        shim.resize(height, width).await?;
        self.container_event_with(
            &container,
            "resize",
            &[("height", height.to_string()), ("width", width.to_string())],
        );
        Ok(())
    }
}
