//! One repository at one endpoint.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use skep_reference::{Digest, Reference};
use tokio::sync::OwnedSemaphorePermit;

use crate::auth::Auth;
use crate::challenge::challenges;
use crate::config::Registry;
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::{Code, RegistryError};
use crate::http_client::{Ask, Body, Http, UPLOAD, checked, document};
use crate::manifest::{self, IndexEntry, Manifest, ManifestBody, media_type};
use crate::platform::Platform;
use crate::redirect::{resolve, same_origin};

/// What registries themselves accept.
const MANIFEST_MAX: usize = 4 << 20;
const CONFIG_MAX: u64 = 8 << 20;
const TAGS_MAX: usize = 16 << 20;
const TAG_PAGES_MAX: usize = 10_000;
/// An index may hold indexes; not for ever.
const INDEX_DEPTH_MAX: usize = 4;

/// What is to be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

/// A repository, ready to be asked. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub(crate) http: Http,
    pub(crate) endpoint: Endpoint,
    /// `library/busybox`
    path: String,
    auth: Arc<Auth>,
    pub(crate) attempts: u32,
}

impl Registry {
    /// Asks an endpoint what it wants and prepares to speak about a repository.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        access: Access,
        credentials: &Credentials,
    ) -> Result<Repository, RegistryError> {
        let path = reference.path();
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "push,pull",
        };
        // A mirror is another registry: what opens the Hub is not told to it.
        let credentials = if endpoint.mirror {
            Credentials::default()
        } else {
            credentials.clone()
        };
        let http = Http::new(&self.config, endpoint)?;
        let auth = Auth::new(
            credentials,
            vec![format!("repository:{path}:{actions}")],
            false,
        );
        ping(&http, endpoint, &auth).await?;
        Ok(Repository {
            http,
            endpoint: endpoint.clone(),
            path: path.to_owned(),
            auth: Arc::new(auth),
            attempts: self.config.attempts,
        })
    }

    /// One of the daemon's downloads; `None` if all are taken at the moment.
    pub fn try_download_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.downloads.clone().try_acquire_owned().ok()
    }

    /// One of the daemon's downloads, once one is free.
    pub async fn download_slot(&self) -> OwnedSemaphorePermit {
        let slots = self.downloads.clone();
        slots
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// One of the daemon's uploads; `None` if all are taken at the moment.
    pub fn try_upload_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.uploads.clone().try_acquire_owned().ok()
    }

    /// One of the daemon's uploads, once one is free.
    pub async fn upload_slot(&self) -> OwnedSemaphorePermit {
        let slots = self.uploads.clone();
        slots
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }
}

/// Any answer is one: what counts is how to authenticate.
pub(crate) async fn ping(
    http: &Http,
    endpoint: &Endpoint,
    auth: &Auth,
) -> Result<(), RegistryError> {
    let answer = http.send(&Ask::get(endpoint.url("/v2/")).quick()).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        auth.challenge(challenges(answer.headers()));
    }
    Ok(())
}

impl Repository {
    pub(crate) fn url(&self, rest: &str) -> String {
        self.endpoint.url(&format!("/v2/{}/{rest}", self.path))
    }

    /// Where a `Location` leads that answered a request to `from`.
    pub(crate) fn location(
        from: &str,
        answer: &Response<Incoming>,
    ) -> Result<String, RegistryError> {
        let location = answer.headers().get(header::LOCATION);
        let text = location
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .unwrap_or_default();
        if text.is_empty() {
            return Err(RegistryError::Refused(
                "the registry did not say where to upload to".to_owned(),
            ));
        }
        resolve(from, &text)
    }

    /// Sends with authorisation; asks for a new token once if the old one is not taken any more.
    pub(crate) async fn ask(
        &self,
        mut ask: Ask,
        mount_from: Option<&str>,
    ) -> Result<Response<Incoming>, RegistryError> {
        for again in [true, false] {
            self.authorize(&mut ask, mount_from).await?;
            let answer = self.http.send(&ask).await?;
            let refused = answer.status() == StatusCode::UNAUTHORIZED;
            if !(refused && again && self.auth.forget().await) {
                return Ok(answer);
            }
            let asked = challenges(answer.headers());
            let denied = asked
                .iter()
                .any(|challenge| challenge.get("error") == Some("insufficient_scope"));
            if denied || asked.is_empty() {
                return Ok(answer);
            }
            self.auth.challenge(asked);
        }
        unreachable!("the second turn returns")
    }

    /// Sends a body that can be sent once only.
    pub(crate) async fn send_body(
        &self,
        method: Method,
        url: String,
        length: u64,
        body: Body,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut ask = Ask::new(method, url)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, &length.to_string());
        self.authorize(&mut ask, None).await?;
        self.http
            .once(&ask.method, &ask.url, &ask.headers, body, UPLOAD)
            .await
    }

    async fn authorize(
        &self,
        ask: &mut Ask,
        mount_from: Option<&str>,
    ) -> Result<(), RegistryError> {
        ask.headers.remove(header::AUTHORIZATION);
        // Uploads may continue at another host: that one has its own secret in its address.
        if !same_origin(&self.endpoint.url("/"), &ask.url) {
            return Ok(());
        }
        let value = self
            .auth
            .header(&self.http, &ask.method, &ask.url, mount_from)
            .await?;
        if let Some(value) = value {
            ask.headers.insert(header::AUTHORIZATION, value);
        }
        Ok(())
    }

    /// The digest a tag has at the moment, if the registry tells it without sending the manifest:
    /// asking so does not count as a pull.
    pub async fn digest_of_tag(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let ask = accepting(Ask::new(
            Method::HEAD,
            self.url(&format!("manifests/{tag}")),
        ));
        let answer = self.ask(ask, None).await?;
        if !answer.status().is_success() {
            // The error's text comes with the manifest.
            return Ok(None);
        }
        let digest = answer.headers().get("docker-content-digest");
        Ok(digest.and_then(|value| value.to_str().ok()?.parse().ok()))
    }

    /// The manifest of the reference's digest or tag.
    pub async fn manifest(&self, reference: &Reference) -> Result<Manifest, RegistryError> {
        if let Some(digest) = reference.digest() {
            return self.manifest_by_digest(digest, reference).await;
        }
        let tag = reference.tag().unwrap_or("latest");
        match self.digest_of_tag(tag).await? {
            Some(digest) => self.manifest_by_digest(&digest, reference).await,
            None => self.fetch_manifest(tag, None, reference).await,
        }
    }

    async fn manifest_by_digest(
        &self,
        digest: &Digest,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        self.fetch_manifest(digest.as_str(), Some(digest), reference)
            .await
    }

    async fn fetch_manifest(
        &self,
        name: &str,
        expected: Option<&Digest>,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        let ask = accepting(Ask::get(self.url(&format!("manifests/{name}"))));
        let answer = checked(self.ask(ask, None).await?).await?;
        let kind = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or_default()
            .trim()
            .to_owned();
        let bytes = document(answer, MANIFEST_MAX, "the manifest").await?;
        let digest = match expected {
            Some(expected) => {
                if !matches(&bytes, expected) {
                    return Err(RegistryError::Verification(format!(
                        "manifest verification failed for digest {expected}"
                    )));
                }
                expected.clone()
            }
            None => Digest::sha256(&Sha256::digest(&bytes).into()),
        };
        manifest::parse(&bytes, digest, &kind, reference)
    }

    /// The image in an index that suits a platform.
    pub async fn select(
        &self,
        entries: &[IndexEntry],
        wanted: Option<&Platform>,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        let host = Platform::host();
        let platform = wanted.unwrap_or(&host);
        let mut open: Vec<(usize, IndexEntry)> = manifest::matching(entries, platform)
            .into_iter()
            .rev()
            .map(|entry| (1, entry.clone()))
            .collect();
        while let Some((depth, entry)) = open.pop() {
            let digest = &entry.descriptor.digest;
            let found = self.manifest_by_digest(digest, reference).await?;
            match &found.body {
                ManifestBody::Image(_) => return Ok(found),
                ManifestBody::Index(inner) if depth < INDEX_DEPTH_MAX => {
                    let inner = manifest::matching(inner, platform);
                    open.extend(inner.into_iter().rev().map(|e| (depth + 1, e.clone())));
                }
                ManifestBody::Index(_) => {}
            }
        }
        // containerd names the host's platform without its level.
        let mut named = platform.clone();
        if wanted.is_none() && named.architecture == "amd64" {
            named.variant.clear();
        }
        Err(RegistryError::NoMatch(named.to_string()))
    }

    /// An image's configuration document, verified.
    pub async fn config(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        let ask = Ask::get(self.url(&format!("blobs/{digest}")));
        let answer = checked(self.ask(ask, None).await?).await?;
        let bytes = document(answer, CONFIG_MAX as usize, "the image configuration").await?;
        if !matches(&bytes, digest) {
            return Err(RegistryError::Verification(format!(
                "image config verification failed for digest {digest}"
            )));
        }
        Ok(bytes)
    }

    /// All tags, page by page.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut found = Vec::new();
        let mut url = self.url("tags/list");
        for _ in 0..TAG_PAGES_MAX {
            let answer = checked(self.ask(Ask::get(url.clone()), None).await?).await?;
            let next = next_page(&answer);
            let bytes = document(answer, TAGS_MAX, "the list of tags").await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| {
                RegistryError::Verification(format!("error unmarshalling content: {error}"))
            })?;
            found.extend(page.tags.unwrap_or_default());
            match next {
                Some(link) => url = resolve(&url, &link)?,
                None => return Ok(found),
            }
        }
        Err(RegistryError::Refused(
            "the registry's list of tags does not end".to_owned(),
        ))
    }

    /// Puts a manifest in place under a tag.
    pub async fn put_manifest(
        &self,
        tag: &str,
        kind: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let mut ask = Ask::new(Method::PUT, self.url(&format!("manifests/{tag}")))
            .header(header::CONTENT_TYPE, kind);
        ask.body = bytes;
        ask.patience = UPLOAD;
        checked(self.ask(ask, None).await?).await.map(drop)
    }

    /// The size of a blob, if the repository has it.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let ask = Ask::new(Method::HEAD, self.url(&format!("blobs/{digest}")));
        let answer = self.ask(ask, None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = checked(answer).await?;
        let length = answer.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Some(length.unwrap_or(0)))
    }

    /// Starts reading a blob, from `offset` if the registry can do that.
    pub(crate) async fn open_blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut ask = Ask::get(self.url(&format!("blobs/{digest}")))
            .header(header::ACCEPT_ENCODING, "identity");
        if offset > 0 {
            ask = ask.header(header::RANGE, &format!("bytes={offset}-"));
        }
        let answer = self.ask(ask, None).await?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(answer);
        }
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(RegistryError::Api {
                code: Code::BlobUnknown,
                text: "unknown blob".to_owned(),
            });
        }
        checked(answer).await
    }
}

fn accepting(ask: Ask) -> Ask {
    media_type::ACCEPTED
        .iter()
        .fold(ask, |ask, kind| ask.header(header::ACCEPT, kind))
}

/// `Link: </v2/…?n=…>; rel="next"`
fn next_page(answer: &Response<Incoming>) -> Option<String> {
    let link = answer.headers().get(header::LINK)?.to_str().ok()?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| target.to_owned())
}

/// Whether content has a digest.
pub(crate) fn matches(bytes: &[u8], digest: &Digest) -> bool {
    let mut hasher = Hasher::new(digest);
    hasher.update(bytes);
    hasher.matches(digest)
}

/// A running hash of a digest's own kind.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn new(digest: &Digest) -> Self {
        match digest.algorithm() {
            "sha512" => Self::Sha512(Sha512::new()),
            "sha384" => Self::Sha384(Sha384::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha384(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn matches(self, digest: &Digest) -> bool {
        fn hex(bytes: &[u8]) -> String {
            use std::fmt::Write as _;
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        }
        let got = match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Sha384(hash) => hex(&hash.finalize()),
            Self::Sha512(hash) => hex(&hash.finalize()),
        };
        got == digest.hex()
    }
}
