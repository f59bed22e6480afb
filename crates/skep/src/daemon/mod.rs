//! `skep daemon`, also called `dockerd`: reads its settings, puts engine, swarm and API together,
//! serves until a signal ends it.

mod config;
mod listeners;
mod logging;
mod options;
mod pidfile;
mod settings;
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use skep_api::ApiState;
use skep_engine::executor::TaskExecutor;
use skep_engine::{Engine, EngineConfig};
use skep_swarm::{Cluster, ClusterConfig};
use tokio_util::sync::CancellationToken;

use listeners::{Listener, Listeners};
use pidfile::PidFile;
use settings::Settings;

/// Runs the daemon to its end; the exit code is the process's.
pub(crate) fn main(name: &'static str, args: &[OsString]) -> ExitCode {
    let command = options::command(name);
    let args = std::iter::once(OsString::from(name)).chain(args.iter().cloned());
    let matches = match command.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are "errors" to clap, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(125)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match start(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(matches: &clap::ArgMatches) -> anyhow::Result<()> {
    let settings = Settings::load(matches)?;
    let config = config::engine(&settings)?;
    if settings.bool("validate") {
        eprintln!("configuration OK");
        return Ok(());
    }
    let level = logging::start(&settings)?;
    for (option, reason) in settings.unused() {
        tracing::info!(option, "this option has no effect: {reason}");
    }
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("skep needs to be started with root privileges");
    }
    let _pidfile = PidFile::create(&std::path::absolute(settings.text("pidfile"))?)?;
    // Bound before the engine starts, so that a taken socket is told at once; clients that connect
    // early wait until the engine is ready.
    let listeners = listeners::bind(&settings).context("failed to load listeners")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("skep")
        .build()
        .context("can't start the async runtime")?;
    let outcome = runtime.block_on(serve(settings, config, listeners, matches, level));
    // Blocking work that is still under way must not hold the exit up.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    settings: Settings,
    config: EngineConfig,
    mut listeners: Listeners,
    matches: &clap::ArgMatches,
    level: logging::Level,
) -> anyhow::Result<()> {
    let mut signals = signals::Signals::new()?;
    let live_restore = config.reloadable.live_restore;
    let exec_root = config.exec_root.clone();
    let data_root = config.data_root.clone();
    let experimental = config.experimental;
    let engine = Engine::start(config)
        .await
        .context("failed to start daemon")?;
    let cluster = start_cluster(&settings, &engine, data_root, live_restore)
        .await
        .context("failed to start cluster component")?;
    let told = engine.clone();
    tokio::spawn(
        cluster
            .clone()
            .tell_events(move |event| told.events().publish(event)),
    );
    let router = skep_api::router(ApiState::new(engine.clone(), cluster.clone(), experimental));
    let shutdown = CancellationToken::new();
    let sockets = std::mem::take(&mut listeners.sockets)
        .into_iter()
        .map(into_async)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut api = tokio::spawn(skep_api::serve(sockets, router, shutdown.clone()));
    tracing::info!(
        version = skep_engine::SERVER_VERSION,
        "daemon has completed initialization"
    );

    loop {
        tokio::select! {
            request = signals.next() => match request {
                signals::Request::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    break;
                }
                signals::Request::Reload => reload(matches, &engine, &level).await,
                signals::Request::DumpStacks => signals::dump_stacks(&exec_root).await,
            },
            ended = &mut api => {
                ended.context("the API server failed")?;
                anyhow::bail!("the API server ended by itself");
            }
        }
    }
    stop(&mut signals, api, &shutdown, &cluster, &engine).await
}

/// Ends everything in order: no new requests, then the swarm (so that it replaces nothing), then
/// containers. A third signal ends the process at once, as dockerd does.
async fn stop(
    signals: &mut signals::Signals,
    api: tokio::task::JoinHandle<()>,
    shutdown: &CancellationToken,
    cluster: &Arc<Cluster>,
    engine: &Arc<Engine>,
) -> anyhow::Result<()> {
    let work = async {
        shutdown.cancel();
        cluster.stop().await;
        let outcome = engine.shutdown().await.context("shutting down the engine");
        api.await.context("the API server failed")?;
        outcome
    };
    let impatient = async {
        let mut again = 0;
        while again < 2 {
            if let signals::Request::Stop(_) = signals.next().await {
                again += 1;
            }
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = impatient => anyhow::bail!("forced to stop by repeated signals; containers may still be running"),
    }
}

async fn start_cluster(
    settings: &Settings,
    engine: &Arc<Engine>,
    data_root: PathBuf,
    live_restore: bool,
) -> anyhow::Result<Arc<Cluster>> {
    let mut config = ClusterConfig::new(data_root.join("swarm"));
    config.default_advertise_addr = settings.optional("swarm-default-advertise-addr");
    config.live_restore = live_restore;
    let executor = Arc::new(TaskExecutor::new(engine.clone()));
    Ok(Cluster::start(config, executor).await?)
}

/// Reads the configuration file again and applies what can change while running.
async fn reload(matches: &clap::ArgMatches, engine: &Arc<Engine>, level: &logging::Level) {
    let outcome = async {
        let settings = Settings::load(matches)?;
        let reloadable = config::reloadable(&settings)?;
        level.set(&settings)?;
        engine.reload(reloadable).await?;
        anyhow::Ok(())
    };
    match outcome.await {
        Ok(()) => tracing::info!("reloaded the configuration"),
        Err(error) => tracing::error!("the configuration was not reloaded: {error:#}"),
    }
}

fn into_async(listener: Listener) -> anyhow::Result<skep_api::Listener> {
    Ok(match listener {
        Listener::Unix(socket) => {
            socket.set_nonblocking(true)?;
            skep_api::Listener::Unix(tokio::net::UnixListener::from_std(socket)?)
        }
        Listener::Tcp { socket, tls } => {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::TcpListener::from_std(socket)?;
            match tls {
                Some(config) => skep_api::Listener::Tls(socket, config),
                None => skep_api::Listener::Tcp(socket),
            }
        }
    })
}
