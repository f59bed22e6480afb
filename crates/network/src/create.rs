//! Making user-defined networks from Docker's request: checked first, made afterwards.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard_stubs::models as m;

use crate::definition::{Driver, NetworkDefinition, Subnet};
use crate::inner::{Inner, subnets_of};
use crate::state::ActiveNetwork;
use crate::{AddressPool, NetworkError, NetworkSummary, Prefix, bridge, defaults};

const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];
/// The longest name an interface can have.
const INTERFACE_NAME: usize = 15;

impl Inner {
    pub(crate) fn create(&self, request: m::NetworkCreateRequest) -> Result<String, NetworkError> {
        let mut definition = definition(&request, self.config.effective_mtu())?;
        let wanted = Wanted::of(&request)?;
        // The host's routes are looked up before the state is locked; a network that is made in
        // between is in the state.
        let reached = defaults::used_prefixes(&self.host, &definition.bridge)?;
        {
            let mut state = self.state.lock();
            if state.definitions().any(|one| one.name == definition.name) {
                return Err(NetworkError::NameInUse(definition.name));
            }
            if state
                .definitions()
                .any(|one| one.bridge == definition.bridge)
            {
                return Err(NetworkError::Forbidden(
                    "networks have same bridge name".to_owned(),
                ));
            }
            let ours = subnets_of(state.definitions());
            let pools = defaults::pools_of(&self.config);
            let room = Room {
                pools: &pools,
                ours: &ours,
                reached: &reached,
            };
            definition.ipv4 = wanted.ipv4.map(|one| one.settle(&room, true)).transpose()?;
            definition.ipv6 = wanted
                .ipv6
                .map(|one| one.settle(&room, false))
                .transpose()?;
            // Entered without a bridge: the name and the subnet are ours from here on.
            let network = ActiveNetwork::new(definition.clone(), None);
            state.networks.insert(definition.id.clone(), network);
        }
        let was_there = self.host.with_route(|route| route.link(&definition.bridge));
        let made = was_there.map_err(NetworkError::from).and_then(|link| {
            definition.borrowed = link.is_some();
            self.make(&definition)
        });
        if made.is_err()
            && let Err(error) = self.unmake(&definition)
        {
            tracing::warn!(network.name = %definition.name, %error, "could not undo a network");
        }
        made.map(|()| definition.id)
    }

    /// Takes everything of a network away but what was there before it.
    fn unmake(&self, definition: &NetworkDefinition) -> Result<(), NetworkError> {
        self.state.lock().networks.remove(&definition.id);
        self.save_definitions()?;
        self.apply_rules()?;
        if definition.borrowed {
            let (name, subnets) = (definition.bridge.as_str(), definition.subnets());
            return bridge::give_back(&self.host, name, subnets).map_err(Into::into);
        }
        Ok(bridge::remove(&self.host, &definition.bridge)?)
    }

    fn make(&self, definition: &NetworkDefinition) -> Result<(), NetworkError> {
        if self.config.ip_forward {
            bridge::enable_forwarding(&self.host, definition.ipv6.is_some())?;
        }
        let index = bridge::ensure(&self.host, definition, self.rules)?;
        if let Some(network) = self.state.lock().network_mut(&definition.id) {
            network.bridge = Some(index);
            network.definition.borrowed = definition.borrowed;
        }
        self.apply_rules()?;
        self.save_definitions()
    }

    pub(crate) fn remove(&self, term: &str) -> Result<NetworkSummary, NetworkError> {
        let (summary, definition) = {
            let mut state = self.state.lock();
            let network = state.resolve(term)?;
            let (summary, definition) = (network.summary(), network.definition.clone());
            if definition.predefined {
                return Err(NetworkError::PredefinedRemoval(definition.name));
            }
            let mut endpoints: Vec<String> = state
                .sandboxes
                .values()
                .filter_map(|sandbox| sandbox.endpoint(&definition.id))
                .map(|one| {
                    format!(
                        "name:{:?} id:{:?}",
                        one.endpoint.container_name,
                        &one.endpoint.id[..12]
                    )
                })
                .collect();
            if !endpoints.is_empty() {
                endpoints.sort();
                return Err(NetworkError::ActiveEndpoints {
                    name: definition.name,
                    id: definition.id,
                    endpoints: endpoints.join(", "),
                });
            }
            state.networks.remove(&definition.id);
            (summary, definition)
        };
        self.unmake(&definition)?;
        Ok(summary)
    }
}

/// Everything of a network but its subnets.
fn definition(
    request: &m::NetworkCreateRequest,
    mtu: u32,
) -> Result<NetworkDefinition, NetworkError> {
    let name = request.name.as_str();
    if name.is_empty() {
        return Err(NetworkError::Invalid(
            "invalid name: name is empty".to_owned(),
        ));
    }
    if PREDEFINED.contains(&name) {
        return Err(NetworkError::Predefined(name.to_owned()));
    }
    check_name(name)?;
    refuse_unsupported(request)?;
    let mut definition = defaults::plain(name, Driver::Bridge);
    definition.predefined = false;
    definition.bridge = format!("br-{}", &definition.id[..12]);
    definition.mtu = mtu;
    definition.internal = request.internal.unwrap_or(false);
    definition.attachable = request.attachable.unwrap_or(false);
    definition.labels = sorted(request.labels.as_ref());
    definition.options = sorted(request.options.as_ref());
    let ipam = request.ipam.as_ref();
    definition.ipam_options = sorted(ipam.and_then(|ipam| ipam.options.as_ref()));
    for (option, value) in definition.options.clone() {
        apply_option(&mut definition, &option, &value)?;
    }
    Ok(definition)
}

/// Docker's rule for names of most things.
fn check_name(name: &str) -> Result<(), NetworkError> {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest {
        return Ok(());
    }
    let text = format!("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    Err(NetworkError::Invalid(text))
}

fn refuse_unsupported(request: &m::NetworkCreateRequest) -> Result<(), NetworkError> {
    let unsupported = |what: &str| Err(NetworkError::Unsupported(what.to_owned()));
    match request.driver.as_deref() {
        None | Some("" | "default" | "bridge") => {}
        Some(driver @ ("host" | "null")) => {
            let text = format!("only one instance of {driver:?} network is allowed");
            return Err(NetworkError::Forbidden(text));
        }
        Some(driver @ ("overlay" | "macvlan" | "ipvlan")) => {
            return unsupported(&format!(
                "networks of driver {driver} are not available in skep yet"
            ));
        }
        Some(driver) => {
            let text =
                format!("could not find plugin {driver} in v1 plugin registry: plugin not found");
            return Err(NetworkError::NotFoundText(text));
        }
    }
    if let Some(driver) = request
        .ipam
        .as_ref()
        .and_then(|ipam| ipam.driver.as_deref())
        && !matches!(driver, "" | "default")
    {
        let text =
            format!("could not find plugin {driver} in v1 plugin registry: plugin not found");
        return Err(NetworkError::NotFoundText(text));
    }
    if request.config_only == Some(true) || from_config(request) {
        return unsupported(
            "configuration networks (config-only, config-from) are not available in skep yet",
        );
    }
    if request.ingress == Some(true) {
        let text = "ingress network can only be created with the overlay driver in a swarm";
        return Err(NetworkError::Invalid(text.to_owned()));
    }
    if request.enable_ipv4 == Some(false) && request.enable_ipv6 != Some(true) {
        let text = "IPv4 or IPv6 must be enabled";
        return Err(NetworkError::Invalid(text.to_owned()));
    }
    match request.scope.as_deref() {
        None | Some("" | "local") => Ok(()),
        Some(scope) => unsupported(&format!(
            "bridge networks of scope {scope} are not available"
        )),
    }
}

fn from_config(request: &m::NetworkCreateRequest) -> bool {
    let network = request
        .config_from
        .as_ref()
        .and_then(|from| from.network.as_deref());
    network.is_some_and(|network| !network.is_empty())
}

fn sorted(map: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The bridge driver's options. An unknown one is refused rather than ignored.
fn apply_option(
    definition: &mut NetworkDefinition,
    option: &str,
    value: &str,
) -> Result<(), NetworkError> {
    let invalid = || {
        let text = format!("failed to parse {option} value: {value:?}");
        NetworkError::Invalid(text)
    };
    let boolean = || parse_bool(value).ok_or_else(invalid);
    match option {
        "com.docker.network.bridge.name" => {
            let fits = !value.is_empty()
                && value.len() <= INTERFACE_NAME
                && value != "."
                && value != ".."
                && !value.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
            if !fits {
                return Err(invalid());
            }
            value.clone_into(&mut definition.bridge);
        }
        "com.docker.network.driver.mtu" => {
            definition.mtu = value
                .parse()
                .ok()
                .filter(|mtu| (68..=65_535).contains(mtu))
                .ok_or_else(invalid)?;
        }
        "com.docker.network.bridge.enable_icc" => definition.icc = boolean()?,
        "com.docker.network.bridge.enable_ip_masquerade" => definition.masquerade = boolean()?,
        "com.docker.network.bridge.host_binding_ipv4" => {
            let address: IpAddr = value.parse().map_err(|_| invalid())?;
            definition.default_binding = Some(address).filter(|ip| !ip.is_unspecified());
        }
        "com.docker.network.container_iface_prefix" => {
            let fits = !value.is_empty()
                && value.len() <= INTERFACE_NAME - 3
                && value
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            if !fits {
                return Err(invalid());
            }
            value.clone_into(&mut definition.interface_prefix);
        }
        "com.docker.network.bridge.gateway_mode_ipv4"
        | "com.docker.network.bridge.gateway_mode_ipv6"
            if value == "nat" => {}
        // Said by Compose and by the default bridge's own settings; true of every other network.
        "com.docker.network.bridge.default_bridge" if parse_bool(value) == Some(false) => {}
        _ => {
            let text = format!("network option {option}={value} is not supported by skep yet");
            return Err(NetworkError::Unsupported(text));
        }
    }
    Ok(())
}

/// What Go's `strconv.ParseBool` takes.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What the request says about one address family.
#[derive(Debug, Default, Clone)]
struct WantedSubnet {
    subnet: Option<Prefix>,
    range: Option<Prefix>,
    gateway: Option<IpAddr>,
    auxiliary: BTreeMap<String, IpAddr>,
}

#[derive(Debug)]
struct Wanted {
    ipv4: Option<WantedSubnet>,
    ipv6: Option<WantedSubnet>,
}

/// Where there is room for a subnet.
struct Room<'a> {
    pools: &'a [AddressPool],
    /// Subnets of this daemon's networks.
    ours: &'a [Prefix],
    /// What the host has routes to.
    reached: &'a [Prefix],
}

impl Wanted {
    fn of(request: &m::NetworkCreateRequest) -> Result<Self, NetworkError> {
        let (with_ipv4, with_ipv6) = (
            request.enable_ipv4.unwrap_or(true),
            request.enable_ipv6.unwrap_or(false),
        );
        let mut wanted = Self {
            ipv4: with_ipv4.then(WantedSubnet::default),
            ipv6: with_ipv6.then(WantedSubnet::default),
        };
        let configs = request
            .ipam
            .as_ref()
            .and_then(|ipam| ipam.config.as_deref());
        let mut problems = Vec::new();
        let mut seen = [false, false];
        for config in configs.unwrap_or_default() {
            let (is_ipv4, one) = WantedSubnet::parse(config, &mut problems);
            let slot = if is_ipv4 {
                &mut wanted.ipv4
            } else {
                &mut wanted.ipv6
            };
            if slot.is_none() {
                continue; // As Docker: the configuration of a family that is switched off.
            }
            if std::mem::replace(&mut seen[usize::from(is_ipv4)], true) {
                let text = "bridge driver doesn't support multiple subnets";
                return Err(NetworkError::Forbidden(text.to_owned()));
            }
            *slot = Some(one);
        }
        if problems.is_empty() {
            return Ok(wanted);
        }
        Err(NetworkError::Invalid(format!(
            "invalid network config:\n{}",
            problems.join("\n")
        )))
    }
}

impl WantedSubnet {
    /// Also says whether it is for IPv4.
    fn parse(config: &m::IpamConfig, problems: &mut Vec<String>) -> (bool, Self) {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut one = Self::default();
        for (text, slot) in [
            (given(&config.subnet), &mut one.subnet),
            (given(&config.ip_range), &mut one.range),
        ] {
            match text.as_deref().map(str::parse::<Prefix>).transpose() {
                Ok(prefix) => *slot = prefix,
                Err(error) => problems.push(error.to_string()),
            }
        }
        match given(&config.gateway)
            .as_deref()
            .map(str::parse)
            .transpose()
        {
            Ok(gateway) => one.gateway = gateway,
            Err(_) => problems.push(format!(
                "invalid gateway {}",
                given(&config.gateway).unwrap_or_default()
            )),
        }
        for (name, text) in config.auxiliary_addresses.iter().flatten() {
            match text.parse() {
                Ok(address) => {
                    one.auxiliary.insert(name.clone(), address);
                }
                Err(_) => problems.push(format!("invalid auxiliary address {name}: {text}")),
            }
        }
        problems.extend(one.problems());
        let is_ipv4 = one.subnet.is_none_or(Prefix::is_ipv4);
        (is_ipv4, one)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Some(subnet) = self.subnet else {
            if self.range.is_some() || self.gateway.is_some() || !self.auxiliary.is_empty() {
                problems.push("a gateway, ip-range or auxiliary address needs a subnet".to_owned());
            }
            return problems;
        };
        let family = if subnet.is_ipv4() { 4 } else { 6 };
        if subnet != subnet.network() {
            problems.push(format!(
                "invalid subnet {subnet}: it should be {}",
                subnet.network()
            ));
        }
        if let Some(range) = self.range {
            problems.extend(range_problems(range, subnet));
        }
        let outside = |address: IpAddr| {
            if address.is_ipv4() != subnet.is_ipv4() {
                Some(format!("parent subnet is an IPv{family} block"))
            } else if subnet.contains(address) {
                None
            } else {
                Some(format!(
                    "parent subnet {subnet} doesn't contain this address"
                ))
            }
        };
        if let Some(gateway) = self.gateway
            && let Some(problem) = outside(gateway)
        {
            problems.push(format!("invalid gateway {gateway}: {problem}"));
        }
        for (name, &address) in &self.auxiliary {
            if let Some(problem) = outside(address) {
                problems.push(format!("invalid auxiliary address {name}: {problem}"));
            }
        }
        problems
    }

    /// Chooses what was left open.
    fn settle(self, room: &Room<'_>, ipv4: bool) -> Result<Subnet, NetworkError> {
        let subnet = match self.subnet {
            // Whoever names a subnet may overlap the host's routes, but no network of ours.
            Some(subnet) if room.ours.iter().any(|one| one.overlaps(subnet)) => {
                return Err(NetworkError::PoolOverlaps);
            }
            Some(subnet) => subnet,
            None => {
                let used = [room.ours, room.reached].concat();
                let chosen = skep_allocator::choose(room.pools, &used, ipv4);
                let chosen = chosen
                    .or_else(|| (!ipv4).then(|| skep_allocator::unique_local(rand::random())));
                chosen.ok_or(NetworkError::NoFreePool)?
            }
        };
        let mut one = Subnet {
            subnet,
            range: self.range.filter(|range| *range != subnet),
            gateway: subnet.address(),
            router: None,
            auxiliary: self.auxiliary,
        };
        one.gateway = match self.gateway {
            Some(gateway) => gateway,
            None => lowest_free(&one)?,
        };
        Ok(one)
    }
}

/// What is wrong with an `--ip-range`.
fn range_problems(range: Prefix, subnet: Prefix) -> Vec<String> {
    if range.is_ipv4() != subnet.is_ipv4() {
        let family = if subnet.is_ipv4() { 4 } else { 6 };
        return vec![format!(
            "invalid ip-range {range}: parent subnet is an IPv{family} block"
        )];
    }
    let mut problems = Vec::new();
    if range.length() < subnet.length() {
        problems.push(format!(
            "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range != range.network() {
        problems.push(format!(
            "invalid ip-range {range}: it should be {}",
            range.network()
        ));
    }
    if !subnet.overlaps(range) {
        problems.push(format!(
            "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
        ));
    }
    problems
}

/// The gateway nobody chose: the first address, or the first of the range, that is free.
fn lowest_free(one: &Subnet) -> Result<IpAddr, NetworkError> {
    let mut addresses = skep_allocator::AddressSet::new(one.subnet, one.range);
    for &address in one.auxiliary.values() {
        // Twice the same auxiliary address is no harm.
        let _ = addresses.take(address);
    }
    addresses.allocate().ok_or_else(|| {
        NetworkError::Invalid(format!("subnet {} has no room for a gateway", one.subnet))
    })
}
