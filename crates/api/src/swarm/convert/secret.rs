//! Secrets and configs.

use skep_proto as p;

use super::super::types as t;
use super::{annotations, driver, driver_to, meta, names};

pub(crate) fn secret(secret: &p::Secret) -> t::Secret {
    let empty = p::SecretSpec::default();
    let spec = secret.spec.as_ref().unwrap_or(&empty);
    let (name, labels) = names(spec.annotations.as_ref());
    t::Secret {
        id: secret.id.clone(),
        meta: meta(secret.meta.as_ref()),
        spec: t::SecretSpec {
            name,
            labels,
            data: t::Bytes(spec.data.clone()),
            driver: spec.driver.as_ref().map(driver),
            templating: spec.templating.as_ref().map(driver),
        },
    }
}

pub(crate) fn secret_spec_to(spec: &t::SecretSpec) -> p::SecretSpec {
    p::SecretSpec {
        annotations: Some(annotations(&spec.name, &spec.labels)),
        data: spec.data.0.clone(),
        templating: spec.templating.as_ref().map(driver_to),
        driver: spec.driver.as_ref().map(driver_to),
    }
}

pub(crate) fn config(config: &p::Config) -> t::Config {
    let empty = p::ConfigSpec::default();
    let spec = config.spec.as_ref().unwrap_or(&empty);
    let (name, labels) = names(spec.annotations.as_ref());
    t::Config {
        id: config.id.clone(),
        meta: meta(config.meta.as_ref()),
        spec: t::ConfigSpec {
            name,
            labels,
            data: t::Bytes(spec.data.clone()),
            templating: spec.templating.as_ref().map(driver),
        },
    }
}

pub(crate) fn config_spec_to(spec: &t::ConfigSpec) -> p::ConfigSpec {
    p::ConfigSpec {
        annotations: Some(annotations(&spec.name, &spec.labels)),
        data: spec.data.0.clone(),
        templating: spec.templating.as_ref().map(driver_to),
    }
}
