//! From an HTTP request to a handler: version prefix, route, Docker's headers on every answer.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;

use crate::call::Call;
use crate::error::ApiError;
use crate::query::Query;
use crate::reply;
use crate::route::{Action, Route, documented, matches};
use crate::version::{self, ApiVersion, MAX_API_VERSION};

/// What answers say about us in their headers.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The engine's version, for `Server`.
    pub(crate) version: String,
    /// Whether experimental features are on.
    pub(crate) experimental: bool,
}

struct Dispatch<S> {
    state: S,
    identity: Identity,
    routes: Vec<Route<S>>,
}

/// A service that answers with the table's handlers.
///
/// It does its own matching because Docker's patterns (`/images/{name:.*}/json`) are none of axum's.
pub(crate) fn router<S>(state: S, identity: Identity, routes: Vec<Route<S>>) -> Router
where
    S: Clone + Send + Sync + 'static,
{
    let dispatch = Arc::new(Dispatch {
        state,
        identity,
        routes,
    });
    Router::new().fallback(move |request: Request| {
        let dispatch = Arc::clone(&dispatch);
        async move { dispatch.answer(request).await }
    })
}

impl<S: Clone> Dispatch<S> {
    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let path = percent_decode_str(parts.uri.path())
            .decode_utf8_lossy()
            .into_owned();
        let (asked, path) = version::split_prefix(&path);

        let version = version::negotiate(asked);
        let mut response = match self.find(&parts.method, path) {
            None => not_found(),
            Some(_) if version.is_err() => {
                too_old_or_new(asked, version.expect_err("just matched"))
            }
            Some(Found::Options) => reply::empty(StatusCode::OK),
            Some(Found::Route(route, params)) => {
                let version = version.expect("errors are the arm above");
                let call = match Query::parse(parts.uri.query()) {
                    Ok(query) => Call {
                        state: self.state.clone(),
                        method: parts.method.clone(),
                        version,
                        params,
                        query,
                        headers: parts.headers,
                        extensions: parts.extensions,
                        body,
                    },
                    Err(error) => return error.into_response(),
                };
                perform(route, call, self.identity.experimental).await
            }
        };
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(method = %parts.method, path, "request failed");
        }
        self.stamp(response.headers_mut());
        response
    }

    fn find(&self, method: &Method, path: &str) -> Option<Found<'_, S>> {
        if method == Method::OPTIONS {
            return Some(Found::Options);
        }
        self.routes
            .iter()
            .filter(|route| route.method == method.as_str())
            .find_map(|route| matches(route.path, path).map(|params| Found::Route(route, params)))
    }

    fn stamp(&self, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set("api-version", &MAX_API_VERSION.to_string());
        set(
            "docker-experimental",
            if self.identity.experimental {
                "true"
            } else {
                "false"
            },
        );
        set("ostype", "linux");
        set(
            "server",
            &format!("Docker/{} (linux)", self.identity.version),
        );
    }
}

enum Found<'a, S> {
    Options,
    Route(&'a Route<S>, Vec<(&'static str, String)>),
}

async fn perform<S>(route: &Route<S>, call: Call<S>, experimental: bool) -> Response {
    if let Some(since) = route.since.filter(|since| call.version < *since) {
        return ApiError::invalid(format!(
            "{} {} requires minimum API version {since}",
            route.method,
            documented(route.path)
        ))
        .into_response();
    }
    match &route.action {
        Action::Works(handler, _) => {
            let head = call.method == Method::HEAD;
            let response = handler(call).await.unwrap_or_else(|error| {
                if error.status == StatusCode::INTERNAL_SERVER_ERROR {
                    tracing::error!(route = route.path, error = error.message, "handler failed");
                }
                error.into_response()
            });
            if head {
                without_body(response)
            } else {
                response
            }
        }
        Action::NotYet(hint) => not_yet(route, hint).into_response(),
        Action::Refused(_) if experimental => not_yet(route, "").into_response(),
        Action::Refused(text) => ApiError::not_implemented(*text).into_response(),
    }
}

/// The answer of an endpoint that is not there.
fn not_yet<S>(route: &Route<S>, hint: &str) -> ApiError {
    let mut text = format!(
        "skep: {} {} is not implemented yet",
        route.method,
        documented(route.path)
    );
    if !hint.is_empty() {
        text.push_str(": ");
        text.push_str(hint);
    }
    ApiError::not_implemented(text)
}

/// Unknown paths and wrong methods alike, as in Docker.
fn not_found() -> Response {
    ApiError::not_found("page not found").into_response()
}

fn too_old_or_new(asked: Option<&str>, text: String) -> Response {
    // Clients from before 1.24 print the body as it is.
    let ancient = asked.is_some_and(|asked| ApiVersion::parse(asked) < version::MIN_API_VERSION);
    if ancient {
        reply::text(StatusCode::BAD_REQUEST, text + "\n")
    } else {
        ApiError::invalid(text).into_response()
    }
}

fn without_body(response: Response) -> Response {
    let (parts, _) = response.into_parts();
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests;
