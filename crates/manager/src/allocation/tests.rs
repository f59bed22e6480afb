use skep_model::{TaskState, proto};

use crate::testing::{Agent, Swarm, service};

async fn network(swarm: &Swarm, spec: proto::NetworkSpec) -> String {
    let request = proto::CreateNetworkRequest { spec: Some(spec) };
    let created = swarm
        .manager
        .control()
        .create_network(request)
        .await
        .unwrap();
    created.network.unwrap().id
}

fn overlay(name: &str, subnet: &str) -> proto::NetworkSpec {
    let config = proto::IpamConfig {
        subnet: subnet.to_owned(),
        ..Default::default()
    };
    proto::NetworkSpec {
        annotations: Some(proto::Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        ipam: (!subnet.is_empty()).then(|| proto::IpamOptions {
            configs: vec![config],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn on(mut spec: proto::ServiceSpec, networks: &[&str], port: u32) -> proto::ServiceSpec {
    spec.task.as_mut().unwrap().networks = networks
        .iter()
        .map(|id| proto::NetworkAttachmentConfig {
            target: (*id).to_owned(),
            ..Default::default()
        })
        .collect();
    if port != 0 {
        spec.endpoint = Some(proto::EndpointSpec {
            ports: vec![proto::PortConfig {
                published_port: port,
                target_port: 80,
                ..Default::default()
            }],
            ..Default::default()
        });
    }
    spec
}

#[tokio::test]
async fn tasks_enter_the_scheduler_with_their_addresses() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let _agent = Agent::connect(&swarm, "a").await;
    network(&swarm, skep_allocator::ingress_spec()).await;
    let backend = network(&swarm, overlay("backend", "10.20.0.0/24")).await;
    let web = swarm.create(on(service("web", 2), &[&backend], 8080)).await;
    let tasks = swarm.until_running(&web, 2).await;
    let endpoint = swarm.service(&web).endpoint.unwrap();
    let vips: Vec<_> = endpoint
        .virtual_ips
        .iter()
        .map(|vip| vip.addr.clone())
        .collect();
    assert_eq!(vips.len(), 2);
    assert!(vips[1].starts_with("10.20.0."), "{vips:?}");
    for task in &tasks {
        assert_eq!(task.networks.len(), 2);
        assert!(task.networks[1].addresses[0].starts_with("10.20.0."));
        assert_eq!(task.endpoint.as_deref(), Some(&endpoint));
    }
    let node = swarm
        .until("the node's own addresses", |snapshot| {
            let node = snapshot.nodes().next().unwrap();
            (node.attachments.len() == 2).then(|| node.clone())
        })
        .await;
    assert!(node.attachments.iter().all(|one| one.addresses.len() == 1));

    // An update keeps the addresses, and a service that goes away leaves nothing.
    let updated = swarm
        .update(&web, |spec| {
            spec.task.as_mut().unwrap().force_update += 1;
        })
        .await;
    assert_eq!(updated.endpoint.unwrap().virtual_ips, endpoint.virtual_ips);
}

#[tokio::test]
async fn a_task_that_finds_no_address_says_which_network_is_full() {
    let swarm = Swarm::with_nodes(&["a"]).await;
    let _agent = Agent::connect(&swarm, "a").await;
    // Four addresses: both ends, the gateway, and one.
    let tiny = network(&swarm, overlay("tiny", "10.20.0.0/30")).await;
    let mut spec = on(service("web", 2), &[&tiny], 0);
    spec.endpoint = Some(proto::EndpointSpec {
        mode: proto::endpoint_spec::ResolutionMode::Dnsrr.into(),
        ..Default::default()
    });
    let web = swarm.create(spec).await;
    let waiting = swarm
        .until("a task that says why it waits", |snapshot| {
            let mut tasks = snapshot.tasks_of_service(&web);
            tasks.find(|task| !task.status.err.is_empty()).cloned()
        })
        .await;
    assert_eq!(waiting.status.state, TaskState::New);
    assert_eq!(
        waiting.status.err,
        "no available IPv4 addresses on network tiny: all 2 are in use"
    );
}
