//! The swarm under test, and how to speak to it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use skep_ca::JoinToken;
use skep_lab::{Api, Fabric};
use skep_proto as proto;
use skep_proto::control_client::ControlClient;
use skep_rpc::{Connector, NodeSecurity, Remotes};
use skep_testkit::{Lab, LabNode};
use tonic::transport::Channel;

const PORT: u16 = 2377;
const SETTLED_BOUND: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Cluster {
    lab: Lab,
}

impl Cluster {
    /// A swarm of managers without anything in it.
    pub(crate) fn start(managers: usize) -> anyhow::Result<Self> {
        let lab = Lab::builder().managers(managers).start()?;
        Ok(Self { lab })
    }

    /// Runs a measurement beside the nodes, on their network.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.lab.inside(Fabric::OUTSIDE, || {
            // Threads belong where the one is that made them. That one has a small stack.
            std::thread::scope(|scope| scope.spawn(|| self.run_here(work)).join())
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run_here<T>(&self, work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work(self))
    }

    fn api(node: &LabNode) -> Api {
        Api::new(&node.name, &node.socket())
    }

    pub(crate) fn token(&self, role: &str) -> anyhow::Result<JoinToken> {
        let node = self.lab.nodes().first().context("a lab of no nodes")?;
        let swarm = Self::api(node).call("tell its join tokens", "GET", "/swarm", None)?;
        let token = swarm["JoinTokens"][role].as_str().context("no token")?;
        Ok(token.parse()?)
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let nodes = self.lab.nodes().iter();
        nodes
            .map(|node| format!("{}:{PORT}", node.address))
            .collect()
    }

    /// Nodes as the first manager that answers lists them.
    fn nodes(&self) -> Option<Vec<Value>> {
        let listed = self.lab.nodes().iter().find_map(|node| {
            let answer = Self::api(node).call("list the nodes", "GET", "/nodes", None);
            answer.ok()
        })?;
        listed.as_array().cloned()
    }

    /// The leader's name and address, once all managers are reachable again.
    pub(crate) async fn leader(&self) -> anyhow::Result<(String, String)> {
        let found = async {
            loop {
                if let Some(leader) = tokio::task::block_in_place(|| self.settled_leader()) {
                    return leader;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(SETTLED_BOUND, found)
            .await
            .context("the managers do not settle")
    }

    fn settled_leader(&self) -> Option<(String, String)> {
        let nodes = self.nodes()?;
        let managers: Vec<&Value> = nodes
            .iter()
            .map(|node| &node["ManagerStatus"])
            .filter(|status| status["Addr"].is_string())
            .collect();
        let reachable = |status: &&&Value| status["Reachability"] == "reachable";
        if managers.iter().filter(reachable).count() != self.lab.nodes().len() {
            return None;
        }
        let leader = managers.iter().find(|status| status["Leader"] == true)?;
        let address = leader["Addr"].as_str()?.to_owned();
        let mut nodes = self.lab.nodes().iter();
        let node = nodes.find(|node| address == format!("{}:{PORT}", node.address))?;
        Some((node.name.clone(), address))
    }

    /// What speaks to managers as one of them does, so that it may create services. It holds a
    /// manager's certificate and is none.
    pub(crate) async fn operator(&self) -> anyhow::Result<Connector> {
        let remotes = Remotes::of_addrs(self.addresses());
        let active = proto::node_spec::Availability::Active;
        let token = self.token("Manager")?;
        let admission = skep_rpc::admission(&remotes, &token, active).await?;
        let security = NodeSecurity::new(&admission.root, admission.certificate)?;
        Ok(Connector::new(Arc::new(security)))
    }

    pub(crate) fn kill(&self, name: &str) {
        tokio::task::block_in_place(|| self.lab.kill(name));
    }

    pub(crate) fn start_again(&self, name: &str) {
        tokio::task::block_in_place(|| self.lab.start(name));
    }
}

pub(crate) async fn control(
    operator: &Connector,
    address: &str,
) -> anyhow::Result<ControlClient<Channel>> {
    let channel = operator.connect(address).await?;
    Ok(ControlClient::new(channel).max_decoding_message_size(usize::MAX))
}

/// A service of so many tasks, or of one on every node.
pub(crate) fn service(name: &str, replicas: Option<u64>) -> proto::CreateServiceRequest {
    use proto::service_spec::Mode;
    let container = proto::ContainerSpec {
        image: "bench".to_owned(),
        ..Default::default()
    };
    let mode = replicas.map_or(Mode::Global(proto::GlobalService {}), |replicas| {
        Mode::Replicated(proto::ReplicatedService { replicas })
    });
    let spec = proto::ServiceSpec {
        annotations: Some(proto::Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        task: Some(proto::TaskSpec {
            runtime: Some(proto::task_spec::Runtime::Container(container)),
            ..Default::default()
        }),
        mode: Some(mode),
        ..Default::default()
    };
    proto::CreateServiceRequest { spec: Some(spec) }
}
