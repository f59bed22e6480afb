//! User-defined networks, several networks on a container, isolation, modes and options.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models as m;
use common::{
    HOST, Lab, OUTSIDE, Server, ask, create, id, in_namespace, namespace, output, ping, port,
    request, start,
};
use skep_network::{EndpointRequest, LocalNetworks, NetworkErrorKind};

fn with_subnet(name: &str, config: m::IpamConfig) -> m::NetworkCreateRequest {
    let ipam = m::Ipam {
        config: Some(vec![config]),
        ..Default::default()
    };
    m::NetworkCreateRequest {
        ipam: Some(ipam),
        ..create(name)
    }
}

fn subnet(text: &str) -> m::IpamConfig {
    m::IpamConfig {
        subnet: Some(text.to_owned()),
        ..Default::default()
    }
}

async fn attach(networks: &LocalNetworks, number: u32, network: &str) -> skep_network::Endpoint {
    networks
        .connect(&id(number), &request(network, &format!("c{number}")))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_user_network_is_made_used_and_removed() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let mut config = subnet("10.5.0.0/24");
    config.ip_range = Some("10.5.0.128/25".to_owned());
    config.gateway = Some("10.5.0.254".to_owned());
    config.auxiliary_addresses = Some([("router".to_owned(), "10.5.0.128".to_owned())].into());
    let network = networks.create(with_subnet("mine", config)).await.unwrap();
    assert_eq!(networks.resolve(&network[..5]).unwrap().name, "mine");
    let first = attach(&networks, 1, "mine").await;
    assert_eq!(first.ipv4.unwrap().to_string(), "10.5.0.129");
    assert_eq!(first.gateway.unwrap().to_string(), "10.5.0.254");
    let fixed = EndpointRequest {
        ipv4: Some("10.5.0.7".parse().unwrap()),
        ..request("mine", "c2")
    };
    assert_eq!(
        networks.connect(&id(2), &fixed).await.unwrap().ipv4,
        fixed.ipv4
    );
    let inside = namespace(&networks, 1).await;
    assert!(
        ping(&inside, [10, 5, 0, 254]) && ping(&inside, [10, 5, 0, 7]) && ping(&inside, OUTSIDE)
    );
    let same = EndpointRequest {
        container_name: "c3".to_owned(),
        ..fixed.clone()
    };
    assert_eq!(
        networks
            .connect(&id(3), &same)
            .await
            .unwrap_err()
            .to_string(),
        "Address already in use"
    );
    let busy = networks.remove("mine").await.unwrap_err();
    assert_eq!(busy.kind(), NetworkErrorKind::Forbidden);
    let text = busy.to_string();
    assert!(
        text.starts_with(
            "error while removing network: network mine has active endpoints (name:\"c1\" id:\""
        ),
        "{text}"
    );
    for number in [1, 2] {
        networks.release(&id(number)).await.unwrap();
    }
    assert_eq!(networks.remove("mine").await.unwrap().id, network);
    assert_eq!(
        networks.inspect("mine").unwrap_err().to_string(),
        "network mine not found"
    );
    assert_eq!(lab.links("bridge"), ["docker0"]);
    assert!(!lab.ruleset().contains("10.5.0.0"));
    lab.assert_no_containers();
}

#[tokio::test]
async fn bad_networks_are_refused_in_dockers_words_and_leave_nothing() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    networks
        .create(with_subnet("mine", subnet("10.5.0.0/24")))
        .await
        .unwrap();
    let refusals = [
        (create("mine"), "network with name mine already exists"),
        (
            create("host"),
            "operation is not permitted on predefined host network ",
        ),
        (create(""), "invalid name: name is empty"),
        (
            with_subnet("other", subnet("10.5.0.128/25")),
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            with_subnet("other", subnet("10.6.0.1/24")),
            "invalid network config:\ninvalid subnet 10.6.0.1/24: it should be 10.6.0.0/24",
        ),
        (
            with_subnet(
                "other",
                m::IpamConfig {
                    gateway: Some("10.7.0.1".to_owned()),
                    ..subnet("10.6.0.0/24")
                },
            ),
            "invalid network config:\ninvalid gateway 10.7.0.1: parent subnet 10.6.0.0/24 doesn't contain this address",
        ),
        (
            m::NetworkCreateRequest {
                driver: Some("nonsense".to_owned()),
                ..create("other")
            },
            "could not find plugin nonsense in v1 plugin registry: plugin not found",
        ),
        (
            m::NetworkCreateRequest {
                driver: Some("macvlan".to_owned()),
                ..create("other")
            },
            "networks of driver macvlan are not available in skep yet",
        ),
        (
            m::NetworkCreateRequest {
                options: Some([("made.up".to_owned(), "1".to_owned())].into()),
                ..create("other")
            },
            "network option made.up=1 is not supported by skep yet",
        ),
    ];
    for (wanted, text) in refusals {
        assert_eq!(networks.create(wanted).await.unwrap_err().to_string(), text);
    }
    for predefined in ["bridge", "host", "none"] {
        let text = format!("{predefined} is a pre-defined network and cannot be removed");
        assert_eq!(
            networks.remove(predefined).await.unwrap_err().to_string(),
            text
        );
    }
    assert_eq!(networks.list().len(), 4);
    assert_eq!(lab.links("bridge").len(), 2);
    // A bridge that cannot be made: the name is an interface that is none.
    let named = [(
        "com.docker.network.bridge.name".to_owned(),
        "uplink".to_owned(),
    )];
    let wanted = m::NetworkCreateRequest {
        options: Some(named.into()),
        ..create("other")
    };
    assert!(networks.create(wanted).await.is_err());
    assert_eq!(
        lab.links("veth"),
        ["uplink"],
        "and it is not removed for that"
    );
    assert_eq!(networks.list().len(), 4);
}

#[tokio::test]
async fn a_bridge_that_was_there_before_its_network_is_there_after_it() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    in_namespace(&lab.host, || {
        output(
            "sh",
            &[
                "-c",
                "ip link add shared type bridge; ip addr add 10.8.0.1/24 dev shared",
            ],
        )
    });
    let named = [(
        "com.docker.network.bridge.name".to_owned(),
        "shared".to_owned(),
    )];
    let wanted = m::NetworkCreateRequest {
        options: Some(named.into()),
        ..with_subnet("mine", subnet("10.5.0.0/24"))
    };
    networks.create(wanted).await.unwrap();
    attach(&networks, 1, "mine").await;
    assert!(ping(&namespace(&networks, 1).await, [10, 5, 0, 1]));
    networks.release(&id(1)).await.unwrap();
    networks.remove("mine").await.unwrap();
    let addresses = in_namespace(&lab.host, || {
        output("ip", &["-4", "-o", "addr", "show", "dev", "shared"])
    });
    assert!(
        addresses.contains("10.8.0.1/24") && !addresses.contains("10.5.0.1"),
        "{addresses}"
    );
}

#[tokio::test]
async fn networks_do_not_reach_each_other_except_through_published_ports() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    networks.create(create("mine")).await.unwrap();
    let first = start(&networks, 1, &[port(8080, 80)]).await;
    let second = attach(&networks, 2, "mine").await;
    assert_eq!(second.ipv4.unwrap().to_string(), "172.18.0.2");
    let (one, two) = (namespace(&networks, 1).await, namespace(&networks, 2).await);
    let _server = Server::start(&one, 80);
    assert!(!ping(&one, second.ipv4.unwrap()) && !ping(&two, first.ipv4.unwrap()));
    assert!(ask(&two, first.ipv4.unwrap(), 80).is_err());
    assert!(ask(&two, HOST, 8080).is_ok());
    // Nor does the outside, should it have a route.
    in_namespace(&lab.outside, || {
        output("ip", &["route", "add", "172.16.0.0/12", "via", "10.99.0.1"])
    });
    assert!(!ping(&lab.outside, first.ipv4.unwrap()));
    assert!(ask(&lab.outside, first.ipv4.unwrap(), 80).is_err());
    assert!(ping(&lab.host, first.ipv4.unwrap()));
}

#[tokio::test]
async fn an_internal_network_leads_nowhere_else() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let wanted = m::NetworkCreateRequest {
        internal: Some(true),
        ..create("inner")
    };
    networks.create(wanted).await.unwrap();
    let first = attach(&networks, 1, "inner").await;
    let second = attach(&networks, 2, "inner").await;
    assert_eq!(first.gateway, None);
    let inside = namespace(&networks, 1).await;
    assert!(ping(&inside, second.ipv4.unwrap()));
    assert!(!ping(&inside, OUTSIDE));
    let gateway = Ipv4Addr::from(u32::from(first.ipv4.unwrap()) & 0xffff_0000 | 1);
    in_namespace(&inside, || {
        output(
            "ip",
            &["route", "add", "default", "via", &gateway.to_string()],
        )
    });
    assert!(!ping(&inside, OUTSIDE), "not even with a route");
}

#[tokio::test]
async fn without_icc_only_published_ports_connect_containers() {
    for bridged_frames_pass_rules in ["0", "1"] {
        let lab = Lab::new();
        let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        in_namespace(&lab.host, || {
            std::fs::write(switch, bridged_frames_pass_rules)
        })
        .unwrap();
        let mut config = lab.config();
        config.icc = false;
        let networks = LocalNetworks::open(config).await.unwrap();
        let first = start(&networks, 1, &[port(8080, 80)]).await;
        start(&networks, 2, &[]).await;
        let (one, two) = (namespace(&networks, 1).await, namespace(&networks, 2).await);
        let _server = Server::start(&one, 80);
        assert!(!ping(&two, first.ipv4.unwrap()));
        assert!(ask(&two, first.ipv4.unwrap(), 80).is_err());
        assert!(ping(&two, OUTSIDE));
        assert!(ask(&two, HOST, 8080).is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_on_several_networks_routes_by_priority_and_keeps_its_ports() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    networks
        .create(with_subnet("zeta", subnet("10.5.0.0/24")))
        .await
        .unwrap();
    networks
        .create(with_subnet("alpha", subnet("10.6.0.0/24")))
        .await
        .unwrap();
    let mut wanted = EndpointRequest {
        ports: vec![port(8080, 80)],
        ..request("zeta", "c1")
    };
    assert_eq!(
        networks.connect(&id(1), &wanted).await.unwrap().interface,
        "eth0"
    );
    let inside = namespace(&networks, 1).await;
    let _server = Server::start(&inside, 80);
    let route = || in_namespace(&inside, || output("ip", &["route", "show", "default"]));
    assert!(route().contains("via 10.5.0.1 dev eth0"));
    // The name that sorts first takes over, with the ports.
    wanted.network = "alpha".to_owned();
    let second = networks.connect(&id(1), &wanted).await.unwrap();
    assert_eq!((second.interface.as_str(), second.ports.len()), ("eth1", 2));
    assert!(route().contains("via 10.6.0.1 dev eth1"));
    assert!(ask(&lab.outside, HOST, 8080).is_ok());
    // A priority beats names.
    let prior = EndpointRequest {
        gateway_priority: 1,
        network: "bridge".to_owned(),
        ..wanted.clone()
    };
    networks.connect(&id(1), &prior).await.unwrap();
    assert!(route().contains("via 172.17.0.1 dev eth2"));
    let text = networks
        .connect(&id(1), &wanted)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "endpoint with name c1 already exists in network alpha"
    );
    networks.disconnect(&id(1), "bridge").await.unwrap();
    networks.disconnect(&id(1), "alpha").await.unwrap();
    assert!(route().contains("via 10.5.0.1 dev eth0"));
    assert!(ask(&lab.outside, HOST, 8080).is_ok());
    let text = networks
        .disconnect(&id(1), "alpha")
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        format!("container {} is not connected to network alpha", id(1))
    );
    networks.disconnect(&id(1), "zeta").await.unwrap();
    assert_eq!(route(), "");
    networks.release(&id(1)).await.unwrap();
    lab.assert_no_containers();
}

#[tokio::test]
async fn host_and_none_exclude_other_networks() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let on_host = attach(&networks, 1, "host").await;
    assert_eq!((on_host.ipv4, on_host.interface.as_str()), (None, ""));
    assert!(
        networks
            .connect(&id(1), &request("bridge", "c1"))
            .await
            .is_err()
    );
    assert!(networks.disconnect(&id(1), "host").await.is_err());
    attach(&networks, 2, "none").await;
    let alone = namespace(&networks, 2).await;
    assert!(ping(&alone, Ipv4Addr::LOCALHOST) && !ping(&alone, OUTSIDE));
    let links = in_namespace(&alone, || output("ip", &["-o", "link"]));
    assert_eq!(links.lines().count(), 1, "{links}");
    assert!(
        networks
            .connect(&id(2), &request("bridge", "c2"))
            .await
            .is_err()
    );
    assert!(
        networks
            .inspect("none")
            .unwrap()
            .containers
            .unwrap()
            .contains_key(&id(2))
    );
    for number in [1, 2] {
        networks.release(&id(number)).await.unwrap();
    }
    lab.assert_no_containers();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_with_ipv6_routes_translates_and_publishes_it() {
    let lab = Lab::new();
    let (near, far): (IpAddr, IpAddr) = ("fd99::1".parse().unwrap(), "fd99::2".parse().unwrap());
    for (space, device, address) in [(&lab.host, "uplink", near), (&lab.outside, "eth0", far)] {
        let address = format!("{address}/64");
        in_namespace(space, || {
            output("ip", &["addr", "add", &address, "dev", device, "nodad"])
        });
    }
    let networks = lab.networks().await;
    let wanted = m::NetworkCreateRequest {
        enable_ipv6: Some(true),
        ..create("six")
    };
    networks.create(wanted).await.unwrap();
    let wanted = EndpointRequest {
        ports: vec![port(8080, 80)],
        ..request("six", "c1")
    };
    let endpoint = networks.connect(&id(1), &wanted).await.unwrap();
    let address = endpoint.ipv6.unwrap();
    assert!(address.to_string().starts_with("fd"), "{address}");
    let inside = namespace(&networks, 1).await;
    assert!(
        ping(&inside, endpoint.gateway6.unwrap()) && ping(&inside, far) && ping(&inside, OUTSIDE)
    );
    let everywhere = std::net::SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 80);
    let _server = Server::start_on(&inside, everywhere);
    assert_eq!(ask(&lab.outside, near, 8080).unwrap(), far.to_string());
    assert!(ask(&lab.host, Ipv6Addr::LOCALHOST, 8080).is_ok());
    assert!(ask(&lab.outside, HOST, 8080).is_ok());
    networks.release(&id(1)).await.unwrap();
    networks.remove("six").await.unwrap();
    lab.assert_no_containers();
}

#[tokio::test]
async fn containers_on_ipv4_networks_have_no_ipv6_address() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    start(&networks, 1, &[]).await;
    let inside = namespace(&networks, 1).await;
    let addresses = in_namespace(&inside, || {
        output("ip", &["-6", "-o", "addr", "show", "dev", "eth0"])
    });
    assert_eq!(addresses, "");
}

#[tokio::test]
async fn two_daemons_share_a_namespace_with_different_bridges() {
    let lab = Lab::new();
    let first = lab.networks().await;
    let mut config = lab.config();
    config.data_root = lab.directory.path().join("data2");
    config.exec_root = lab.directory.path().join("exec2");
    config.bridge = Some("docker1".to_owned());
    let second = LocalNetworks::open(config).await.unwrap();
    start(&first, 1, &[port(8080, 80)]).await;
    let other = start(&second, 2, &[]).await;
    assert_eq!(other.ipv4.unwrap().to_string(), "172.18.0.2");
    assert!(ping(&namespace(&second, 2).await, OUTSIDE));
    // The one's port is the other's taken port: the socket says so.
    let mut wanted = request("bridge", "c3");
    wanted.ports = vec![port(8080, 80)];
    let text = second
        .connect(&id(3), &wanted)
        .await
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("address already in use"), "{text}");
    let rules = lab.ruleset();
    assert!(rules.contains("table ip skep-docker0") && rules.contains("table ip skep-docker1"));
    second.release(&id(2)).await.unwrap();
    first.release(&id(1)).await.unwrap();
    lab.assert_no_containers();
}

#[tokio::test]
async fn the_default_bridge_avoids_what_the_host_reaches_already() {
    let lab = Lab::new();
    in_namespace(&lab.host, || {
        output("ip", &["route", "add", "172.17.3.0/24", "via", "10.99.0.2"])
    });
    let networks = lab.networks().await;
    assert_eq!(
        start(&networks, 1, &[]).await.ipv4.unwrap().to_string(),
        "172.18.0.2"
    );
    assert_eq!(networks.host_gateway().unwrap().to_string(), "172.18.0.1");
}

#[tokio::test]
async fn a_full_network_says_so_and_options_of_the_default_bridge_hold() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.bip = Some("192.168.7.1/24".parse().unwrap());
    config.fixed_cidr = Some("192.168.7.128/30".parse().unwrap());
    config.default_gateway = Some("192.168.7.129".parse().unwrap());
    config.mtu = 1400;
    let networks = LocalNetworks::open(config).await.unwrap();
    let mut addresses = Vec::new();
    for number in 1..=3 {
        let endpoint = start(&networks, number, &[]).await;
        assert_eq!(endpoint.gateway.unwrap().to_string(), "192.168.7.129");
        addresses.push(endpoint.ipv4.unwrap().to_string());
    }
    assert_eq!(
        addresses,
        ["192.168.7.128", "192.168.7.130", "192.168.7.131"]
    );
    let text = networks
        .connect(&id(4), &request("bridge", "c4"))
        .await
        .unwrap_err()
        .to_string();
    let bridge = networks.resolve("bridge").unwrap().id;
    assert_eq!(
        text,
        format!("no available IPv4 addresses on this network's address pools: bridge ({bridge})")
    );
    let link = in_namespace(&namespace(&networks, 1).await, || {
        output("ip", &["link", "show", "eth0"])
    });
    assert!(link.contains("mtu 1400"), "{link}");
    let fixed = EndpointRequest {
        ipv4: Some("192.168.7.9".parse().unwrap()),
        ..request("bridge", "c5")
    };
    let text = networks
        .connect(&id(5), &fixed)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only"
    );
}

#[tokio::test]
async fn without_a_default_bridge_there_are_host_and_none() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.bridge = Some("none".to_owned());
    let networks = LocalNetworks::open(config).await.unwrap();
    let mut names: Vec<_> = networks
        .list()
        .into_iter()
        .filter_map(|one| one.name)
        .collect();
    names.sort();
    assert_eq!(names, ["host", "none"]);
    assert_eq!(
        networks
            .connect(&id(1), &request("bridge", "c1"))
            .await
            .unwrap_err()
            .to_string(),
        "network bridge not found"
    );
    assert!(lab.links("bridge").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_containers_at_once_get_different_addresses_and_leave_nothing() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    for _ in 0..2 {
        let tasks: Vec<_> = (1..=40)
            .map(|number| {
                let networks = networks.clone();
                tokio::spawn(async move {
                    start(&networks, number, &[port(9000 + number as u16, 80)]).await
                })
            })
            .collect();
        let mut addresses = std::collections::BTreeSet::new();
        for task in tasks {
            addresses.insert(task.await.unwrap().ipv4.unwrap());
        }
        assert_eq!(addresses.len(), 40);
        assert_eq!(addresses.last().unwrap().to_string(), "172.17.0.41");
        let tasks: Vec<_> = (1..=40)
            .map(|number| {
                let networks = networks.clone();
                tokio::spawn(async move { networks.release(&id(number)).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        lab.assert_no_containers();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_bridge_can_have_ipv6_and_rules_for_it_can_be_off() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.ipv6 = true;
    config.fixed_cidr_v6 = Some("fd77::/64".parse().unwrap());
    config.ip6tables = false;
    let networks = LocalNetworks::open(config).await.unwrap();
    let endpoint = start(&networks, 1, &[port(8080, 80)]).await;
    assert_eq!(endpoint.ipv6.unwrap().to_string(), "fd77::2");
    let inside = namespace(&networks, 1).await;
    assert!(ping(&inside, endpoint.gateway6.unwrap()));
    assert!(!lab.ruleset().contains("table ip6"));
    let everywhere = std::net::SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 80);
    let _server = Server::start_on(&inside, everywhere);
    assert!(ask(&lab.host, Ipv6Addr::LOCALHOST, 8080).is_ok());
    networks.release(&id(1)).await.unwrap();
}

#[tokio::test]
async fn endpoint_options_name_the_interface_and_set_it_up() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let mut wanted = request("bridge", "c1");
    wanted.driver_options = [
        (
            "com.docker.network.endpoint.ifname".to_owned(),
            "web0".to_owned(),
        ),
        (
            "com.docker.network.endpoint.sysctls".to_owned(),
            "net.ipv4.conf.IFNAME.log_martians=1".to_owned(),
        ),
    ]
    .into();
    assert_eq!(
        networks.connect(&id(1), &wanted).await.unwrap().interface,
        "web0"
    );
    let inside = namespace(&networks, 1).await;
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/web0/log_martians").unwrap();
    assert_eq!(in_namespace(&inside, read), "1\n");
    assert!(ping(&inside, OUTSIDE));
    wanted.driver_options = [("made.up".to_owned(), "1".to_owned())].into();
    assert_eq!(
        networks.connect(&id(2), &wanted).await.unwrap_err().kind(),
        NetworkErrorKind::NotImplemented
    );
}

#[tokio::test]
async fn somebody_elses_dropping_forward_chain_is_warned_of() {
    let lab = Lab::new();
    let rules = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    in_namespace(&lab.host, || output("nft", &[rules]));
    let networks = lab.networks().await;
    let warnings = networks.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("WARNING: chain ip filter FORWARD drops"),
        "{warnings:?}"
    );
}
