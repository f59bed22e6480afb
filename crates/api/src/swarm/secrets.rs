//! `/secrets` and `/configs`.

use http::StatusCode;
use serde_json::json;
use skep_proto as p;

use super::control::Control;
use super::{convert, filters, lookup, types as t};
use crate::call::Call;
use crate::error::{ApiError, ApiResult};
use crate::reply;
use crate::state::ApiState;

pub(crate) async fn list_secrets(call: Call<ApiState>) -> ApiResult {
    let filters = filters::secrets(&call.filters()?)?;
    let control = Control::of(&call.state)?;
    let found = control
        .list_secrets(&p::ListSecretsRequest {
            filters: Some(filters),
        })
        .secrets;
    let secrets: Vec<_> = found.iter().map(convert::secret).collect();
    Ok(reply::json(&secrets))
}

pub(crate) async fn inspect_secret(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let secret = lookup::secret(&control, call.param("id"))?;
    Ok(reply::json(&convert::secret(&secret)))
}

pub(crate) async fn create_secret(mut call: Call<ApiState>) -> ApiResult {
    let spec: t::SecretSpec = call.json().await?;
    check_templating(&call, "secret", spec.templating.as_ref())?;
    let control = Control::of(&call.state)?;
    let request = p::CreateSecretRequest {
        spec: Some(convert::secret_spec_to(&spec)),
    };
    let created = control
        .create_secret(request)
        .await?
        .secret
        .unwrap_or_default();
    Ok(reply::json_with(
        StatusCode::CREATED,
        &json!({ "ID": created.id }),
    ))
}

pub(crate) async fn update_secret(mut call: Call<ApiState>) -> ApiResult {
    let spec: t::SecretSpec = call.json().await?;
    let version = call
        .query
        .object_version()
        .map_err(|_| ApiError::invalid("invalid secret version"))?;
    let control = Control::of(&call.state)?;
    let secret = lookup::secret(&control, call.param("id"))?;
    let request = p::UpdateSecretRequest {
        secret_id: secret.id,
        secret_version: Some(p::Version { index: version }),
        spec: Some(convert::secret_spec_to(&spec)),
    };
    control.update_secret(request).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn remove_secret(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let secret = lookup::secret(&control, call.param("id"))?;
    control
        .remove_secret(p::RemoveSecretRequest {
            secret_id: secret.id,
        })
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn list_configs(call: Call<ApiState>) -> ApiResult {
    let filters = filters::configs(&call.filters()?)?;
    let control = Control::of(&call.state)?;
    let found = control
        .list_configs(&p::ListConfigsRequest {
            filters: Some(filters),
        })
        .configs;
    let configs: Vec<_> = found.iter().map(convert::config).collect();
    Ok(reply::json(&configs))
}

pub(crate) async fn inspect_config(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let config = lookup::config(&control, call.param("id"))?;
    Ok(reply::json(&convert::config(&config)))
}

pub(crate) async fn create_config(mut call: Call<ApiState>) -> ApiResult {
    let spec: t::ConfigSpec = call.json().await?;
    check_templating(&call, "config", spec.templating.as_ref())?;
    let control = Control::of(&call.state)?;
    let request = p::CreateConfigRequest {
        spec: Some(convert::config_spec_to(&spec)),
    };
    let created = control
        .create_config(request)
        .await?
        .config
        .unwrap_or_default();
    Ok(reply::json_with(
        StatusCode::CREATED,
        &json!({ "ID": created.id }),
    ))
}

pub(crate) async fn update_config(mut call: Call<ApiState>) -> ApiResult {
    let spec: t::ConfigSpec = call.json().await?;
    let version = call
        .query
        .object_version()
        .map_err(|_| ApiError::invalid("invalid config version"))?;
    let control = Control::of(&call.state)?;
    let config = lookup::config(&control, call.param("id"))?;
    let request = p::UpdateConfigRequest {
        config_id: config.id,
        config_version: Some(p::Version { index: version }),
        spec: Some(convert::config_spec_to(&spec)),
    };
    control.update_config(request).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn remove_config(call: Call<ApiState>) -> ApiResult {
    let control = Control::of(&call.state)?;
    let config = lookup::config(&control, call.param("id"))?;
    control
        .remove_config(p::RemoveConfigRequest {
            config_id: config.id,
        })
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn check_templating(
    call: &Call<ApiState>,
    kind: &str,
    templating: Option<&t::Driver>,
) -> ApiResult<()> {
    if templating.is_some() && call.version.before(37) {
        return Err(ApiError::invalid(format!(
            "{kind} templating is not supported on the specified API version: {}",
            call.version
        )));
    }
    Ok(())
}
