//! A daemon that ends, in order or not, and the one that comes after it.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use common::{HOST, Lab, Server, ask, id, in_namespace, namespace, ping, port, request, start};
use skep_netlink::{Namespace, RouteSocket, VethPair};
use skep_network::LocalNetworks;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_touches_neither_containers_nor_connections() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let before = start(&networks, 1, &[port(8080, 80)]).await;
    let inside = namespace(&networks, 1).await;
    let listener = in_namespace(&inside, || TcpListener::bind("0.0.0.0:80").unwrap());
    let mut client = in_namespace(&lab.outside, || {
        TcpStream::connect(SocketAddr::new(HOST.into(), 8080)).unwrap()
    });
    let (mut server, _) = listener.accept().unwrap();
    networks.close().await;
    drop(networks);
    // With no daemon at all, the port still answers.
    let mut second = in_namespace(&lab.outside, || {
        TcpStream::connect(SocketAddr::new(HOST.into(), 8080)).unwrap()
    });
    second.write_all(b"x").unwrap();
    let networks = lab.networks().await;
    let report = networks.restore(&[id(1)]).await;
    assert_eq!(report, skep_network::RestoreReport::default());
    assert_eq!(networks.endpoints(&id(1)), [before]);
    for text in [b"one", b"two"] {
        server.write_all(text).unwrap();
        let mut received = [0; 3];
        client.read_exact(&mut received).unwrap();
        assert_eq!(&received, text);
    }
    assert!(ping(&inside, [172, 17, 0, 1]));
    // Nothing that is taken is given away: neither the address nor the port.
    assert_eq!(
        start(&networks, 2, &[]).await.ipv4.unwrap().to_string(),
        "172.17.0.3"
    );
    let mut wanted = request("bridge", "third");
    wanted.ports = vec![port(8080, 80)];
    assert!(networks.connect(&id(3), &wanted).await.is_err());
    assert!(in_namespace(&lab.host, || TcpListener::bind("0.0.0.0:8080")).is_err());
    for number in [1, 2] {
        networks.release(&id(number)).await.unwrap();
    }
    lab.assert_no_containers();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_active_container_is_removed() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    start(&networks, 1, &[port(8080, 80)]).await;
    start(&networks, 2, &[]).await;
    networks.close().await;
    drop(networks);
    // As if a daemon had died between making an interface and writing it down.
    let stray = Namespace::create_at(
        &lab.directory.path().join("exec/netns/abcdefabcdef"),
        || Ok(()),
    )
    .unwrap()
    .0;
    let mut route = RouteSocket::open_in(&lab.host).unwrap();
    let master = Some(route.link("docker0").unwrap().unwrap().index);
    let pair = VethPair {
        name: "vethabcdef0",
        mtu: 1500,
        master,
        peer_name: "eth0",
        peer_namespace: &stray,
        peer_mac: None,
    };
    route.create_veth(&pair).unwrap();
    let networks = lab.networks().await;
    let report = networks.restore(&[id(2), id(9)]).await;
    assert_eq!(report.lost, [id(9)]);
    assert!(
        report.removed.contains(&id(1)) && report.removed.contains(&"vethabcdef0".to_owned()),
        "{report:?}"
    );
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(lab.links("veth").len(), 2, "the uplink and container 2");
    assert!(!lab.ruleset().contains("elements = { tcp"));
    networks.release(&id(2)).await.unwrap();
    lab.assert_no_containers();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_interface_is_gone_is_reported_and_cleaned() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    start(&networks, 1, &[port(8080, 80)]).await;
    networks.close().await;
    drop(networks);
    let veth = lab
        .links("veth")
        .into_iter()
        .find(|name| name != "uplink")
        .unwrap();
    RouteSocket::open_in(&lab.host)
        .unwrap()
        .delete_link(&veth)
        .unwrap();
    let networks = lab.networks().await;
    let report = networks.restore(&[id(1)]).await;
    assert_eq!(report.lost, [id(1)]);
    lab.assert_no_containers();
    start(&networks, 1, &[port(8080, 80)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_somebody_removed_are_back_after_a_restart() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    start(&networks, 1, &[port(8080, 80)]).await;
    let _server = Server::start(&namespace(&networks, 1).await, 80);
    in_namespace(&lab.host, || common::output("nft", &["flush", "ruleset"]));
    networks.close().await;
    drop(networks);
    let networks = lab.networks().await;
    networks.restore(&[id(1)]).await;
    assert!(ask(&lab.outside, HOST, 8080).is_ok());
    // And while running: taking a port away puts the rest right.
    in_namespace(&lab.host, || common::output("nft", &["flush", "ruleset"]));
    start(&networks, 2, &[]).await;
    networks.release(&id(1)).await.unwrap();
    assert!(lab.ruleset().contains("masquerade"));
    networks.release(&id(2)).await.unwrap();
    lab.assert_no_containers();
}

#[tokio::test]
async fn ids_and_user_networks_survive_and_options_apply_anew() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let bridge = networks.resolve("bridge").unwrap().id;
    let mine = networks.create(common::create("mine")).await.unwrap();
    let shown = networks.inspect(&mine).unwrap();
    networks.close().await;
    drop(networks);
    in_namespace(&lab.host, || {
        common::output(
            "sh",
            &[
                "-c",
                "ip link del docker0; ip link del $(ip -o link | grep -o 'br-[0-9a-f]*' | head -1)",
            ],
        )
    });
    let mut config = lab.config();
    config.bip = Some("192.168.5.1/24".parse().unwrap());
    let networks = LocalNetworks::open(config).await.unwrap();
    assert_eq!(networks.resolve("bridge").unwrap().id, bridge);
    assert_eq!(networks.inspect("mine").unwrap(), shown);
    let first = start(&networks, 1, &[]).await;
    assert_eq!(first.ipv4.unwrap().to_string(), "192.168.5.2");
    assert!(ping(&namespace(&networks, 1).await, [192, 168, 5, 1]));
    assert_eq!(lab.links("bridge").len(), 2);
}
