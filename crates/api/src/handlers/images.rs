//! Images: list, inspect, load, save, import, tag, remove.

use axum::body::Body;
use axum::response::Response;
use bollard_stubs::models as m;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, ready};
use futures::stream;
use http::StatusCode;
use serde_json::{Value, json};
use skep_engine::{
    EngineError, ImageListOptions, ImageRemoveOptions, ImportOptions, ProgressMessage,
    ProgressStream,
};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::shape::{self, shaped, shaped_all};
use crate::state::ApiState;
use crate::version::ApiVersion;
use crate::{gojson, reply};

pub(crate) async fn list(call: Call<ApiState>) -> ApiResult {
    let mut filters = call.filters()?;
    if call.version.before(25)
        && !filters.contains("reference")
        && let Some(name) = call.query.some("filter")
    {
        filters.add("reference", &name);
    }
    let options = ImageListOptions {
        all: call.query.bool("all"),
        filters,
        shared_size: call.version.at_least(42) && call.query.bool("shared-size"),
        digests: call.query.bool("digests"),
    };
    let images = call.state.engine.list_images(options).await?;
    let mut list = shaped_all(&images, shape::IMAGE_SUMMARY);
    for image in &mut list {
        adapt_summary(image, call.version);
    }
    Ok(reply::json(&list))
}

/// What older API versions had in the list.
fn adapt_summary(image: &mut Value, version: ApiVersion) {
    let Some(fields) = image.as_object_mut() else {
        return;
    };
    let empty = |key: &str| {
        fields
            .get(key)
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
    };
    if version.before(43) && empty("RepoTags") && empty("RepoDigests") {
        fields.insert("RepoTags".to_owned(), json!(["<none>:<none>"]));
        fields.insert("RepoDigests".to_owned(), json!(["<none>@<none>"]));
    }
    if version.before(44) {
        let size = fields.get("Size").cloned().unwrap_or_default();
        fields.insert("VirtualSize".to_owned(), size);
    }
    if version.before(48) {
        fields.shift_remove("Descriptor");
    }
    if version.before(51) {
        fields.insert("Containers".to_owned(), json!(-1));
    }
}

/// Images are kept for this machine's platform only: any other that is asked for is refused
/// rather than overlooked.
fn check_platforms(call: &Call<ApiState>, key: &str) -> ApiResult<()> {
    call.query
        .all(key)
        .iter()
        .filter(|text| !text.is_empty())
        .try_for_each(|text| check_platform(text))
}

fn check_platform(text: &str) -> ApiResult<()> {
    let platform: m::OciPlatform = gojson::from_slice(text.as_bytes())
        .map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}")))?;
    let (Some(os), Some(architecture)) = (platform.os, platform.architecture) else {
        return Err(ApiError::invalid(
            "both OS and Architecture must be provided",
        ));
    };
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    if os == "linux" && architecture == ours {
        return Ok(());
    }
    Err(ApiError::not_implemented(format!(
        "skep: images for {os}/{architecture} are not implemented yet: this machine is linux/{ours}"
    )))
}

pub(crate) async fn inspect(call: Call<ApiState>) -> ApiResult {
    if call.version.at_least(49) {
        check_platforms(&call, "platform")?;
    }
    let found = call.state.engine.inspect_image(call.param("name")).await?;
    let mut image = shaped(&found, shape::IMAGE);
    adapt_inspect(&mut image, call.version);
    Ok(reply::json(&image))
}

fn adapt_inspect(image: &mut Value, version: ApiVersion) {
    let Some(fields) = image.as_object_mut() else {
        return;
    };
    if version.before(53) {
        fields.shift_remove("Identity");
    }
    if version.before(52) {
        for key in ["Parent", "Comment", "DockerVersion", "Author"] {
            fields.entry(key).or_insert_with(|| json!(""));
        }
        let config = fields
            .get_mut("Config")
            .map(Value::take)
            .unwrap_or_default();
        let mut config = shape::apply(config, shape::LEGACY_IMAGE_CONFIG);
        if version.before(50) {
            config = shape::apply(config, shape::ANCIENT_IMAGE_CONFIG);
        }
        fields.insert("Config".to_owned(), config);
    }
    if version.before(48) {
        fields.shift_remove("Descriptor");
    }
    if version.before(45) {
        let empty = shape::apply(json!({}), shape::LEGACY_IMAGE_CONFIG);
        fields.insert("Container".to_owned(), json!(""));
        fields.insert(
            "ContainerConfig".to_owned(),
            shape::apply(empty, shape::ANCIENT_IMAGE_CONFIG),
        );
    }
    if version.before(44) {
        let size = fields.get("Size").cloned().unwrap_or_default();
        fields.insert("VirtualSize".to_owned(), size);
        fields
            .entry("Created")
            .or_insert_with(|| json!("0001-01-01T00:00:00Z"));
    }
}

pub(crate) async fn history(call: Call<ApiState>) -> ApiResult {
    if call.version.at_least(48) {
        check_platforms(&call, "platform")?;
    }
    let layers = call.state.engine.history_image(call.param("name")).await?;
    let mut history = shaped_all(&layers, shape::IMAGE_HISTORY);
    for layer in &mut history {
        // Go's nil slice: most layers have no tag.
        if layer["Tags"].as_array().is_some_and(Vec::is_empty) {
            layer["Tags"] = Value::Null;
        }
    }
    Ok(reply::json(&history))
}

pub(crate) async fn tag(call: Call<ApiState>) -> ApiResult {
    let (repo, tag) = (call.query.get("repo"), call.query.get("tag"));
    if repo == "sha256" {
        return Err(ApiError::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    call.state
        .engine
        .tag_image(call.param("name"), repo, tag)
        .await?;
    Ok(reply::empty(StatusCode::CREATED))
}

pub(crate) async fn remove(call: Call<ApiState>) -> ApiResult {
    let name = call.param("name");
    if name.trim().is_empty() {
        return Err(ApiError::invalid("image name cannot be blank"));
    }
    if call.version.at_least(50) {
        check_platforms(&call, "platforms")?;
    }
    let options = ImageRemoveOptions {
        force: call.query.bool("force"),
        no_prune: call.query.bool("noprune"),
    };
    Ok(reply::json(
        &call.state.engine.remove_image(name, options).await?,
    ))
}

pub(crate) async fn prune(call: Call<ApiState>) -> ApiResult {
    let report = call.state.engine.prune_images(call.filters()?).await?;
    let mut report = shaped(&report, shape::IMAGE_PRUNE);
    if report["ImagesDeleted"]
        .as_array()
        .is_some_and(Vec::is_empty)
    {
        report["ImagesDeleted"] = Value::Null;
    }
    Ok(reply::json(&report))
}

pub(crate) async fn load(mut call: Call<ApiState>) -> ApiResult {
    if call.version.at_least(48) {
        check_platforms(&call, "platform")?;
    }
    let quiet = call.query.bool_or("quiet", true);
    let body = call.byte_stream();
    // The answer begins before the archive is read: errors are part of it, never a status.
    let progress = match call.state.engine.load_images(body, quiet).await {
        Ok(progress) => Either::Left(progress),
        Err(error) => Either::Right(stream::once(ready(Err(error)))),
    };
    Ok(reply::stream(reply::JSON, progress.map(progress_line)))
}

pub(crate) async fn save(call: Call<ApiState>) -> ApiResult {
    if call.version.at_least(48) {
        check_platforms(&call, "platform")?;
    }
    let names = match call.param("name") {
        "" => call.query.all("names"),
        name => vec![name.to_owned()],
    };
    let body = call.state.engine.save_images(names).await?;
    let mut response = Response::new(Body::from_stream(body));
    reply::content_type(&mut response, "application/x-tar");
    Ok(response)
}

pub(crate) async fn create(mut call: Call<ApiState>) -> ApiResult {
    if !call.query.get("fromImage").is_empty() {
        return super::registry::pull(call).await;
    }
    let source = call.query.get("fromSrc").to_owned();
    if source != "-" {
        return Err(ApiError::not_implemented(
            "skep: importing from a URL is not implemented yet: fetch the file and pass it to 'docker import -'",
        ));
    }
    let message = call
        .query
        .some("message")
        .unwrap_or_else(|| format!("Imported from {source}"));
    let options = ImportOptions {
        repo: call.query.some("repo"),
        tag: call.query.some("tag"),
        message,
        changes: call.query.all("changes"),
        platform: if call.version.at_least(32) {
            call.query.some("platform")
        } else {
            None
        },
    };
    let body = call.byte_stream();
    let progress = call.state.engine.import_image(body, options).await?;
    status_or_progress(progress).await
}

/// An error that comes before any progress is a status; later it is part of the stream.
pub(crate) async fn status_or_progress(mut progress: ProgressStream) -> ApiResult {
    let first = match progress.next().await {
        Some(Err(error)) => return Err(error.into()),
        first => first,
    };
    Ok(reply::stream(
        reply::JSON,
        stream::iter(first).chain(progress).map(progress_line),
    ))
}

fn progress_line(message: Result<ProgressMessage, EngineError>) -> Bytes {
    let value = match message {
        Ok(message) => json!(message),
        Err(error) => {
            json!({ "errorDetail": { "message": error.message }, "error": error.message })
        }
    };
    format!("{value}\r\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_and_errors_are_lines_as_clients_split_them() {
        let message = ProgressMessage {
            stream: Some("Loaded image: a:1\n".to_owned()),
            ..ProgressMessage::default()
        };
        assert_eq!(
            &progress_line(Ok(message))[..],
            b"{\"stream\":\"Loaded image: a:1\\n\"}\r\n"
        );
        assert_eq!(
            &progress_line(Err(EngineError::system("bad tar")))[..],
            b"{\"errorDetail\":{\"message\":\"bad tar\"},\"error\":\"bad tar\"}\r\n"
        );
    }

    #[test]
    fn platforms_other_than_ours_are_refused() {
        let check = |text: &str| check_platform(text).map_err(|error| error.message);
        assert_eq!(
            check(r#"{"os":"linux"}"#).unwrap_err(),
            "both OS and Architecture must be provided"
        );
        assert!(
            check(r#"{"os":"windows","architecture":"amd64"}"#)
                .unwrap_err()
                .contains("windows/amd64")
        );
        assert!(
            check("x")
                .unwrap_err()
                .starts_with("failed to parse platform: ")
        );
    }

    #[test]
    fn older_clients_find_the_fields_they_know() {
        let mut image = shaped(&m::ImageInspect::default(), shape::IMAGE);
        let newest = image.clone();
        assert_eq!(newest.pointer("/Config"), Some(&json!({})));
        adapt_inspect(&mut image, ApiVersion::new(1, 41));
        for pointer in ["/Config/Env", "/Config/Cmd", "/ContainerConfig/Volumes"] {
            assert_eq!(image.pointer(pointer), Some(&Value::Null), "{pointer}");
        }
        assert_eq!(image.pointer("/Config/Hostname"), Some(&json!("")));
        assert_eq!(image.pointer("/VirtualSize"), Some(&json!(0)));
        assert_eq!(image.pointer("/Author"), Some(&json!("")));
    }
}
