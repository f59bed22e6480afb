use std::collections::BTreeSet;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use skep_agent::{Controller, ControllerError, Dependencies, LogStream};
use skep_model::{ServiceId, Task, TaskId, TaskState};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

/// A node on which every task runs until it is told to stop.
#[derive(Default)]
struct FakeExecutor {
    /// Tasks that left something behind, which `remove` takes away.
    present: Arc<Mutex<BTreeSet<TaskId>>>,
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn describe(&self) -> Result<proto::NodeDescription, ControllerError> {
        Ok(proto::NodeDescription {
            hostname: "alpha".into(),
            platform: Some(proto::Platform {
                architecture: "x86_64".into(),
                os: "linux".into(),
            }),
            resources: Some(proto::Resources::default()),
            engine: Some(proto::EngineDescription::default()),
            ..Default::default()
        })
    }

    async fn configure(&self, _node: &proto::Node) -> Result<(), ControllerError> {
        Ok(())
    }

    fn controller(
        &self,
        task: &Task,
        _dependencies: Arc<Dependencies>,
    ) -> Result<Arc<dyn Controller>, ControllerError> {
        Ok(Arc::new(FakeController {
            task: task.id.clone(),
            present: Arc::clone(&self.present),
            ended: CancellationToken::new(),
        }))
    }

    async fn set_network_bootstrap_keys(
        &self,
        _keys: &[proto::EncryptionKey],
    ) -> Result<(), ControllerError> {
        Ok(())
    }
}

struct FakeController {
    task: TaskId,
    present: Arc<Mutex<BTreeSet<TaskId>>>,
    ended: CancellationToken,
}

#[async_trait]
impl Controller for FakeController {
    async fn update(&self, _task: &Task) -> Result<(), ControllerError> {
        Ok(())
    }

    async fn prepare(&self) -> Result<(), ControllerError> {
        let is_new = self.present.lock().insert(self.task.clone());
        if is_new {
            Ok(())
        } else {
            Err(ControllerError::TaskPrepared)
        }
    }

    async fn start(&self) -> Result<(), ControllerError> {
        Ok(())
    }

    async fn wait(&self) -> Result<(), ControllerError> {
        self.ended.cancelled().await;
        Ok(())
    }

    async fn shutdown(&self) -> Result<(), ControllerError> {
        self.ended.cancel();
        Ok(())
    }

    async fn terminate(&self) -> Result<(), ControllerError> {
        self.ended.cancel();
        Ok(())
    }

    async fn remove(&self) -> Result<(), ControllerError> {
        self.ended.cancel();
        self.present.lock().remove(&self.task);
        Ok(())
    }

    async fn close(&self) -> Result<(), ControllerError> {
        Ok(())
    }

    async fn logs(
        &self,
        _options: proto::LogSubscriptionOptions,
    ) -> Result<LogStream, ControllerError> {
        let message = proto::LogMessage {
            stream: proto::LogStream::Stdout.into(),
            data: b"hello\n".to_vec(),
            ..Default::default()
        };
        Ok(futures::stream::iter([Ok(message)]).boxed())
    }
}

async fn start_with(directory: &TempDir, executor: FakeExecutor) -> Arc<Cluster> {
    let config = ClusterConfig::new(directory.path().join("swarm"));
    Cluster::start(config, Arc::new(executor)).await.unwrap()
}

async fn start(directory: &TempDir) -> Arc<Cluster> {
    start_with(directory, FakeExecutor::default()).await
}

fn web(replicas: u64) -> proto::ServiceSpec {
    proto::ServiceSpec {
        annotations: Some(proto::Annotations {
            name: "web".into(),
            ..Default::default()
        }),
        task: Some(proto::TaskSpec {
            runtime: Some(proto::task_spec::Runtime::Container(proto::ContainerSpec {
                image: "nginx:latest".into(),
                ..Default::default()
            })),
            ..Default::default()
        }),
        mode: Some(proto::service_spec::Mode::Replicated(
            proto::ReplicatedService { replicas },
        )),
        ..Default::default()
    }
}

async fn create_web(cluster: &Cluster, replicas: u64) -> ServiceId {
    let request = proto::CreateServiceRequest {
        spec: Some(web(replicas)),
    };
    let answer = cluster
        .control()
        .unwrap()
        .create_service(request)
        .await
        .unwrap();
    answer.service.unwrap().id.into()
}

fn running(cluster: &Cluster, service: &ServiceId) -> BTreeSet<TaskId> {
    let snapshot = cluster.snapshot().unwrap();
    let tasks = snapshot.tasks_of_service(service);
    tasks
        .filter(|task| task.is_running())
        .map(|task| task.id.clone())
        .collect()
}

/// Tests run beside each other, each with a manager's port of its own.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn request() -> InitRequest {
    InitRequest {
        listen_addr: Some(format!("127.0.0.1:{}", free_port())),
        advertise_addr: Some("127.0.0.1".into()),
        ..InitRequest::default()
    }
}

fn state_files(directory: &TempDir) -> usize {
    std::fs::read_dir(directory.path().join("swarm"))
        .unwrap()
        .count()
}

/// Polls: what is waited for is written by a task of its own, to a file.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_is_in_no_swarm_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    assert_eq!(cluster.status(), "inactive");
    let error = cluster.inspect().unwrap_err();
    assert_eq!(error.kind.status(), 503);
    assert_eq!(
        error.message,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    );
    let error = cluster.leave(true).await.unwrap_err();
    assert_eq!(
        (error.kind.status(), &*error.message),
        (503, "This node is not part of a swarm")
    );
    assert_eq!(
        cluster.info().local_node_state,
        Some(m::LocalNodeState::INACTIVE)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn init_makes_a_swarm_of_one_with_dockers_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    let request = request();
    let listen = request.listen_addr.clone().unwrap();
    let id = cluster.init(request).await.unwrap();
    assert_eq!(cluster.status(), "active/manager");

    let swarm = cluster.inspect().unwrap();
    let spec = swarm.spec.unwrap();
    assert_eq!(spec.name.as_deref(), Some("default"));
    assert_eq!(
        spec.orchestration.unwrap().task_history_retention_limit,
        Some(5)
    );
    assert_eq!(
        spec.dispatcher.unwrap().heartbeat_period,
        Some(5_000_000_000)
    );
    assert_eq!(swarm.default_addr_pool.unwrap(), ["10.0.0.0/8"]);
    assert_eq!(
        (swarm.subnet_size, swarm.data_path_port),
        (Some(24), Some(4789))
    );
    let tokens = swarm.join_tokens.unwrap();
    for token in [tokens.worker.unwrap(), tokens.manager.unwrap()] {
        assert!(token.parse::<skep_ca::JoinToken>().is_ok(), "{token}");
    }

    let info = cluster.info();
    assert_eq!(info.node_id, Some(id.to_string()));
    assert_eq!(info.node_addr.as_deref(), Some("127.0.0.1"));
    assert_eq!((info.nodes, info.managers), (Some(1), Some(1)));
    assert_eq!(info.control_available, Some(true));
    let managers = info.remote_managers.unwrap();
    assert_eq!(managers[0].addr.as_deref(), Some(&*listen));
    let snapshot = cluster.snapshot().unwrap();
    assert_eq!(
        snapshot.node(&id).unwrap().role,
        proto::NodeRole::Manager as i32
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_init_or_a_join_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    let join = JoinRequest {
        remote_addrs: Some(vec!["10.0.0.1".into()]),
        ..Default::default()
    };
    cluster.init(request()).await.unwrap();
    let text = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
    assert_eq!(cluster.init(request()).await.unwrap_err().message, text);
    assert_eq!(cluster.join(join).await.unwrap_err().message, text);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_is_refused_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    for bad in [
        InitRequest {
            listen_addr: Some("nowhere".into()),
            ..request()
        },
        InitRequest {
            data_path_port: Some(80),
            ..request()
        },
        InitRequest {
            availability: Some("asleep".into()),
            ..request()
        },
        InitRequest {
            default_addr_pool: Some(vec!["10.0.0.0/30".into()]),
            ..request()
        },
    ] {
        cluster.init(bad).await.unwrap_err();
        assert_eq!(cluster.status(), "inactive");
        assert_eq!(state_files(&directory), 0);
    }
    cluster.init(request()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_manager_leaves_only_by_force_and_forgets_everything() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    let first = cluster.init(request()).await.unwrap();
    let error = cluster.leave(false).await.unwrap_err();
    assert_eq!(error.kind.status(), 503);
    assert_eq!(
        error.message,
        "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
    );
    cluster.leave(true).await.unwrap();
    assert_eq!(cluster.status(), "inactive");
    assert_eq!(state_files(&directory), 0);
    let second = cluster.init(request()).await.unwrap();
    assert_ne!(first, second);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_is_the_same_node_in_the_same_swarm() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    let id = cluster.init(request()).await.unwrap();
    let before = cluster.inspect().unwrap();
    cluster.stop().await;
    drop(cluster);

    let cluster = start(&directory).await;
    assert_eq!(cluster.node_id(), Some(id));
    let after = cluster.inspect().unwrap();
    assert_eq!(after.id, before.id);
    assert_eq!(after.join_tokens, before.join_tokens);
    assert_eq!(after.created_at, before.created_at);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_init_is_no_swarm() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    cluster.init(request()).await.unwrap();
    cluster.stop().await;
    // The state file is written last.
    std::fs::remove_file(directory.path().join("swarm/docker-state.json")).unwrap();
    let cluster = start(&directory).await;
    assert_eq!(cluster.status(), "inactive");
    cluster.init(request()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_show_in_info_and_can_be_left() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    cluster.init(request()).await.unwrap();
    cluster.stop().await;
    let key = directory.path().join("swarm/certificates/swarm-node.key");
    std::fs::write(&key, "not a key").unwrap();

    let cluster = start(&directory).await;
    assert_eq!(cluster.status(), "error");
    let error = cluster.info().error.unwrap();
    assert!(error.contains("the swarm key file"), "{error}");
    cluster.leave(false).await.unwrap();
    assert_eq!(cluster.status(), "inactive");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autolocked_swarm_needs_its_key_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    let locked = InitRequest {
        auto_lock_managers: true,
        ..request()
    };
    let id = cluster.init(locked).await.unwrap();
    let key = cluster.unlock_key().unwrap();
    assert!(key.starts_with("SWMKEY-1-"), "{key}");
    assert_eq!(
        cluster.unlock(&key).await.unwrap_err().message,
        "swarm is not locked"
    );
    cluster.stop().await;

    let cluster = start(&directory).await;
    assert_eq!(cluster.status(), "locked");
    let text = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
    assert_eq!(cluster.inspect().unwrap_err().message, text);
    assert_eq!(cluster.info().error.as_deref(), Some(text));
    assert_eq!(
        cluster.leave(false).await.unwrap_err(),
        ClusterError::locked_leave()
    );
    assert_eq!(
        cluster.unlock("nonsense").await.unwrap_err().kind.status(),
        400
    );
    let wrong = UnlockKey::generate().to_string();
    assert_eq!(
        cluster.unlock(&wrong).await.unwrap_err(),
        ClusterError::wrong_unlock_key()
    );
    cluster.unlock(&key).await.unwrap();
    assert_eq!(cluster.node_id(), Some(id));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locking_a_running_swarm_seals_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    cluster.init(request()).await.unwrap();
    assert_eq!(cluster.unlock_key().unwrap(), "");
    let swarm = cluster.inspect().unwrap();
    let mut spec = swarm.spec.unwrap();
    spec.encryption_config = Some(m::SwarmSpecEncryptionConfig {
        auto_lock_managers: Some(true),
    });
    let version = swarm.version.unwrap().index.unwrap();
    cluster
        .update(version, spec, UpdateFlags::default())
        .await
        .unwrap();
    let key = cluster.unlock_key().unwrap();
    let files = skep_ca::CertificateFiles::new(directory.path().join("swarm/certificates"));
    let unlock: UnlockKey = key.parse().unwrap();
    eventually("sealing the keys and moving the log to another key", || {
        files.is_locked().unwrap() == Some(true)
            && files
                .read_key(Some(&unlock))
                .unwrap()
                .unwrap()
                .pending_dek
                .is_none()
    })
    .await;
    cluster.stop().await;

    let cluster = start(&directory).await;
    assert_eq!(cluster.status(), "locked");
    cluster.unlock(&key).await.unwrap();
    assert!(cluster.inspect().is_ok());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_needs_the_version_it_is_based_on_and_can_make_new_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    cluster.init(request()).await.unwrap();
    let before = cluster.inspect().unwrap();
    let version = before.version.unwrap().index.unwrap();
    let spec = before.spec.unwrap();
    let error = cluster
        .update(version + 7, spec.clone(), UpdateFlags::default())
        .await
        .unwrap_err();
    assert!(error.message.contains("update out of sequence"), "{error}");
    let flags = UpdateFlags {
        rotate_worker_token: true,
        ..Default::default()
    };
    cluster.update(version, spec, flags).await.unwrap();
    let (old, new) = (
        before.join_tokens.unwrap(),
        cluster.inspect().unwrap().join_tokens.unwrap(),
    );
    assert_ne!(old.worker, new.worker);
    assert_eq!(old.manager, new.manager);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn force_new_cluster_goes_on_with_the_same_swarm_under_another_address() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    let id = cluster.init(request()).await.unwrap();
    let before = cluster.inspect().unwrap();
    let again = InitRequest {
        force_new_cluster: true,
        advertise_addr: Some("127.0.0.1:4000".into()),
        ..request()
    };
    assert_eq!(cluster.init(again).await, Ok(id));
    assert_eq!(cluster.inspect().unwrap().id, before.id);
    eventually("the manager being known at its new address", || {
        let managers = cluster.info().remote_managers.unwrap();
        managers[0].addr.as_deref() == Some("127.0.0.1:4000")
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_restore_and_swarm_do_not_go_together() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = ClusterConfig::new(directory.path().join("swarm"));
    config.live_restore = true;
    let cluster = Cluster::start(config, Arc::new(FakeExecutor::default()))
        .await
        .unwrap();
    assert_eq!(
        cluster.init(request()).await.unwrap_err().message,
        "--live-restore daemon configuration is incompatible with swarm mode"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_to_run_and_leaving_removes_its_tasks() {
    let directory = tempfile::tempdir().unwrap();
    let executor = FakeExecutor::default();
    let present = Arc::clone(&executor.present);
    let cluster = start_with(&directory, executor).await;
    cluster.init(request()).await.unwrap();
    let service = create_web(&cluster, 20).await;
    eventually("20 running tasks", || {
        running(&cluster, &service).len() == 20
    })
    .await;
    assert_eq!(present.lock().len(), 20);
    cluster.leave(true).await.unwrap();
    assert!(present.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_tasks_go_on_after_a_restart_of_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let executor = FakeExecutor::default();
    let present = Arc::clone(&executor.present);
    let cluster = start_with(&directory, executor).await;
    cluster.init(request()).await.unwrap();
    let service = create_web(&cluster, 3).await;
    eventually("3 running tasks", || running(&cluster, &service).len() == 3).await;
    let before = running(&cluster, &service);
    cluster.stop().await;
    assert_eq!(
        *present.lock(),
        before,
        "stopping the daemon leaves the tasks alone"
    );
    drop(cluster);

    let executor = FakeExecutor { present };
    let cluster = start_with(&directory, executor).await;
    eventually("the node being ready", || {
        let snapshot = cluster.snapshot().unwrap();
        let ready = proto::node_status::State::Ready as i32;
        snapshot
            .nodes()
            .all(|node| node.status.as_ref().is_some_and(|s| s.state == ready))
    })
    .await;
    let request = proto::UpdateServiceRequest {
        service_id: service.to_string(),
        service_version: cluster
            .snapshot()
            .unwrap()
            .service(&service)
            .and_then(|service| service.meta.as_ref()?.version),
        spec: Some(web(4)),
        ..Default::default()
    };
    cluster
        .control()
        .unwrap()
        .update_service(request)
        .await
        .unwrap();
    eventually("a fourth task beside the three", || {
        running(&cluster, &service).len() == 4
    })
    .await;
    let after = running(&cluster, &service);
    assert!(after.is_superset(&before), "{before:?} {after:?}");
    let failed = cluster
        .snapshot()
        .unwrap()
        .tasks_in_state(TaskState::Failed)
        .count();
    assert_eq!(failed, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_a_service_are_read_through_the_managers() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(&directory).await;
    cluster.init(request()).await.unwrap();
    let service = create_web(&cluster, 1).await;
    eventually("a running task", || running(&cluster, &service).len() == 1).await;
    let request = proto::SubscribeLogsRequest {
        selector: Some(proto::LogSelector {
            service_ids: vec![service.to_string()],
            ..Default::default()
        }),
        options: Some(proto::LogSubscriptionOptions::default()),
    };
    let control = cluster.control().unwrap();
    let stream = control.subscribe_logs(request).await.unwrap();
    let messages = stream.map(|message| message.unwrap().messages).concat();
    let messages = tokio::time::timeout(Duration::from_secs(20), messages)
        .await
        .unwrap();
    let text: Vec<&[u8]> = messages.iter().map(|message| &*message.data).collect();
    assert_eq!(text, [b"hello\n"]);
    cluster.stop().await;
}
