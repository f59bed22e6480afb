//! Published ports, asked from everywhere.

mod common;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use common::{
    HOST, Lab, OUTSIDE, Server, ask, ask_udp, id, in_namespace, namespace, output, ping, port,
    request, serve_udp, start,
};
use skep_network::{NetworkErrorKind, PortRequest, Protocol};

const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_answers_everywhere() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let web = start(&networks, 1, &[port(8080, 80)]).await;
    let _neighbour = start(&networks, 2, &[]).await;
    let (web_space, neighbour) = (namespace(&networks, 1).await, namespace(&networks, 2).await);
    let _server = Server::start(&web_space, 80);
    // From outside, with the client's own address.
    assert_eq!(ask(&lab.outside, HOST, 8080).unwrap(), OUTSIDE.to_string());
    // From the host to its own address and to localhost.
    assert_eq!(ask(&lab.host, HOST, 8080).unwrap(), HOST.to_string());
    assert_eq!(ask(&lab.host, LOCALHOST, 8080).unwrap(), "172.17.0.1");
    assert!(ask(&lab.host, Ipv6Addr::LOCALHOST, 8080).is_ok());
    // From a neighbour, and from the container itself.
    assert!(ask(&neighbour, HOST, 8080).is_ok());
    assert!(ask(&neighbour, [172, 17, 0, 1], 8080).is_ok());
    assert!(ask(&web_space, HOST, 8080).is_ok());
    // What is shown.
    let shown: Vec<String> = web
        .ports
        .iter()
        .map(|port| format!("{}:{}", port.host_ip, port.host_port))
        .collect();
    assert_eq!(shown, ["0.0.0.0:8080", ":::8080"]);
    let listening = in_namespace(&lab.host, || output("busybox", &["netstat", "-ltn"]));
    assert!(
        listening.contains("0.0.0.0:8080") && listening.contains(":::8080"),
        "{listening}"
    );
    networks.release(&id(1)).await.unwrap();
    assert!(ask(&lab.outside, HOST, 8080).is_err());
    networks.release(&id(2)).await.unwrap();
    lab.assert_no_containers();
    // And at once free for others.
    in_namespace(&lab.host, || TcpListener::bind(("0.0.0.0", 8080)).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_on_one_address_answers_only_there() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let local = PortRequest {
        host_ip: Some(LOCALHOST.into()),
        ..port(8080, 80)
    };
    let uplink = PortRequest {
        host_ip: Some(HOST.into()),
        ..port(8081, 80)
    };
    start(&networks, 1, &[local, uplink]).await;
    let _server = Server::start(&namespace(&networks, 1).await, 80);
    assert!(ask(&lab.host, LOCALHOST, 8080).is_ok());
    assert!(ask(&lab.host, HOST, 8080).is_err());
    assert!(ask(&lab.outside, HOST, 8080).is_err());
    assert!(ask(&lab.outside, HOST, 8081).is_ok());
    assert!(ask(&lab.host, LOCALHOST, 8081).is_err());
    // A neighbour that sends to 127.0.0.1 through us gets nothing.
    in_namespace(&lab.outside, || {
        output(
            "sh",
            &[
                "-c",
                "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip route add 127.0.0.0/8 via 10.99.0.1 table 7; ip rule add to 127.0.0.0/8 table 7 pref 0; ip rule del pref 0 table local; ip rule add pref 1 table local",
            ],
        )
    });
    assert!(ask(&lab.outside, LOCALHOST, 8080).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_ports_answer_by_rule_and_by_proxy() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let udp = PortRequest {
        protocol: Protocol::Udp,
        ..port(5353, 53)
    };
    start(&networks, 1, &[udp]).await;
    serve_udp(&namespace(&networks, 1).await, 53);
    assert_eq!(
        ask_udp(&lab.outside, SocketAddr::new(HOST.into(), 5353)).unwrap(),
        OUTSIDE.to_string()
    );
    assert!(ask_udp(&lab.host, SocketAddr::new(LOCALHOST.into(), 5353)).is_ok());
    let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 5353);
    assert_eq!(ask_udp(&lab.host, six).unwrap(), "172.17.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_refused_in_dockers_words_and_nothing_is_left() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    start(&networks, 1, &[port(8080, 80)]).await;
    let mut wanted = request("bridge", "second");
    wanted.ports = vec![port(9090, 81), port(8080, 80)];
    let error = networks.connect(&id(2), &wanted).await.unwrap_err();
    assert_eq!(error.kind(), NetworkErrorKind::System);
    let text = error.to_string();
    assert!(
        text.starts_with("driver failed programming external connectivity on endpoint second ("),
        "{text}"
    );
    assert!(
        text.ends_with("): Bind for 0.0.0.0:8080 failed: port is already allocated"),
        "{text}"
    );
    // A program of the host's.
    let _other = in_namespace(&lab.host, || TcpListener::bind(("0.0.0.0", 7070)).unwrap());
    wanted.ports = vec![port(7070, 80)];
    let text = networks
        .connect(&id(2), &wanted)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.ends_with("failed to bind host port 0.0.0.0:7070/tcp: address already in use"),
        "{text}"
    );
    assert!(networks.endpoints(&id(2)).is_empty());
    // Everything of the two attempts is free again.
    wanted.ports = vec![port(9090, 80)];
    let second = networks.connect(&id(2), &wanted).await.unwrap();
    assert_eq!(second.ipv4.unwrap().to_string(), "172.17.0.3");
    for number in [1, 2] {
        networks.release(&id(number)).await.unwrap();
    }
    lab.assert_no_containers();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_ephemeral_ports_find_a_free_one() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let _other = in_namespace(&lab.host, || TcpListener::bind(("0.0.0.0", 7000)).unwrap());
    let range = PortRequest {
        host_ports: (7000, 7002),
        ..port(0, 80)
    };
    let first = start(&networks, 1, std::slice::from_ref(&range)).await;
    let second = start(&networks, 2, std::slice::from_ref(&range)).await;
    assert_eq!(
        (first.ports[0].host_port, second.ports[0].host_port),
        (7001, 7002)
    );
    let mut wanted = request("bridge", "third");
    wanted.ports = vec![range];
    assert!(networks.connect(&id(3), &wanted).await.is_err());
    let any = PortRequest {
        host_ports: (0, 0),
        ..port(0, 80)
    };
    let third = start(
        &networks,
        3,
        &[
            any.clone(),
            PortRequest {
                container_port: 81,
                ..any
            },
        ],
    )
    .await;
    let (one, two) = (third.ports[0].host_port, third.ports[2].host_port);
    assert!(one >= 32768 && two > one, "{one} {two}");
    assert_eq!(
        third.ports[1].host_port, one,
        "IPv4 and IPv6 share the number"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_the_proxy_serves_all() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.iptables = false;
    config.ip6tables = false;
    let networks = skep_network::LocalNetworks::open(config.clone())
        .await
        .unwrap();
    start(&networks, 1, &[port(8080, 80)]).await;
    let inside = namespace(&networks, 1).await;
    let _server = Server::start(&inside, 80);
    assert_eq!(ask(&lab.outside, HOST, 8080).unwrap(), "172.17.0.1");
    assert!(ask(&lab.host, LOCALHOST, 8080).is_ok());
    assert!(!lab.ruleset().contains("skep"));
    assert!(ping(&inside, [172, 17, 0, 1]));
    networks.release(&id(1)).await.unwrap();
    networks.close().await;
    config.userland_proxy = false;
    let networks = skep_network::LocalNetworks::open(config).await.unwrap();
    let mut wanted = request("bridge", "c1");
    wanted.ports = vec![port(8080, 80)];
    assert!(networks.connect(&id(1), &wanted).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn hairpins_work_when_bridged_frames_pass_the_ip_rules() {
    let lab = Lab::new();
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    for value in ["0", "1"] {
        in_namespace(&lab.host, || std::fs::write(switch, value)).unwrap();
        let networks = lab.networks().await;
        start(&networks, 1, &[port(8080, 80)]).await;
        start(&networks, 2, &[]).await;
        let (web, neighbour) = (namespace(&networks, 1).await, namespace(&networks, 2).await);
        let _server = Server::start(&web, 80);
        assert!(ask(&web, HOST, 8080).is_ok(), "itself, {value}");
        assert!(ask(&neighbour, HOST, 8080).is_ok(), "neighbour, {value}");
        assert!(ping(&neighbour, [172, 17, 0, 2]), "ping, {value}");
        for number in [1, 2] {
            networks.release(&id(number)).await.unwrap();
        }
    }
}
