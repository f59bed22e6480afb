//! The root certificate as the cluster object holds it.

use skep_ca::{CaError, NextRoot, RootCa, normalize_pem};
use skep_proto as proto;
use skep_proto::external_ca::CaProtocol;

/// The root, with the key if the cluster object has it. While it is being rotated, what it issues is
/// of the next root, and good with the present one.
pub fn root_ca(root: &proto::RootCa) -> Result<RootCa, CaError> {
    let certificate = text(&root.ca_cert, "the root certificate")?;
    let Some(rotation) = &root.root_rotation else {
        return RootCa::from_pem(certificate, key(&root.ca_key)?);
    };
    let next = NextRoot {
        certificate_pem: text(&rotation.ca_cert, "the next root certificate")?,
        key_pem: key(&rotation.ca_key)?,
        cross_signed_pem: text(
            &rotation.cross_signed_ca_cert,
            "the cross-signed certificate",
        )?,
    };
    RootCa::rotating(certificate, next)
}

/// The certificate of the root that is to issue the nodes' certificates, PEM: the next one, if the
/// root is being rotated.
pub fn issuing_root(root: &proto::RootCa) -> &[u8] {
    match &root.root_rotation {
        Some(rotation) => &rotation.ca_cert,
        None => &root.ca_cert,
    }
}

/// The external authorities that issue under a root certificate. Those without a certificate are of
/// the cluster's present root.
pub fn external_cas<'a>(
    all: &'a [proto::ExternalCa],
    present_root: &[u8],
    root: &[u8],
) -> impl Iterator<Item = &'a proto::ExternalCa> {
    let (present_root, root) = (normal(present_root), normal(root));
    all.iter().filter(move |external| {
        let is_its_own = if external.ca_cert.is_empty() {
            present_root == root
        } else {
            normal(&external.ca_cert) == root
        };
        is_its_own && external.protocol() == CaProtocol::Cfssl
    })
}

/// A bundle as it is compared.
pub(crate) fn normal(bundle: &[u8]) -> String {
    normalize_pem(&String::from_utf8_lossy(bundle))
}

/// `None` for an empty key.
pub(crate) fn key(pem: &[u8]) -> Result<Option<&str>, CaError> {
    let key = text(pem, "the root key")?;
    Ok(Some(key).filter(|key| !key.is_empty()))
}

pub(crate) fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, CaError> {
    std::str::from_utf8(bytes).map_err(|error| CaError::Parse {
        what,
        source: error.into(),
    })
}
