//! The default bridge: addresses, reachability, NAT, teardown.

mod common;

use common::{HOST, Lab, OUTSIDE, Server, ask, id, namespace, ping, port, start};

#[tokio::test]
async fn a_container_reaches_its_gateway_its_neighbour_and_the_outside() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    let first = start(&networks, 1, &[]).await;
    let second = start(&networks, 2, &[]).await;
    assert_eq!(first.ipv4.unwrap().to_string(), "172.17.0.2");
    assert_eq!(second.ipv4.unwrap().to_string(), "172.17.0.3");
    assert_eq!(first.mac.unwrap().to_string(), "02:42:ac:11:00:02");
    assert_eq!(first.gateway.unwrap().to_string(), "172.17.0.1");
    let inside = namespace(&networks, 1).await;
    assert!(ping(&inside, first.gateway.unwrap()));
    assert!(ping(&inside, second.ipv4.unwrap()));
    assert!(ping(&inside, OUTSIDE));
    let server = Server::start(&lab.outside, 8000);
    assert_eq!(
        ask(&inside, OUTSIDE, server.address.port()).unwrap(),
        HOST.to_string()
    );
    // Unpublished ports are nobody's outside.
    let _server = Server::start(&inside, 80);
    assert!(ask(&lab.outside, HOST, 80).is_err());
    networks.release(&id(1)).await.unwrap();
    networks.release(&id(2)).await.unwrap();
    networks.release(&id(2)).await.unwrap();
    lab.assert_no_containers();
}

#[tokio::test]
async fn a_freed_address_is_the_next_one_given_out() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    start(&networks, 1, &[]).await;
    start(&networks, 2, &[]).await;
    networks.release(&id(1)).await.unwrap();
    assert_eq!(
        start(&networks, 3, &[]).await.ipv4.unwrap().to_string(),
        "172.17.0.2"
    );
    let shown = networks.inspect("bridge").unwrap();
    let containers = shown.containers.unwrap();
    assert_eq!(
        containers[&id(3)].ipv4_address.as_deref(),
        Some("172.17.0.2/16")
    );
    assert_eq!(containers[&id(3)].name.as_deref(), Some("c3"));
    assert!(!containers.contains_key(&id(1)));
}

#[tokio::test]
async fn an_address_that_changes_hands_works_at_once() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    for number in 1..=10 {
        let endpoint = start(&networks, number, &[]).await;
        assert_eq!(endpoint.ipv4.unwrap().to_string(), "172.17.0.2");
        // From the host, which remembers the address's last owner, before the new one says a word.
        assert!(
            ping(&lab.host, endpoint.ipv4.unwrap()),
            "container {number}"
        );
        networks.release(&id(number)).await.unwrap();
    }
    lab.assert_no_containers();
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_cycles_leave_everything_free() {
    let lab = Lab::new();
    let networks = lab.networks().await;
    for number in 1..=300 {
        let endpoint = start(&networks, number, &[port(8080, 80)]).await;
        assert_eq!(endpoint.ipv4.unwrap().to_string(), "172.17.0.2");
        networks.release(&id(number)).await.unwrap();
    }
    lab.assert_no_containers();
    assert_eq!(lab.links("bridge"), ["docker0"]);
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(files < 60, "{files} files are open");
}
