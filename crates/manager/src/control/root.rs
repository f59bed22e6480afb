//! What a changed CA configuration makes of the cluster's root: nothing, another key, or a rotation.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use skep_ca::{CertificateInfo, CrossSignRequest, NodeIdentity, NodeKey, NodeRole, RootCa};
use skep_proto as proto;

use crate::error::{Code, ControlError, Result};
use crate::root_ca::{external_cas, key, normal, root_ca, text};

/// SwarmKit's least validity of a root that is brought along: a year.
const MIN_ROOT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
const NOT_CROSS_SIGNED: &str = "unable to generate a cross-signed certificate for root rotation";

/// Authorities outside of the swarm, as this needs them. Whatever goes wrong is only logged.
pub trait ExternalAuthorities: fmt::Debug + Send + Sync + 'static {
    /// Whether there is a server at `url` that one of the roots (PEM) has certified.
    fn check<'a>(
        &'a self,
        url: &'a str,
        roots_pem: &'a str,
    ) -> BoxFuture<'a, std::result::Result<(), String>>;

    /// Has the first of `urls` that answers certify a root: its certificate, PEM.
    fn cross_sign<'a>(
        &'a self,
        urls: &'a [String],
        roots_pem: &'a str,
        request: &'a CrossSignRequest,
    ) -> BoxFuture<'a, std::result::Result<String, String>>;
}

/// Decides upon a CA configuration.
pub(super) struct RootDecision<'a> {
    pub(super) current: &'a proto::RootCa,
    pub(super) wanted: &'a proto::CaConfig,
    pub(super) external: Option<&'a Arc<dyn ExternalAuthorities>>,
}

impl RootDecision<'_> {
    /// The root as it is to be, in the order of SwarmKit's checks. A root certificate that is given
    /// without its key is an external authority's.
    pub(super) async fn decide(&self) -> Result<proto::RootCa> {
        let (current, wanted) = (self.current, self.wanted);
        let certificate = normal(&wanted.signing_ca_cert);
        let has_key = !wanted.signing_ca_key.is_empty();
        if has_key && certificate.is_empty() {
            return Err(ControlError::invalid(
                "if a signing CA key is provided, the signing CA cert must also be provided",
            ));
        }
        let is_current = normal(&current.ca_cert) == certificate;
        if current.ca_key.is_empty() {
            if is_current && has_key {
                // The key of an external authority's root was handed over: nobody is needed any more.
                read(&certificate, &wanted.signing_ca_key)?;
                return Ok(self.with_key());
            }
            self.need_external(&current.ca_cert, "current").await?;
        }
        if certificate.is_empty() {
            return self.as_configured().await;
        }
        let root = read(&certificate, &wanted.signing_ca_key)?;
        check_certificate(&certificate)?;
        if !has_key {
            self.need_external(certificate.as_bytes(), "desired")
                .await?;
        }
        if is_current {
            return Ok(self.with_key());
        }
        // Chains with two certificates of one key are not followed by everybody.
        if has_key && wanted.signing_ca_key == current.ca_key {
            return Err(ControlError::invalid(
                "Cannot update to a cert with an identical key",
            ));
        }
        match &current.root_rotation {
            // The same rotation, but the key may come or go.
            Some(rotation) if normal(&rotation.ca_cert) == certificate => {
                let mut changed = current.clone();
                changed.last_forced_rotation = wanted.force_rotate;
                if let Some(rotation) = &mut changed.root_rotation {
                    rotation.ca_key.clone_from(&wanted.signing_ca_key);
                }
                Ok(changed)
            }
            _ => self.rotate(&root).await,
        }
    }

    /// Without a certificate in the configuration: as it is, or to a new root of the swarm's own.
    async fn as_configured(&self) -> Result<proto::RootCa> {
        let (current, wanted) = (self.current, self.wanted);
        if current.last_forced_rotation != wanted.force_rotate {
            let root = RootCa::generate(SystemTime::now().into())
                .map_err(|error| ControlError::new(Code::Internal, error.to_string()))?;
            return self.rotate(&root).await;
        }
        if let Some(rotation) = &current.root_rotation
            && rotation.ca_key.is_empty()
        {
            self.need_external(&rotation.ca_cert, "next").await?;
        }
        Ok(current.clone())
    }

    /// The present root, with the key that is given or without one; a rotation is called off.
    fn with_key(&self) -> proto::RootCa {
        proto::RootCa {
            ca_key: self.wanted.signing_ca_key.clone(),
            root_rotation: None,
            last_forced_rotation: self.wanted.force_rotate,
            ..self.current.clone()
        }
    }

    /// Begins a rotation. The present root signs, even if another rotation is under way.
    async fn rotate(&self, next: &RootCa) -> Result<proto::RootCa> {
        let crossed = if !self.current.ca_key.is_empty() {
            self.cross_sign_here(next)
                .map_err(|error| error.to_string())
        } else if next.key_pem().is_none() {
            return Err(ControlError::invalid(
                "rotating from one external CA to a different external CA is not supported",
            ));
        } else {
            self.cross_sign_elsewhere(next).await
        };
        let rotated = crossed.map(|crossed| proto::RootCa {
            root_rotation: Some(proto::RootRotation {
                ca_cert: next.certificate_pem().into(),
                ca_key: next.key_pem().unwrap_or_default().into(),
                cross_signed_ca_cert: normal(crossed.as_bytes()).into(),
            }),
            last_forced_rotation: self.wanted.force_rotate,
            ..self.current.clone()
        });
        let proven = rotated.and_then(|rotated| match prove(&rotated) {
            Ok(()) => Ok(rotated),
            Err(error) => Err(error.to_string()),
        });
        proven.map_err(|error| {
            tracing::error!(error, "{NOT_CROSS_SIGNED}");
            ControlError::new(Code::Internal, NOT_CROSS_SIGNED)
        })
    }

    fn cross_sign_here(&self, next: &RootCa) -> std::result::Result<String, skep_ca::CaError> {
        let certificate = text(&self.current.ca_cert, "the root certificate")?;
        let root = RootCa::from_pem(certificate, key(&self.current.ca_key)?)?;
        root.cross_sign(next.certificate_pem())
    }

    async fn cross_sign_elsewhere(&self, next: &RootCa) -> std::result::Result<String, String> {
        let urls: Vec<String> = self
            .external_cas(&self.current.ca_cert)
            .map(|external| external.url.clone())
            .collect();
        let request = next
            .cross_sign_request()
            .map_err(|error| error.to_string())?;
        let external = self.external.ok_or("no external CA can be reached")?;
        let roots = String::from_utf8_lossy(&self.current.ca_cert);
        external.cross_sign(&urls, &roots, &request).await
    }

    fn external_cas(&self, root: &[u8]) -> impl Iterator<Item = &proto::ExternalCa> {
        external_cas(&self.wanted.external_cas, &self.current.ca_cert, root)
    }

    /// A root whose key the swarm does not have needs somebody who signs.
    async fn need_external(&self, root: &[u8], which: &str) -> Result<()> {
        let roots = String::from_utf8_lossy(root);
        if let Some(external) = self.external {
            for authority in self.external_cas(root) {
                match external.check(&authority.url, &roots).await {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        tracing::warn!(
                            url = authority.url,
                            error,
                            "an external CA is unreachable or invalid"
                        );
                    }
                }
            }
        }
        Err(ControlError::invalid(format!(
            "there must be at least one valid, reachable external CA corresponding to the {which} CA certificate"
        )))
    }
}

fn read(certificate: &str, key_pem: &[u8]) -> Result<RootCa> {
    let root = key(key_pem).and_then(|key| RootCa::from_pem(certificate, key));
    root.map_err(|error| ControlError::invalid(error.to_string()))
}

fn check_certificate(certificate: &str) -> Result<()> {
    if certificate.matches("-----BEGIN").count() != 1 {
        return Err(ControlError::invalid(
            "the desired CA certificate cannot contain multiple certificates",
        ));
    }
    let info = CertificateInfo::from_pem(certificate)
        .map_err(|_| ControlError::invalid("could not parse the desired CA certificate"))?;
    if info.not_after < SystemTime::now() + MIN_ROOT_VALIDITY {
        return Err(ControlError::invalid("CA certificate expires too soon"));
    }
    Ok(())
}

/// What is issued from now on must be good with the present root: a certificate that nodes refuse
/// would be found out much too late. An authority elsewhere cannot be tried.
fn prove(rotated: &proto::RootCa) -> std::result::Result<(), skep_ca::CaError> {
    let root = root_ca(rotated)?;
    if root.key_pem().is_none() {
        return Ok(());
    }
    let identity = NodeIdentity {
        organization: "proof".into(),
        role: NodeRole::Worker,
        node_id: "proof".into(),
    };
    let now = SystemTime::now().into();
    let request = NodeKey::generate()?.request_pem()?;
    let certificate = root.sign(&request, &identity, Duration::ZERO, now)?;
    root.verify(&certificate, now)?;
    Ok(())
}

#[cfg(test)]
mod tests;
