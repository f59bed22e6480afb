//! A client of OCI distribution registries: Docker Hub, private ones, mirrors.
//!
//! ```text
//! Registry      what the daemon was configured with; makes a connection to one repository
//!   endpoints   where a name leads: mirrors first, then https, then (insecure ones) http
//!   Http        one endpoint's connections: TLS of certs.d, proxies, redirects
//!   Repository  an endpoint, a repository and its credentials: manifests, blobs, tags, uploads
//!   download    one blob to a file: resumed, retried, verified
//! ```
//!
//! Credentials come in per call and are never stored, logged or part of an error. What a registry
//! says is not believed: manifests and blobs are hashed, documents have a size limit, redirects lead
//! to http and https only.
//!
//! Not here: what an image is on the disk (`skep-image`), Docker's progress messages and which
//! layers are needed (`skep-engine`).

mod auth;
mod challenge;
mod config;
mod connect;
mod credentials;
mod download;
mod endpoint;
mod error;
mod http_client;
mod login;
mod manifest;
mod platform;
mod proxy;
mod redirect;
mod repository;
mod search;
mod tls;
mod upload;

pub use config::{Registry, RegistryConfig, check_mirror};
pub use credentials::Credentials;
pub use download::{Download, DownloadEvent};
pub use endpoint::{Attempts, Endpoint};
pub use error::{Code, ErrorKind, RegistryError};
pub use manifest::{Descriptor, ImageManifest, IndexEntry, Manifest, ManifestBody, media_type};
pub use platform::Platform;
pub use proxy::ProxyConfig;
pub use repository::{Access, Repository};
pub use search::SearchResult;
pub use upload::{BlobSource, Mounted, UploadBody};
