use std::collections::BTreeMap;

use bollard_stubs::models as m;
use skep_engine::Credentials;

/// What `docker build` asks for.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Below the context; `Dockerfile` if empty.
    pub dockerfile: String,
    /// Names for the result.
    pub tags: Vec<String>,
    pub no_cache: bool,
    /// Images whose history may spare steps.
    pub cache_from: Vec<String>,
    /// Remove the steps' containers when they succeed.
    pub remove: bool,
    /// Remove them in any case.
    pub force_remove: bool,
    /// `--build-arg`; without a value if the client has no such variable.
    pub args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    /// The stage to stop after.
    pub target: String,
    pub platform: Option<String>,
    /// Ask the registry for base images even if they are here.
    pub pull: bool,
    /// Who the client is to which registry, by host.
    pub credentials: BTreeMap<String, Credentials>,
    /// Resources, network, extra hosts of the steps' containers.
    pub host: m::HostConfig,
}
