//! Every endpoint of API 1.53, in the order in which moby registers them: the first match wins.
//!
//! `docs/compatibility.md` is checked against this table by a test.

use crate::handlers::{
    archive, build, containers, create, exec, images, networks, registry, streams, system, volumes,
};
use crate::route::{Action, Route};
use crate::state::ApiState;
use crate::swarm::{logs, membership, nodes, secrets, services, tasks};
use crate::version::ApiVersion;

const EXPERIMENTAL: &str = "This experimental feature is disabled by default. Start the Docker daemon in \
                            experimental mode in order to enable it.";

macro_rules! routes {
    ($($method:ident $path:literal $(since $minor:literal)? => $kind:ident $arguments:tt;)*) => {
        vec![$(Route {
            method: stringify!($method),
            path: $path,
            since: routes!(@since $($minor)?),
            action: routes!(@action $kind $arguments),
        }),*]
    };
    (@since) => { None };
    (@since $minor:literal) => { Some(ApiVersion::new(1, $minor)) };
    (@action works ($handler:path)) => { Action::Works(|call| Box::pin($handler(call)), "") };
    (@action works ($handler:path, $note:expr)) => { Action::Works(|call| Box::pin($handler(call)), $note) };
    (@action not_yet ()) => { Action::NotYet("") };
    (@action not_yet ($hint:expr)) => { Action::NotYet($hint) };
    (@action refused ($text:expr)) => { Action::Refused($text) };
}

/// The whole table.
pub(crate) fn routes() -> Vec<Route<ApiState>> {
    let mut all = system_routes();
    all.extend(container_routes());
    all.extend(image_routes());
    all.extend(network_and_volume_routes());
    all.extend(swarm_routes());
    all.extend(plugin_routes());
    all
}

fn system_routes() -> Vec<Route<ApiState>> {
    routes! {
        GET "/_ping" => works(system::ping);
        HEAD "/_ping" => works(system::ping);
        GET "/events" => works(system::events);
        GET "/info" => works(system::info);
        GET "/version" => works(system::version);
        GET "/system/df" => works(system::disk_usage);
        POST "/auth" => works(registry::auth);
        POST "/session" => not_yet("there is no BuildKit in this daemon");
        POST "/grpc" => not_yet("there is no BuildKit in this daemon");
        POST "/build" => works(build::build, "the classic builder; no BuildKit");
        POST "/build/prune" since 31 => works(build::prune);
        POST "/build/cancel" => not_yet();
        GET "/distribution/{name:*}/json" since 30 => works(registry::distribution);
    }
}

fn container_routes() -> Vec<Route<ApiState>> {
    routes! {
        HEAD "/containers/{name:*}/archive" => works(archive::stat);
        GET "/containers/json" => works(containers::list);
        GET "/containers/{name:*}/checkpoints" => refused(EXPERIMENTAL);
        POST "/containers/{name:*}/checkpoints" => refused(EXPERIMENTAL);
        DELETE "/containers/{name}/checkpoints/{checkpoint}" => refused(EXPERIMENTAL);
        GET "/containers/{name:*}/export" => works(archive::export);
        GET "/containers/{name:*}/changes" => works(containers::changes);
        GET "/containers/{name:*}/json" => works(containers::inspect);
        GET "/containers/{name:*}/top" => works(containers::top);
        GET "/containers/{name:*}/logs" => works(streams::logs);
        GET "/containers/{name:*}/stats" => works(streams::stats);
        GET "/containers/{name:*}/attach/ws" => not_yet("attach without a websocket");
        GET "/exec/{id:*}/json" => works(exec::inspect);
        GET "/containers/{name:*}/archive" => works(archive::get);
        POST "/containers/create" => works(create::create);
        POST "/containers/{name:*}/kill" => works(containers::kill);
        POST "/containers/{name:*}/pause" => works(containers::pause);
        POST "/containers/{name:*}/unpause" => works(containers::unpause);
        POST "/containers/{name:*}/restart" => works(containers::restart);
        POST "/containers/{name:*}/start" => works(containers::start, "not from a checkpoint");
        POST "/containers/{name:*}/stop" => works(containers::stop);
        POST "/containers/{name:*}/wait" => works(containers::wait);
        POST "/containers/{name:*}/resize" => works(containers::resize);
        POST "/containers/{name:*}/attach" => works(streams::attach);
        POST "/containers/{name:*}/exec" => works(exec::create);
        POST "/exec/{name:*}/start" => works(exec::start);
        POST "/exec/{name:*}/resize" => works(exec::resize);
        POST "/containers/{name:*}/rename" => works(containers::rename);
        POST "/containers/{name:*}/update" => works(containers::update);
        POST "/containers/prune" since 25 => works(containers::prune);
        POST "/commit" => works(containers::commit);
        PUT "/containers/{name:*}/archive" => works(archive::put);
        DELETE "/containers/{name:*}" => works(containers::remove);
    }
}

fn image_routes() -> Vec<Route<ApiState>> {
    routes! {
        GET "/images/json" => works(images::list);
        GET "/images/search" => works(registry::search);
        GET "/images/get" => works(images::save);
        GET "/images/{name:*}/get" => works(images::save);
        GET "/images/{name:*}/history" => works(images::history);
        GET "/images/{name:*}/json" => works(images::inspect);
        POST "/images/load" => works(images::load);
        POST "/images/create" => works(images::create);
        POST "/images/{name:*}/push" => works(registry::push);
        POST "/images/{name:*}/tag" => works(images::tag);
        POST "/images/prune" since 25 => works(images::prune);
        DELETE "/images/{name:*}" => works(images::remove);
    }
}

fn network_and_volume_routes() -> Vec<Route<ApiState>> {
    routes! {
        GET "/networks" => works(networks::list);
        GET "/networks/" => works(networks::list);
        GET "/networks/{id:*}" => works(networks::inspect);
        POST "/networks/create" => works(networks::create);
        POST "/networks/{id:*}/connect" => works(networks::connect);
        POST "/networks/{id:*}/disconnect" => works(networks::disconnect);
        POST "/networks/prune" since 25 => works(networks::prune);
        DELETE "/networks/{id:*}" => works(networks::remove);
        GET "/volumes" => works(volumes::list);
        GET "/volumes/{name:*}" => works(volumes::inspect);
        POST "/volumes/create" => works(volumes::create, "not cluster volumes");
        POST "/volumes/prune" since 25 => works(volumes::prune);
        PUT "/volumes/{name:*}" since 42 => not_yet("cluster volumes");
        DELETE "/volumes/{name:*}" => works(volumes::remove);
    }
}

fn swarm_routes() -> Vec<Route<ApiState>> {
    routes! {
        POST "/swarm/init" => works(membership::init);
        POST "/swarm/join" => works(membership::join);
        POST "/swarm/leave" => works(membership::leave);
        GET "/swarm" => works(membership::inspect);
        GET "/swarm/unlockkey" => works(membership::unlock_key);
        POST "/swarm/update" => works(membership::update);
        POST "/swarm/unlock" => works(membership::unlock);
        GET "/services" => works(services::list);
        GET "/services/{id}" => works(services::inspect);
        POST "/services/create" => works(services::create, "before API 1.30 images are not pinned by digest");
        POST "/services/{id}/update" => works(services::update);
        DELETE "/services/{id}" => works(services::remove);
        GET "/services/{id}/logs" => works(logs::service);
        GET "/nodes" => works(nodes::list);
        GET "/nodes/{id}" => works(nodes::inspect);
        DELETE "/nodes/{id}" => works(nodes::remove);
        POST "/nodes/{id}/update" => works(nodes::update);
        GET "/tasks" => works(tasks::list);
        GET "/tasks/{id}" => works(tasks::inspect);
        GET "/tasks/{id}/logs" => works(logs::task);
        GET "/secrets" since 25 => works(secrets::list_secrets);
        POST "/secrets/create" since 25 => works(secrets::create_secret);
        DELETE "/secrets/{id}" since 25 => works(secrets::remove_secret);
        GET "/secrets/{id}" since 25 => works(secrets::inspect_secret);
        POST "/secrets/{id}/update" since 25 => works(secrets::update_secret);
        GET "/configs" since 30 => works(secrets::list_configs);
        POST "/configs/create" since 30 => works(secrets::create_config);
        DELETE "/configs/{id}" since 30 => works(secrets::remove_config);
        GET "/configs/{id}" since 30 => works(secrets::inspect_config);
        POST "/configs/{id}/update" since 30 => works(secrets::update_config);
    }
}

fn plugin_routes() -> Vec<Route<ApiState>> {
    routes! {
        GET "/plugins" => works(system::plugins, "there are none");
        GET "/plugins/{name:*}/json" => works(system::no_plugin, "there are none");
        GET "/plugins/privileges" => not_yet();
        DELETE "/plugins/{name:*}" => works(system::no_plugin, "there are none");
        POST "/plugins/{name:*}/enable" => works(system::no_plugin, "there are none");
        POST "/plugins/{name:*}/disable" => works(system::no_plugin, "there are none");
        POST "/plugins/pull" => not_yet();
        POST "/plugins/{name:*}/push" => not_yet();
        POST "/plugins/{name:*}/upgrade" since 26 => not_yet();
        POST "/plugins/{name:*}/set" => works(system::no_plugin, "there are none");
        POST "/plugins/create" => not_yet();
    }
}

#[cfg(test)]
mod tests;
