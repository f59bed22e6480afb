use http::header;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::call::HandlerFuture;
use crate::error::ApiResult;

async fn version(call: Call<()>) -> ApiResult {
    Ok(reply::text(StatusCode::OK, call.version.to_string()))
}

async fn echo(mut call: Call<()>) -> ApiResult {
    let body: serde_json::Map<String, serde_json::Value> = call.json().await?;
    Ok(reply::json(
        &serde_json::json!({ "name": call.param("name"), "body": body }),
    ))
}

async fn conflict(_: Call<()>) -> ApiResult {
    Err(ApiError::conflict("already there"))
}

fn boxed_version(call: Call<()>) -> HandlerFuture {
    Box::pin(version(call))
}

fn boxed_echo(call: Call<()>) -> HandlerFuture {
    Box::pin(echo(call))
}

fn boxed_conflict(call: Call<()>) -> HandlerFuture {
    Box::pin(conflict(call))
}

fn app() -> Router {
    let route = |method, path, since, action| Route {
        method,
        path,
        since,
        action,
    };
    let identity = Identity {
        version: "29.0.0".to_owned(),
        experimental: false,
    };
    let routes = vec![
        route("GET", "/version", None, Action::Works(boxed_version, "")),
        route("HEAD", "/version", None, Action::Works(boxed_version, "")),
        route(
            "POST",
            "/images/{name:*}/tag",
            None,
            Action::Works(boxed_echo, ""),
        ),
        route(
            "POST",
            "/new",
            Some(ApiVersion::new(1, 30)),
            Action::Works(boxed_echo, ""),
        ),
        route("POST", "/conflict", None, Action::Works(boxed_conflict, "")),
        route("GET", "/x/{id}/y", None, Action::NotYet("")),
        route("POST", "/z", None, Action::NotYet("use load")),
    ];
    router((), identity, routes)
}

async fn ask(
    method: &str,
    path: &str,
    kind: Option<&str>,
    body: &str,
) -> (StatusCode, HeaderMap, String) {
    let mut request = http::Request::builder().method(method).uri(path);
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    request = request.header(header::CONTENT_LENGTH, body.len());
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = app().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (
        parts.status,
        parts.headers,
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

async fn get(path: &str) -> (u16, String) {
    let (status, _, body) = ask("GET", path, None, "").await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn a_client_is_answered_in_the_version_it_asks_for() {
    assert_eq!(get("/version").await, (200, "1.53".to_owned()));
    assert_eq!(get("/v1.24/version").await, (200, "1.24".to_owned()));
}

#[tokio::test]
async fn versions_out_of_range_are_400_as_json_or_for_ancient_clients_as_text() {
    let new =
        r#"{"message":"client version 1.99 is too new. Maximum supported API version is 1.53"}"#;
    assert_eq!(get("/v1.99/version").await, (400, format!("{new}\n")));
    let (status, text) = get("/v1.20/version").await;
    assert_eq!(status, 400);
    assert!(
        text.starts_with("client version 1.20 is too old. Minimum supported API version is 1.24"),
        "{text}"
    );
}

#[tokio::test]
async fn every_answer_carries_dockers_headers() {
    for path in ["/version", "/nowhere", "/v1.99/version", "/x/1/y"] {
        let (_, headers, _) = ask("GET", path, None, "").await;
        assert_eq!(headers["api-version"], "1.53", "{path}");
        assert_eq!(headers["docker-experimental"], "false", "{path}");
        assert_eq!(headers["ostype"], "linux", "{path}");
        assert_eq!(headers["server"], "Docker/29.0.0 (linux)", "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_page_not_found() {
    let body = "{\"message\":\"page not found\"}\n".to_owned();
    assert_eq!(get("/nowhere").await, (404, body.clone()));
    assert_eq!(get("/conflict").await, (404, body));
}

#[tokio::test]
async fn what_is_not_there_says_so_by_name() {
    let text = "{\"message\":\"skep: GET /x/{id}/y is not implemented yet\"}\n";
    assert_eq!(get("/v1.40/x/7/y").await, (501, text.to_owned()));
    let (_, _, body) = ask("POST", "/z", None, "").await;
    assert_eq!(
        body,
        "{\"message\":\"skep: POST /z is not implemented yet: use load\"}\n"
    );
}

#[tokio::test]
async fn newer_endpoints_refuse_older_clients() {
    let (status, _, body) = ask("POST", "/v1.29/new", None, "").await;
    assert_eq!(status, 400);
    assert_eq!(
        body,
        "{\"message\":\"POST /new requires minimum API version 1.30\"}\n"
    );
}

#[tokio::test]
async fn bodies_must_be_json_unless_there_is_none() {
    let json = Some("application/json");
    let (status, _, body) = ask("POST", "/images/a/b:1/tag", json, r#"{"x":1}"#).await;
    assert_eq!(
        (status.as_u16(), body.as_str()),
        (200, "{\"name\":\"a/b:1\",\"body\":{\"x\":1}}\n")
    );
    let (status, _, _) = ask("POST", "/images/a/tag", None, "").await;
    assert_eq!(status, 200);
    let (status, _, body) = ask("POST", "/images/a/tag", Some("text/plain"), "{}").await;
    assert_eq!(status, 400);
    assert_eq!(
        body,
        "{\"message\":\"unsupported Content-Type header (text/plain): must be 'application/json'\"}\n"
    );
    let (_, _, body) = ask("POST", "/images/a/tag", None, "{}").await;
    assert_eq!(
        body,
        "{\"message\":\"malformed Content-Type header (): mime: no media type\"}\n"
    );
    let (_, _, body) = ask("POST", "/images/a/tag", json, " ").await;
    assert_eq!(
        body,
        "{\"message\":\"invalid JSON: got EOF while reading request body\"}\n"
    );
    let (_, _, body) = ask("POST", "/images/a/tag", json, "{").await;
    assert_eq!(body, "{\"message\":\"invalid JSON: unexpected EOF\"}\n");
}

#[tokio::test]
async fn errors_keep_their_status_and_text_and_heads_have_no_body() {
    let (status, _, body) = ask("POST", "/conflict", None, "").await;
    assert_eq!(
        (status.as_u16(), body.as_str()),
        (409, "{\"message\":\"already there\"}\n")
    );
    let (status, _, body) = ask("HEAD", "/version", None, "").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
    let (status, _, _) = ask("OPTIONS", "/anything", None, "").await;
    assert_eq!(status, 200);
}
