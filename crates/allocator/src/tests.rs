use proptest::prelude::*;
use skep_model::{Task, TaskState};
use skep_proto as proto;

use crate::{AllocationError, Allocator, Holder, ingress_spec};

fn network(id: &str, subnet: &str) -> proto::Network {
    let config = proto::IpamConfig {
        subnet: subnet.to_owned(),
        ..Default::default()
    };
    proto::Network {
        id: id.to_owned(),
        spec: Some(proto::NetworkSpec {
            annotations: Some(proto::Annotations {
                name: id.to_owned(),
                ..Default::default()
            }),
            ipam: (!subnet.is_empty()).then(|| proto::IpamOptions {
                configs: vec![config],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn on(target: &str) -> proto::NetworkAttachmentConfig {
    proto::NetworkAttachmentConfig {
        target: target.to_owned(),
        ..Default::default()
    }
}

fn service(id: &str, networks: &[&str], ports: &[(u32, u32)]) -> proto::Service {
    let ports = ports
        .iter()
        .map(|&(published_port, target_port)| proto::PortConfig {
            published_port,
            target_port,
            ..Default::default()
        });
    proto::Service {
        id: id.to_owned(),
        spec: Some(proto::ServiceSpec {
            annotations: Some(proto::Annotations {
                name: format!("name-of-{id}"),
                ..Default::default()
            }),
            task: Some(proto::TaskSpec {
                networks: networks.iter().map(|target| on(target)).collect(),
                ..Default::default()
            }),
            endpoint: Some(proto::EndpointSpec {
                ports: ports.collect(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        ..Task::default()
    }
}

struct Swarm {
    allocator: Allocator,
    networks: Vec<proto::Network>,
}

impl Swarm {
    fn new(networks: &[proto::Network]) -> Self {
        let mut allocator = Allocator::default();
        let networks = networks.iter().map(|one| allocator.network(one).unwrap());
        let networks = networks.collect();
        Self {
            allocator,
            networks,
        }
    }

    fn find(networks: &[proto::Network], term: &str) -> Option<usize> {
        networks.iter().position(|one| one.id == term)
    }

    fn service(&mut self, service: &mut proto::Service) -> Result<(), AllocationError> {
        let networks = self.networks.clone();
        let find = |term: &str| Self::find(&networks, term).map(|at| &networks[at]);
        let ingress = networks.iter().find(|one| crate::is_ingress(one));
        if let Some(endpoint) = self.allocator.service(service, find, ingress)? {
            service.endpoint = Some(endpoint);
        }
        Ok(())
    }

    fn task(&mut self, task: &mut Task, service: &proto::Service) -> Result<(), AllocationError> {
        let networks = self.networks.clone();
        let find = |term: &str| Self::find(&networks, term).map(|at| &networks[at]);
        let ingress = networks.iter().find(|one| crate::is_ingress(one));
        task.networks = self.allocator.task(task, Some(service), find, ingress)?;
        Ok(())
    }
}

fn mesh() -> proto::Network {
    proto::Network {
        id: "mesh".to_owned(),
        spec: Some(ingress_spec()),
        ..Default::default()
    }
}

#[test]
fn networks_get_subnets_and_numbers_in_order() {
    let swarm = Swarm::new(&[
        mesh(),
        network("a", ""),
        network("b", "10.0.2.0/24"),
        network("c", ""),
    ]);
    let seen: Vec<_> = swarm
        .networks
        .iter()
        .map(|one| {
            let config = &one.ipam.as_ref().unwrap().configs[0];
            let vni = &one.driver_state.as_ref().unwrap().options[crate::network::VNI_OPTION];
            format!("{} {} {vni}", config.subnet, config.gateway)
        })
        .collect();
    assert_eq!(
        seen,
        [
            "10.0.0.0/24 10.0.0.1 4096",
            "10.0.1.0/24 10.0.1.1 4097",
            "10.0.2.0/24 10.0.2.1 4098",
            "10.0.3.0/24 10.0.3.1 4099"
        ]
    );
}

#[test]
fn overlapping_subnets_are_refused() {
    let mut swarm = Swarm::new(&[network("a", "10.5.0.0/16")]);
    let refused = swarm.allocator.network(&network("b", "10.5.3.0/24"));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "invalid pool request: Pool overlaps with other one on this address space"
    );
}

#[test]
fn a_service_gets_virtual_addresses_and_ports_and_keeps_them() {
    let mut swarm = Swarm::new(&[mesh(), network("a", "")]);
    let mut web = service("web", &["a"], &[(0, 80), (8080, 81)]);
    swarm.service(&mut web).unwrap();
    let endpoint = web.endpoint.clone().unwrap();
    let ports: Vec<_> = endpoint
        .ports
        .iter()
        .map(|port| port.published_port)
        .collect();
    assert_eq!(ports, [30_000, 8080]);
    let vips: Vec<_> = endpoint
        .virtual_ips
        .iter()
        .map(|vip| vip.addr.as_str())
        .collect();
    assert_eq!(vips, ["10.0.0.2/24", "10.0.1.2/24"]);
    swarm.service(&mut web).unwrap();
    assert_eq!(web.endpoint, Some(endpoint));
    // A new leader knows what is taken from the objects alone.
    let mut fresh = Swarm::new(&[]);
    for network in &swarm.networks {
        fresh.allocator.observe_network(network);
    }
    fresh.networks.clone_from(&swarm.networks);
    fresh.allocator.observe_service(&web);
    let mut other = service("other", &["a"], &[(0, 80)]);
    fresh.service(&mut other).unwrap();
    let endpoint = other.endpoint.unwrap();
    assert_eq!(endpoint.ports[0].published_port, 30_001);
    assert_eq!(endpoint.virtual_ips[1].addr, "10.0.1.3/24");
}

#[test]
fn a_port_of_another_service_is_refused_with_its_name() {
    let mut swarm = Swarm::new(&[mesh()]);
    swarm
        .service(&mut service("one", &[], &[(8010, 80)]))
        .unwrap();
    let refused = swarm
        .service(&mut service("two", &[], &[(8010, 80)]))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "port '8010' is already in use by service 'name-of-one' (one) as an ingress port"
    );
}

#[test]
fn a_full_network_is_named_with_its_size_and_nothing_is_left_half_taken() {
    let mut swarm = Swarm::new(&[network("wide", ""), network("tiny", "10.9.0.0/30")]);
    let owner = service("s", &["wide", "tiny"], &[]);
    let mut first = task("first");
    swarm.task(&mut first, &owner).unwrap();
    assert_eq!(first.networks[1].addresses, ["10.9.0.2/30"]);
    let held = swarm.allocator.held();
    let refused = swarm.task(&mut task("second"), &owner).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no available IPv4 addresses on network tiny: all 2 are in use"
    );
    assert_eq!(swarm.allocator.held(), held);
    first.status.state = TaskState::Failed;
    swarm.allocator.observe_task(&first);
    swarm.task(&mut task("second"), &owner).unwrap();
}

#[test]
fn a_freed_address_is_not_given_out_at_once() {
    let mut swarm = Swarm::new(&[network("a", "")]);
    let owner = service("s", &["a"], &[]);
    let (mut one, mut two) = (task("one"), task("two"));
    swarm.task(&mut one, &owner).unwrap();
    swarm.allocator.forget(&Holder::Task("one".to_owned()));
    swarm.task(&mut two, &owner).unwrap();
    assert_ne!(one.networks[0].addresses, two.networks[0].addresses);
}

proptest! {
    #[test]
    fn no_address_is_doubled_and_all_are_free_in_the_end(
        steps in proptest::collection::vec((0_u8..4, 0_usize..40), 0..200)
    ) {
        let mut swarm = Swarm::new(&[mesh(), network("a", "10.7.0.0/27")]);
        let mut tasks: Vec<Task> = Vec::new();
        let mut services: Vec<proto::Service> = Vec::new();
        for (number, (step, pick)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    let mut one = task(&format!("t{number}"));
                    if swarm.task(&mut one, &service("s", &["a"], &[(0, 80)])).is_ok() {
                        tasks.push(one);
                    }
                }
                1 => {
                    let mut one = service(&format!("s{number}"), &["a"], &[(0, 80)]);
                    if swarm.service(&mut one).is_ok() {
                        services.push(one);
                    }
                }
                2 if !tasks.is_empty() => {
                    let gone = tasks.swap_remove(pick % tasks.len());
                    swarm.allocator.forget(&Holder::Task(gone.id.to_string()));
                }
                3 if !services.is_empty() => {
                    let gone = services.swap_remove(pick % services.len());
                    swarm.allocator.forget(&Holder::Service(gone.id));
                }
                _ => {}
            }
            let of_tasks = tasks.iter().flat_map(|one| &one.networks).flat_map(|one| one.addresses.clone());
            let of_services = services.iter().flat_map(|one| &one.endpoint.as_ref().unwrap().virtual_ips).map(|one| one.addr.clone());
            let mut all: Vec<String> = of_tasks.chain(of_services).collect();
            let count = all.len();
            all.sort();
            all.dedup();
            prop_assert_eq!(all.len(), count);
            prop_assert_eq!(swarm.allocator.held(), count);
        }
        for one in tasks {
            swarm.allocator.forget(&Holder::Task(one.id.to_string()));
        }
        for one in services {
            swarm.allocator.forget(&Holder::Service(one.id));
        }
        prop_assert_eq!(swarm.allocator.held(), 0);
        let mut after = Vec::new();
        loop {
            let mut one = task(&format!("again{}", after.len()));
            if swarm.task(&mut one, &service("s", &["a"], &[])).is_err() {
                break;
            }
            after.push(one);
        }
        // 32 addresses without both ends and the gateway.
        prop_assert_eq!(after.len(), 29);
    }
}
