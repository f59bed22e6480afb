//! The swarm's certificate authority and its secrets at rest.
//!
//! The certificates, join tokens and unlock keys are SwarmKit's, bit for bit where another node
//! looks at them: a stock dockerd must accept a token or a certificate made here, and the other way
//! round. What lies on disk is named as SwarmKit names it (`certificates/swarm-root-ca.crt`,
//! `swarm-node.crt`, `swarm-node.key`); the sealed form of the key file is ours.
//!
//! Deliberately not here: the CA *service* (who may ask for a certificate, and when one is
//! approved, when a rotation is through) is in `rpc`; nothing here reads the clock, callers pass the
//! time.

mod certificate;
mod cross_sign;
mod der;
mod error;
mod files;
mod issuer;
mod root;
mod seal;
mod signer;
mod tls;
mod token;
mod unlock;

pub use certificate::{
    CertificateInfo, DEFAULT_NODE_CERTIFICATE_VALIDITY, MIN_NODE_CERTIFICATE_VALIDITY,
    NodeIdentity, NodeRole,
};
pub use cross_sign::CrossSignRequest;
pub use error::CaError;
pub use files::{CertificateFiles, KeyMaterial};
pub use issuer::IssuerInfo;
pub use root::{NextRoot, NodeCertificate, NodeKey, ROOT_CN, RootCa, normalize_pem};
pub use seal::{SealedRecord, SecretKey};
pub use tls::{bootstrap_client_config, client_config, external_client_config, server_config};
pub use token::JoinToken;
pub use unlock::UnlockKey;
