use std::fmt::Write as _;

use axum::body::Body;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::dispatch::{Identity, router};
use crate::route::documented;

#[path = "cli.rs"]
mod cli;

/// The paths of Docker's API 1.53, from its specification.
const SPECIFIED: &str = "
GET /containers/json · POST /containers/create · GET /containers/{id}/json · GET /containers/{id}/top
GET /containers/{id}/logs · GET /containers/{id}/changes · GET /containers/{id}/export · GET /containers/{id}/stats
POST /containers/{id}/resize · POST /containers/{id}/start · POST /containers/{id}/stop · POST /containers/{id}/restart
POST /containers/{id}/kill · POST /containers/{id}/update · POST /containers/{id}/rename · POST /containers/{id}/pause
POST /containers/{id}/unpause · POST /containers/{id}/attach · GET /containers/{id}/attach/ws
POST /containers/{id}/wait · DELETE /containers/{id} · HEAD /containers/{id}/archive · GET /containers/{id}/archive
PUT /containers/{id}/archive · POST /containers/prune · GET /images/json · POST /build · POST /build/prune
POST /images/create · GET /images/{id}/json · GET /images/{id}/history · POST /images/{id}/push · POST /images/{id}/tag
DELETE /images/{id} · GET /images/search · POST /images/prune · POST /auth · GET /info · GET /version · GET /_ping
HEAD /_ping · POST /commit · GET /events · GET /system/df · GET /images/{id}/get · GET /images/get · POST /images/load
POST /containers/{id}/exec · POST /exec/{id}/start · POST /exec/{id}/resize · GET /exec/{id}/json · GET /volumes
POST /volumes/create · GET /volumes/{id} · PUT /volumes/{id} · DELETE /volumes/{id} · POST /volumes/prune
GET /networks · GET /networks/{id} · DELETE /networks/{id} · POST /networks/create · POST /networks/{id}/connect
POST /networks/{id}/disconnect · POST /networks/prune · GET /plugins · GET /plugins/privileges · POST /plugins/pull
GET /plugins/{id}/json · DELETE /plugins/{id} · POST /plugins/{id}/enable · POST /plugins/{id}/disable
POST /plugins/{id}/upgrade · POST /plugins/create · POST /plugins/{id}/push · POST /plugins/{id}/set · GET /nodes
GET /nodes/{id} · DELETE /nodes/{id} · POST /nodes/{id}/update · GET /swarm · POST /swarm/init · POST /swarm/join
POST /swarm/leave · POST /swarm/update · GET /swarm/unlockkey · POST /swarm/unlock · GET /services
POST /services/create · GET /services/{id} · DELETE /services/{id} · POST /services/{id}/update
GET /services/{id}/logs · GET /tasks · GET /tasks/{id} · GET /tasks/{id}/logs · GET /secrets · POST /secrets/create
GET /secrets/{id} · DELETE /secrets/{id} · POST /secrets/{id}/update · GET /configs · POST /configs/create
GET /configs/{id} · DELETE /configs/{id} · POST /configs/{id}/update · GET /distribution/{id}/json · POST /session
";

fn specified() -> impl Iterator<Item = (&'static str, &'static str)> {
    SPECIFIED
        .split(['·', '\n'])
        .filter_map(|entry| entry.trim().split_once(' '))
}

#[test]
fn every_endpoint_of_the_specification_is_in_the_table() {
    let routes = routes();
    for (method, path) in specified() {
        let example = path.replace("{id}", "x");
        let found = routes
            .iter()
            .find(|route| {
                route.method == method && crate::route::matches(route.path, &example).is_some()
            })
            .unwrap_or_else(|| panic!("{method} {path} is missing"));
        let ours = documented(found.path).replace("{name}", "{id}");
        assert_eq!(ours, path, "{method} {example} goes to another endpoint");
    }
}

#[tokio::test]
async fn what_is_not_there_answers_501_and_says_which_endpoint_it_is() {
    let mut absent = Vec::new();
    let mut copies = Vec::new();
    for Route {
        method,
        path,
        since,
        action,
    } in routes()
    {
        let (action, text) = match action {
            Action::NotYet(hint) => {
                let name = format!("skep: {method} {} is not implemented yet", documented(path));
                let text = if hint.is_empty() {
                    name
                } else {
                    format!("{name}: {hint}")
                };
                (Action::<()>::NotYet(hint), text)
            }
            Action::Refused(text) => (Action::Refused(text), text.to_owned()),
            Action::Works(..) => continue,
        };
        absent.push((method, path, text));
        copies.push(Route {
            method,
            path,
            since,
            action,
        });
    }
    let app = router(
        (),
        Identity {
            version: "1".to_owned(),
            experimental: false,
        },
        copies,
    );
    for (method, path, text) in &absent {
        let example = documented(path).replace(['{', '}'], "");
        let request = http::Request::builder()
            .method(*method)
            .uri(example)
            .body(Body::empty())
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 501, "{method} {path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            serde_json::json!({ "message": text }).to_string() + "\n"
        );
    }
    // A list that only shrinks: whoever adds to it has a reason.
    let names: Vec<_> = absent
        .iter()
        .map(|(method, path, _)| format!("{method} {}", documented(path)))
        .collect();
    assert_eq!(
        names,
        [
            "POST /session",
            "POST /grpc",
            "POST /build/cancel",
            "GET /containers/{name}/checkpoints",
            "POST /containers/{name}/checkpoints",
            "DELETE /containers/{name}/checkpoints/{checkpoint}",
            "GET /containers/{name}/attach/ws",
            "PUT /volumes/{name}",
            "GET /plugins/privileges",
            "POST /plugins/pull",
            "POST /plugins/{name}/push",
            "POST /plugins/{name}/upgrade",
            "POST /plugins/create",
        ]
    );
}

/// `docs/compatibility.md` as the table has it.
fn document() -> String {
    let routes = routes();
    let mut text = String::from(
        "# What works\n\n\
         Generated from the route table of `crates/api`; a test compares. `SKEP_BLESS=1 cargo nextest run -p \
         skep-api compatibility` writes it anew.\n\n\
         API versions 1.24 to 1.53. An endpoint that is not there answers 501 with its name; paths that Docker does \
         not have answer 404.\n\n\
         ## Commands\n\n\
         A command works if all the calls it makes do. \"But\" names what of it does not.\n\n\
         | docker … | flags | state | but |\n|---|---|---|---|\n",
    );
    for group in cli::GROUPS {
        let works = group
            .calls
            .iter()
            .all(|call| matches!(find(&routes, call).action, Action::Works(..)))
            && !group.but.starts_with("all of it");
        let state = if works { "works" } else { "not yet" };
        let flags = group.flags.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            text,
            "| {} | {flags} | {state} | {} |",
            group.command, group.but
        );
    }
    text.push_str("\n## Endpoints\n\n| endpoint | since | state | note |\n|---|---|---|---|\n");
    for route in &routes {
        let (state, note) = match &route.action {
            Action::Works(_, note) => ("works", *note),
            Action::NotYet(note) => ("not yet", *note),
            Action::Refused(_) => ("refused", "needs an experimental daemon, as in Docker"),
        };
        let since = route
            .since
            .map(|since| since.to_string())
            .unwrap_or_default();
        let path = documented(route.path);
        let _ = writeln!(
            text,
            "| {} {path} | {since} | {state} | {note} |",
            route.method
        );
    }
    text
}

fn find<'a>(routes: &'a [Route<ApiState>], call: &str) -> &'a Route<ApiState> {
    routes
        .iter()
        .find(|route| format!("{} {}", route.method, documented(route.path)) == call)
        .unwrap_or_else(|| panic!("{call} is no route"))
}

#[test]
fn the_compatibility_document_is_what_the_table_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let document = document();
    if std::env::var_os("SKEP_BLESS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        written, document,
        "run SKEP_BLESS=1 cargo nextest run -p skep-api compatibility"
    );
}
