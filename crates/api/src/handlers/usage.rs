//! `GET /system/df`, in the form before API 1.52, after it, or both.

use bollard_stubs::models as m;
use serde_json::{Map, Value, json};
use skep_engine::{DiskUsage, DiskUsageOptions};

use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::shape::{self, shaped_all};
use crate::state::ApiState;
use crate::version::ApiVersion;

pub(crate) async fn answer(call: Call<ApiState>) -> ApiResult {
    let (options, build_cache) = wanted(&call)?;
    let usage = call.state.engine.disk_usage(options).await?;
    let verbose = call.version.at_least(52) && call.query.bool("verbose");
    Ok(reply::json(&report(
        &usage,
        build_cache,
        call.version,
        verbose,
    )))
}

fn wanted(call: &Call<ApiState>) -> ApiResult<(DiskUsageOptions, bool)> {
    if call.version.before(42) || !call.query.has("type") {
        return Ok((DiskUsageOptions::default(), true));
    }
    let mut options = DiskUsageOptions {
        containers: false,
        images: false,
        volumes: false,
    };
    let mut build_cache = false;
    for kind in call.query.all("type") {
        match kind.as_str() {
            "container" => options.containers = true,
            "image" => options.images = true,
            "volume" => options.volumes = true,
            "build-cache" => build_cache = true,
            other => return Err(ApiError::invalid(format!("unknown object type: {other}"))),
        }
    }
    Ok((options, build_cache))
}

fn report(usage: &DiskUsage, build_cache: bool, version: ApiVersion, verbose: bool) -> Value {
    let mut fields = Map::new();
    if let Some(images) = &usage.images {
        let mut items = shaped_all(images, shape::IMAGE_SUMMARY);
        if version.before(44) {
            for image in items.iter_mut().filter_map(Value::as_object_mut) {
                let size = image.get("Size").cloned().unwrap_or_default();
                image.insert("VirtualSize".to_owned(), size);
            }
        }
        if version.before(52) || !verbose {
            fields.insert("LayersSize".to_owned(), json!(usage.layers_size));
            fields.insert("Images".to_owned(), json!(items));
        }
        fields.insert(
            "ImageUsage".to_owned(),
            summary(&image_numbers(usage.layers_size, images), items, verbose),
        );
    }
    if let Some(containers) = &usage.containers {
        let items = shaped_all(containers, shape::CONTAINER_SUMMARY);
        if version.before(52) || !verbose {
            fields.insert("Containers".to_owned(), json!(items));
        }
        fields.insert(
            "ContainerUsage".to_owned(),
            summary(&container_numbers(containers), items, verbose),
        );
    }
    if let Some(volumes) = &usage.volumes {
        let items = shaped_all(volumes, shape::VOLUME);
        if version.before(52) || !verbose {
            fields.insert("Volumes".to_owned(), json!(items));
        }
        fields.insert(
            "VolumeUsage".to_owned(),
            summary(&volume_numbers(volumes), items, verbose),
        );
    }
    if build_cache {
        if version.before(52) || !verbose {
            fields.insert("BuildCache".to_owned(), json!([]));
        }
        fields.insert("BuildCacheUsage".to_owned(), json!({}));
    }
    if version.before(52) {
        fields.retain(|key, _| !key.ends_with("Usage"));
    }
    shape::apply(Value::Object(fields), shape::DISK_USAGE)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Numbers {
    active: usize,
    total: usize,
    size: i64,
    reclaimable: i64,
}

fn summary(numbers: &Numbers, items: Vec<Value>, verbose: bool) -> Value {
    let fields = [
        ("ActiveCount", json!(numbers.active)),
        ("Items", if verbose { json!(items) } else { json!([]) }),
        ("Reclaimable", json!(numbers.reclaimable)),
        ("TotalCount", json!(numbers.total)),
        ("TotalSize", json!(numbers.size)),
    ];
    let set = fields
        .into_iter()
        .filter(|(_, value)| *value != json!(0) && *value != json!([]));
    Value::Object(set.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// What no container needs, as Docker's CLI always computed it.
fn image_numbers(layers_size: i64, images: &[m::ImageSummary]) -> Numbers {
    let used = images.iter().filter(|image| image.containers > 0);
    let needed: i64 = used
        .clone()
        .filter(|image| image.size != -1 && image.shared_size != -1)
        .map(|image| image.size - image.shared_size)
        .sum();
    Numbers {
        active: used.count(),
        total: images.len(),
        size: layers_size,
        reclaimable: (layers_size - needed).max(0),
    }
}

fn container_numbers(containers: &[m::ContainerSummary]) -> Numbers {
    use m::ContainerSummaryStateEnum::{PAUSED, RESTARTING, RUNNING};
    let is_active = |container: &&m::ContainerSummary| {
        matches!(container.state, Some(RUNNING | PAUSED | RESTARTING))
    };
    let size = |container: &m::ContainerSummary| container.size_rw.unwrap_or_default();
    Numbers {
        active: containers.iter().filter(is_active).count(),
        total: containers.len(),
        size: containers.iter().map(size).sum(),
        reclaimable: containers
            .iter()
            .filter(|container| !is_active(container))
            .map(size)
            .sum(),
    }
}

fn volume_numbers(volumes: &[m::Volume]) -> Numbers {
    let usage = |volume: &m::Volume| volume.usage_data.clone().unwrap_or_default();
    let size = |volume: &m::Volume| usage(volume).size.max(0);
    Numbers {
        active: volumes
            .iter()
            .filter(|volume| usage(volume).ref_count > 0)
            .count(),
        total: volumes.len(),
        size: volumes.iter().map(size).sum(),
        reclaimable: volumes
            .iter()
            .filter(|volume| usage(volume).ref_count == 0)
            .map(size)
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> DiskUsage {
        let image = |containers| m::ImageSummary {
            size: 10,
            shared_size: 4,
            containers,
            ..m::ImageSummary::default()
        };
        let container = |state| m::ContainerSummary {
            state: Some(state),
            size_rw: Some(3),
            ..m::ContainerSummary::default()
        };
        use m::ContainerSummaryStateEnum::{EXITED, RUNNING};
        DiskUsage {
            layers_size: 16,
            images: Some(vec![image(1), image(0)]),
            containers: Some(vec![container(RUNNING), container(EXITED)]),
            volumes: Some(Vec::new()),
        }
    }

    #[test]
    fn what_is_not_needed_is_reclaimable() {
        let usage = usage();
        assert_eq!(
            image_numbers(16, &usage.images.unwrap()),
            Numbers {
                active: 1,
                total: 2,
                size: 16,
                reclaimable: 10
            }
        );
        assert_eq!(
            container_numbers(&usage.containers.unwrap()),
            Numbers {
                active: 1,
                total: 2,
                size: 6,
                reclaimable: 3
            }
        );
    }

    #[test]
    fn each_version_gets_its_form() {
        let keys = |minor, verbose| {
            let report = report(&usage(), true, ApiVersion::new(1, minor), verbose);
            report
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            keys(41, false),
            "LayersSize Images Containers Volumes BuildCache"
        );
        assert_eq!(
            keys(53, true),
            "ImageUsage ContainerUsage VolumeUsage BuildCacheUsage"
        );
        assert_eq!(
            keys(53, false),
            "LayersSize Images Containers Volumes BuildCache ImageUsage ContainerUsage VolumeUsage BuildCacheUsage"
        );
    }
}
