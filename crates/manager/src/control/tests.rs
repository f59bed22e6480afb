use skep_model::ext::ServiceExt as _;
use skep_model::{StoreObject as _, Task, TaskState, TaskStatus};
use skep_proto as proto;
use skep_proto::port_config::PublishMode;
use skep_proto::service_spec::Mode;
use skep_proto::update_service_request::Rollback;
use skep_store::{MemoryProposer, Store};

use super::Control;
use crate::testing::{container, node, service};
use crate::{Code, ControlError};

/// A control API on a store where nothing else happens.
fn control() -> (Control, Store) {
    let store = MemoryProposer::store();
    let members = tokio::sync::watch::channel(Default::default()).1;
    (Control::new(store.clone(), members), store)
}

async fn create(
    control: &Control,
    spec: proto::ServiceSpec,
) -> Result<proto::Service, ControlError> {
    let request = proto::CreateServiceRequest { spec: Some(spec) };
    control
        .create_service(request)
        .await
        .map(|response| response.service.unwrap())
}

fn update_request(
    service: &proto::Service,
    spec: proto::ServiceSpec,
) -> proto::UpdateServiceRequest {
    proto::UpdateServiceRequest {
        service_id: service.id.clone(),
        service_version: service.meta.unwrap().version,
        spec: Some(spec),
        rollback: Rollback::None.into(),
    }
}

/// How creating a service with this change of a good spec is refused.
async fn refusal(change: impl FnOnce(&mut proto::ServiceSpec)) -> (Code, String) {
    let mut spec = service("web", 1);
    change(&mut spec);
    let error = create(&control().0, spec).await.unwrap_err();
    (error.code, error.message)
}

async fn invalid(change: impl FnOnce(&mut proto::ServiceSpec)) -> String {
    let (code, message) = refusal(change).await;
    assert_eq!(code, Code::InvalidArgument, "{message}");
    message
}

fn task(spec: &mut proto::ServiceSpec) -> &mut proto::TaskSpec {
    spec.task.as_mut().unwrap()
}

const MINUS_ONE: Option<prost_types::Duration> = Some(prost_types::Duration {
    seconds: -1,
    nanos: 0,
});

fn named(spec: &mut proto::ServiceSpec, name: &str) {
    spec.annotations.as_mut().unwrap().name = name.into();
}

fn port(published_port: u32, mode: PublishMode) -> proto::PortConfig {
    proto::PortConfig {
        target_port: 80,
        published_port,
        publish_mode: mode.into(),
        ..Default::default()
    }
}

fn publishing(spec: &mut proto::ServiceSpec, ports: &[proto::PortConfig]) {
    spec.endpoint = Some(proto::EndpointSpec {
        ports: ports.to_vec(),
        ..Default::default()
    });
}

fn limits(spec: &mut proto::ServiceSpec, nano_cpus: i64, memory_bytes: i64) {
    let limits = proto::Resources {
        nano_cpus,
        memory_bytes,
        generic: Vec::new(),
    };
    task(spec).resources = Some(proto::ResourceRequirements {
        limits: Some(limits),
        ..Default::default()
    });
}

#[tokio::test]
async fn a_service_is_created_with_its_first_version() {
    let (control, _store) = control();
    let created = create(&control, service("web", 2)).await.unwrap();
    assert_eq!(created.id.len(), 25);
    assert_eq!(created.spec_version, Some(proto::Version { index: 0 }));
    assert!(created.meta.unwrap().version.unwrap().index > 0);
    let request = proto::GetServiceRequest {
        service_id: created.id.clone(),
        insert_defaults: false,
    };
    assert_eq!(
        control.get_service(&request).unwrap().service,
        Some(created.clone())
    );
    let request = proto::GetServiceRequest {
        service_id: created.id,
        insert_defaults: true,
    };
    let with_defaults = control.get_service(&request).unwrap().service.unwrap();
    assert!(with_defaults.spec().update.is_some());
}

#[tokio::test]
async fn names_are_unique_without_regard_to_case() {
    let (control, _store) = control();
    create(&control, service("web", 1)).await.unwrap();
    let error = create(&control, service("WEB", 1)).await.unwrap_err();
    assert_eq!(error.code, Code::AlreadyExists);
    assert_eq!(
        error.message,
        "name conflicts with an existing object: service WEB already exists"
    );
}

#[tokio::test]
async fn bad_specs_are_refused_in_swarmkits_words() {
    assert_eq!(
        invalid(|s| named(s, "")).await,
        "meta: name must be provided"
    );
    assert_eq!(
        invalid(|s| named(s, "a.b")).await,
        "name must be valid as a DNS name component"
    );
    assert_eq!(
        invalid(|s| named(s, &"a".repeat(64))).await,
        "name must be 63 characters or fewer"
    );
    let replicas = (-1_i64).cast_unsigned();
    assert_eq!(
        invalid(|s| s.mode = Some(Mode::Replicated(proto::ReplicatedService { replicas }))).await,
        "Number of replicas must be non-negative"
    );
    assert_eq!(
        invalid(|s| s.mode = None).await,
        "Unrecognized service mode"
    );
    assert_eq!(
        invalid(|s| {
            s.mode = Some(Mode::GlobalJob(proto::GlobalJob {}));
            s.update = Some(proto::UpdateConfig::default());
        })
        .await,
        "Jobs may not have an update config"
    );
    assert_eq!(
        invalid(|s| container(s).image = String::new()).await,
        "ContainerSpec: image reference must be provided"
    );
    assert_eq!(
        invalid(|s| container(s).image = "Bad Image".into()).await,
        "ContainerSpec: \"Bad Image\" is not a valid repository/tag"
    );
    assert_eq!(
        invalid(|s| task(s).runtime = None).await,
        "TaskSpec: missing runtime"
    );
    let mount = proto::Mount {
        target: "/data".into(),
        ..Default::default()
    };
    assert_eq!(
        invalid(|s| container(s).mounts = vec![mount.clone(), mount]).await,
        "ContainerSpec: duplicate mount point: /data"
    );
    let health = proto::HealthConfig {
        retries: -1,
        ..Default::default()
    };
    assert_eq!(
        invalid(|s| container(s).healthcheck = Some(health)).await,
        "ContainerSpec: Retries in HealthConfig cannot be negative"
    );
    let interval = Some(prost_types::Duration {
        seconds: 0,
        nanos: 5,
    });
    let health = proto::HealthConfig {
        interval,
        ..Default::default()
    };
    assert_eq!(
        invalid(|s| container(s).healthcheck = Some(health)).await,
        "ContainerSpec: Interval in HealthConfig cannot be less than 1ms"
    );
}

#[tokio::test]
async fn bad_policies_and_resources_are_refused() {
    assert_eq!(
        invalid(|s| limits(s, 500_000, 0)).await,
        "invalid cpu value 0.0005: Must be at least 0.001"
    );
    assert_eq!(
        invalid(|s| limits(s, 0, 1024)).await,
        "invalid memory value 1024: Must be at least 4MiB"
    );
    assert_eq!(
        invalid(|s| task(s).restart.as_mut().unwrap().delay = MINUS_ONE).await,
        "TaskSpec: restart-delay cannot be negative"
    );
    assert_eq!(
        invalid(|s| task(s).restart.as_mut().unwrap().window = MINUS_ONE).await,
        "TaskSpec: restart-window cannot be negative"
    );
    let update = |change: fn(&mut proto::UpdateConfig)| {
        move |s: &mut proto::ServiceSpec| change(s.update.get_or_insert_default())
    };
    assert_eq!(
        invalid(update(|u| u.delay = MINUS_ONE)).await,
        "TaskSpec: update-delay cannot be negative"
    );
    assert_eq!(
        invalid(update(|u| u.monitor = MINUS_ONE)).await,
        "TaskSpec: update-monitor cannot be negative"
    );
    assert_eq!(
        invalid(update(|u| u.max_failure_ratio = 1.5)).await,
        "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"
    );
    let placement = proto::Placement {
        constraints: vec!["node.role=manager".into()],
        ..Default::default()
    };
    assert_eq!(
        refusal(|s| task(s).placement = Some(placement)).await,
        (
            Code::Unknown,
            "constraint expected one operator from ==, !=".into()
        )
    );
}

#[tokio::test]
async fn ports_must_not_collide() {
    let host = |number| port(number, PublishMode::Host);
    assert_eq!(
        invalid(|s| publishing(s, &[host(80), host(80)])).await,
        "EndpointSpec: duplicate published ports provided"
    );
    assert_eq!(
        invalid(|s| {
            publishing(s, &[port(80, PublishMode::Ingress)]);
            s.endpoint.as_mut().unwrap().mode = proto::endpoint_spec::ResolutionMode::Dnsrr.into();
        })
        .await,
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
    );
    assert_eq!(
        refusal(|s| publishing(s, &[port(80, PublishMode::Ingress)])).await,
        (
            Code::FailedPrecondition,
            "service needs ingress network, but no ingress network is present".into()
        )
    );

    let (control, store) = control();
    let mut first = service("first", 1);
    publishing(&mut first, &[host(80)]);
    let first = create(&control, first).await.unwrap();
    assert_eq!(first.endpoint.unwrap().ports.len(), 1);
    let mut second = service("second", 1);
    publishing(&mut second, &[host(80)]);
    create(&control, second)
        .await
        .expect("the scheduler keeps host ports apart");
    let ingress = proto::Network {
        id: "ingress".into(),
        spec: Some(proto::NetworkSpec {
            annotations: Some(proto::Annotations {
                name: "ingress".into(),
                ..Default::default()
            }),
            ingress: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    store.update(|tx| tx.create(ingress)).await.unwrap();
    let mut third = service("third", 1);
    publishing(&mut third, &[port(80, PublishMode::Ingress)]);
    let message = create(&control, third).await.unwrap_err().message;
    assert!(
        message.starts_with("port '80' is already in use by service '"),
        "{message}"
    );
    assert!(message.ends_with(") as a host-published port"), "{message}");
}

#[tokio::test]
async fn what_a_spec_names_must_be_there() {
    let secret = proto::SecretReference {
        secret_id: "id".into(),
        secret_name: "key".into(),
        target: Some(proto::secret_reference::Target::File(proto::FileTarget {
            name: "key".into(),
            ..Default::default()
        })),
    };
    let one = secret.clone();
    assert_eq!(
        invalid(|s| container(s).secrets = vec![one]).await,
        "secret not found: key"
    );
    let other = proto::SecretReference {
        secret_name: "other".into(),
        ..secret.clone()
    };
    assert_eq!(
        invalid(|s| container(s).secrets = vec![secret, other]).await,
        "secret references 'key' and 'other' have a conflicting target: 'key'"
    );
    let network = proto::NetworkAttachmentConfig {
        target: "net".into(),
        ..Default::default()
    };
    assert_eq!(
        refusal(|s| task(s).networks = vec![network]).await,
        (Code::NotFound, "network net not found".into())
    );
}

#[tokio::test]
async fn an_update_keeps_the_spec_before_and_stamps_the_new_one() {
    let (control, _store) = control();
    let created = create(&control, service("web", 1)).await.unwrap();
    let mut spec = service("web", 2);
    container(&mut spec).image = "busybox:2".into();
    let request = update_request(&created, spec.clone());
    let updated = control
        .update_service(request.clone())
        .await
        .unwrap()
        .service
        .unwrap();
    assert_eq!(updated.spec, Some(spec));
    assert_eq!(updated.previous_spec, created.spec);
    assert_eq!(updated.previous_spec_version, created.spec_version);
    assert_eq!(updated.spec_version, created.meta.unwrap().version);

    let error = control.update_service(request).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "rpc error: code = Unknown desc = update out of sequence"
    );
}

#[tokio::test]
async fn a_rollback_swaps_the_specs_twice_if_asked_twice() {
    let (control, _store) = control();
    let created = create(&control, service("web", 1)).await.unwrap();
    let rollback = |service: &proto::Service| proto::UpdateServiceRequest {
        rollback: Rollback::Previous.into(),
        ..update_request(service, service.spec.clone().unwrap())
    };
    let error = control
        .update_service(rollback(&created))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    assert_eq!(
        error.message,
        format!("service {} does not have a previous spec", created.id)
    );

    let request = update_request(&created, service("web", 5));
    let updated = control
        .update_service(request)
        .await
        .unwrap()
        .service
        .unwrap();
    let back = control
        .update_service(rollback(&updated))
        .await
        .unwrap()
        .service
        .unwrap();
    assert_eq!(back.spec, created.spec);
    assert_eq!(back.previous_spec, updated.spec);
    let status = back.update_status.clone().unwrap();
    assert_eq!(
        status.state(),
        proto::update_status::UpdateState::RollbackStarted
    );
    assert_eq!(status.message, "manually requested rollback");
    let forth = control
        .update_service(rollback(&back))
        .await
        .unwrap()
        .service
        .unwrap();
    assert_eq!(forth.spec, updated.spec);
}

#[tokio::test]
async fn name_and_mode_of_a_service_stay() {
    let (control, _store) = control();
    let created = create(&control, service("web", 1)).await.unwrap();
    let request = update_request(&created, service("other", 1));
    let error = control.update_service(request).await.unwrap_err();
    assert_eq!(error.code, Code::Unimplemented);
    assert_eq!(error.message, "renaming services is not supported");
    let mut global = service("web", 1);
    global.mode = Some(Mode::Global(proto::GlobalService {}));
    let error = control
        .update_service(update_request(&created, global))
        .await
        .unwrap_err();
    assert_eq!(error.message, "service mode change is not allowed");
}

#[tokio::test]
async fn each_update_of_a_job_is_another_iteration() {
    let (control, _store) = control();
    let mut spec = service("job", 0);
    spec.mode = Some(Mode::ReplicatedJob(proto::ReplicatedJob {
        max_concurrent: 1,
        total_completions: 1,
    }));
    let created = create(&control, spec.clone()).await.unwrap();
    assert_eq!(
        created.job_status.unwrap().job_iteration,
        Some(proto::Version { index: 0 })
    );
    let request = update_request(&created, spec);
    let updated = control
        .update_service(request)
        .await
        .unwrap()
        .service
        .unwrap();
    assert_eq!(
        updated.job_status.unwrap().job_iteration,
        Some(proto::Version { index: 1 })
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (control, _store) = control();
    let request = proto::GetServiceRequest {
        service_id: "x".into(),
        ..Default::default()
    };
    let error = control.get_service(&request).unwrap_err();
    assert_eq!(
        error,
        ControlError::new(Code::NotFound, "service x not found")
    );
    let request = proto::RemoveServiceRequest {
        service_id: "x".into(),
    };
    let error = control.remove_service(request).await.unwrap_err();
    assert_eq!(
        error,
        ControlError::new(Code::NotFound, "service x not found")
    );
    let error = control
        .get_service(&proto::GetServiceRequest::default())
        .unwrap_err();
    assert_eq!(
        error,
        ControlError::new(Code::InvalidArgument, "invalid argument")
    );
    let error = control
        .get_task(&proto::GetTaskRequest {
            task_id: "x".into(),
        })
        .unwrap_err();
    assert_eq!(error.message, "task x not found");
    let error = control
        .get_node(&proto::GetNodeRequest {
            node_id: "x".into(),
        })
        .unwrap_err();
    assert_eq!(error.message, "node x not found");
}

#[tokio::test]
async fn lists_are_filtered_by_name_id_and_label() {
    let (control, _store) = control();
    let mut labelled = service("web-1", 1);
    let labels = [("tier".to_owned(), "front".to_owned())];
    labelled.annotations.as_mut().unwrap().labels = labels.into();
    create(&control, labelled).await.unwrap();
    create(&control, service("web-2", 1)).await.unwrap();
    create(&control, service("db", 1)).await.unwrap();
    let names = |filters: proto::list_services_request::Filters| {
        let request = proto::ListServicesRequest {
            filters: Some(filters),
        };
        let services = control.list_services(&request).services;
        let mut names: Vec<String> = services.iter().map(|s| s.name().to_owned()).collect();
        names.sort();
        names
    };
    use proto::list_services_request::Filters;
    assert_eq!(names(Filters::default()), ["db", "web-1", "web-2"]);
    assert_eq!(
        names(Filters {
            names: vec!["db".into()],
            ..Default::default()
        }),
        ["db"]
    );
    assert_eq!(
        names(Filters {
            name_prefixes: vec!["web".into()],
            ..Default::default()
        }),
        ["web-1", "web-2"]
    );
    let any_value = [("tier".to_owned(), String::new())];
    assert_eq!(
        names(Filters {
            labels: any_value.into(),
            ..Default::default()
        }),
        ["web-1"]
    );
    assert_eq!(
        names(Filters {
            runtimes: vec!["plugin".into()],
            ..Default::default()
        }),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn statuses_count_running_and_desired_tasks() {
    let (control, store) = control();
    let web = create(&control, service("web", 3)).await.unwrap();
    for n in 0..2 {
        let task = Task {
            id: format!("t{n}").into(),
            service_id: Some(web.id.as_str().into()),
            desired_state: TaskState::Running,
            status: TaskStatus {
                state: TaskState::Running,
                ..Default::default()
            },
            ..Default::default()
        };
        store.update(|tx| tx.create(task)).await.unwrap();
    }
    let request = proto::ListServiceStatusesRequest {
        services: vec![web.id, "gone".into()],
    };
    let statuses = control.list_service_statuses(&request).statuses;
    assert_eq!(
        (statuses[0].running_tasks, statuses[0].desired_tasks),
        (2, 3)
    );
    assert_eq!(
        (statuses[1].running_tasks, statuses[1].desired_tasks),
        (0, 0)
    );
}

#[tokio::test]
async fn a_node_is_removed_once_it_is_down_and_its_certificate_is_barred() {
    let (control, store) = control();
    let annotations = proto::Annotations {
        name: "default".into(),
        ..Default::default()
    };
    let cluster = proto::Cluster {
        id: "c".into(),
        spec: Some(proto::ClusterSpec {
            annotations: Some(annotations),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut worker = node("w");
    worker.status.as_mut().unwrap().state = proto::node_status::State::Ready.into();
    let task = Task {
        id: "t".into(),
        node_id: Some("w".into()),
        status: TaskStatus {
            state: TaskState::Running,
            ..Default::default()
        },
        ..Default::default()
    };
    store
        .update(|tx| {
            tx.create(cluster)?;
            tx.create(worker)?;
            tx.create(task)
        })
        .await
        .unwrap();
    let request = proto::RemoveNodeRequest {
        node_id: "w".into(),
        force: false,
    };
    let error = control.remove_node(request.clone()).await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    assert_eq!(error.message, "node w is not down and can't be removed");
    let forced = proto::RemoveNodeRequest {
        force: true,
        ..request
    };
    control.remove_node(forced).await.unwrap();
    let snapshot = store.snapshot();
    assert!(snapshot.node(&"w".into()).is_none());
    assert!(
        snapshot
            .the_cluster()
            .unwrap()
            .blacklisted_certificates
            .contains_key("w")
    );
    let task = snapshot.task(&"t".into()).unwrap();
    assert_eq!(task.status.state, TaskState::Orphaned);
    assert_eq!(
        task.status.message,
        "Task belonged to a node that has been deleted"
    );
}

#[tokio::test]
async fn the_last_manager_is_not_demoted() {
    let (control, store) = control();
    let mut manager = node("m");
    manager.role = proto::NodeRole::Manager.into();
    manager.spec.as_mut().unwrap().desired_role = proto::NodeRole::Manager.into();
    let created = store.update(|tx| tx.create(manager)).await.unwrap();
    let mut spec = created.spec.clone().unwrap();
    spec.desired_role = proto::NodeRole::Worker.into();
    let request = proto::UpdateNodeRequest {
        node_id: "m".into(),
        node_version: created.meta.unwrap().version,
        spec: Some(spec),
    };
    let error = control.update_node(request).await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    assert_eq!(
        error.message,
        "attempting to demote the last manager of the swarm"
    );
}

#[tokio::test]
async fn a_clusters_keys_are_never_shown_and_its_name_stays() {
    let (control, store) = control();
    let root = skep_ca::RootCa::generate(std::time::SystemTime::now().into()).unwrap();
    let annotations = proto::Annotations {
        name: "default".into(),
        ..Default::default()
    };
    let spec = proto::ClusterSpec {
        annotations: Some(annotations),
        ..Default::default()
    };
    let cluster = proto::Cluster {
        id: "c".into(),
        spec: Some(spec.clone()),
        root_ca: Some(proto::RootCa {
            ca_key: b"key".to_vec(),
            ca_cert: root.certificate_pem().as_bytes().to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = store.update(|tx| tx.create(cluster)).await.unwrap();
    let shown = &control
        .list_clusters(&proto::ListClustersRequest::default())
        .clusters[0];
    assert!(shown.root_ca.as_ref().unwrap().ca_key.is_empty());
    assert_eq!(shown.default_address_pool, ["10.0.0.0/8"]);

    let request = |spec: proto::ClusterSpec| proto::UpdateClusterRequest {
        cluster_id: "c".into(),
        cluster_version: created.meta.unwrap().version,
        spec: Some(spec),
        rotation: Some(proto::KeyRotation {
            worker_join_token: true,
            ..Default::default()
        }),
    };
    let mut renamed = spec.clone();
    renamed.annotations.as_mut().unwrap().name = "other".into();
    let error = control.update_cluster(request(renamed)).await.unwrap_err();
    assert_eq!(error.message, "modification of cluster name is not allowed");
    let updated = control
        .update_cluster(request(spec))
        .await
        .unwrap()
        .cluster
        .unwrap();
    let tokens = updated.root_ca.unwrap().join_tokens.unwrap();
    assert!(tokens.worker.starts_with("SWMTKN-1-"), "{}", tokens.worker);
    assert_eq!(tokens.manager, "", "only what was asked for");
}

#[tokio::test]
async fn secrets_are_kept_but_not_shown_and_not_removed_while_used() {
    let (control, _store) = control();
    let spec = |name: &str, data: &[u8]| proto::SecretSpec {
        annotations: Some(proto::Annotations {
            name: name.into(),
            ..Default::default()
        }),
        data: data.to_vec(),
        ..Default::default()
    };
    let create_secret = async |spec: proto::SecretSpec| {
        let request = proto::CreateSecretRequest { spec: Some(spec) };
        control
            .create_secret(request)
            .await
            .map(|response| response.secret.unwrap())
    };
    let secret = create_secret(spec("key", b"x")).await.unwrap();
    assert!(secret.spec.as_ref().unwrap().data.is_empty());
    let error = create_secret(spec("key", b"y")).await.unwrap_err();
    assert_eq!(error.message, "secret key already exists");
    let error = create_secret(spec("other", b"")).await.unwrap_err();
    assert_eq!(
        error.message,
        "secret data must be larger than 0 and less than 512000 bytes"
    );

    let reference = proto::SecretReference {
        secret_id: secret.id.clone(),
        secret_name: "key".into(),
        target: Some(proto::secret_reference::Target::File(proto::FileTarget {
            name: "key".into(),
            ..Default::default()
        })),
    };
    let mut user = service("web", 1);
    container(&mut user).secrets = vec![reference];
    create(&control, user).await.unwrap();
    let request = proto::RemoveSecretRequest {
        secret_id: secret.id.clone(),
    };
    let error = control.remove_secret(request).await.unwrap_err();
    assert_eq!(
        error.message,
        "secret 'key' is in use by the following service: web"
    );

    let request = proto::UpdateSecretRequest {
        secret_id: secret.id,
        secret_version: secret.meta.unwrap().version,
        spec: Some(spec("key", b"changed")),
    };
    let error = control.update_secret(request).await.unwrap_err();
    assert_eq!(error.message, "only updates to Labels are allowed");
}

#[tokio::test]
async fn a_network_is_made_once() {
    let (control, _store) = control();
    let annotations = proto::Annotations {
        name: "net".into(),
        ..Default::default()
    };
    let spec = proto::NetworkSpec {
        annotations: Some(annotations),
        ..Default::default()
    };
    let request = proto::CreateNetworkRequest { spec: Some(spec) };
    let made = control.create_network(request.clone()).await.unwrap();
    assert_eq!(
        made.network
            .unwrap()
            .spec
            .unwrap()
            .annotations
            .unwrap()
            .name,
        "net"
    );
    let error = control.create_network(request).await.unwrap_err();
    assert_eq!(error.code, Code::AlreadyExists);
}
