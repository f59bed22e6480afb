//! TLS as a registry's client: the system's certificate authorities, and those of `certs.d`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::error::RegistryError;

/// Where distributions keep the certificate authorities they trust; the first that exists counts.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

type Certificates = Vec<CertificateDer<'static>>;

/// How to speak TLS with `host` (`name:port`).
pub(crate) fn client_config(
    certs_dir: &Path,
    host: &str,
    verify: bool,
) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| RegistryError::Invalid(error.to_string()))?;
    if !verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            .with_no_client_auth());
    }
    let own = HostFiles::read(&certs_dir.join(host))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_roots().iter().chain(&own.authorities).cloned());
    let verifier = Verifier::new(roots, own.authorities, provider)?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match own.client {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| RegistryError::Invalid(format!("tls: {error}"))),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn system_roots() -> &'static Certificates {
    static ROOTS: OnceLock<Certificates> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        named
            .into_iter()
            .chain(SYSTEM_BUNDLES.iter().map(PathBuf::from))
            .find_map(|path| std::fs::read(path).ok())
            .map(|pem| certificates(&pem))
            .unwrap_or_default()
    })
}

fn certificates(mut pem: &[u8]) -> Certificates {
    rustls_pemfile::certs(&mut pem)
        .filter_map(Result::ok)
        .collect()
}

/// What stands in a registry's directory below `certs.d`.
#[derive(Default)]
struct HostFiles {
    authorities: Certificates,
    client: Option<(Certificates, PrivateKeyDer<'static>)>,
}

impl HostFiles {
    /// `*.crt` are authorities, `*.cert` with its `*.key` is this daemon's own certificate.
    fn read(dir: &Path) -> Result<Self, RegistryError> {
        let failed =
            |path: &Path, error| RegistryError::io(format!("open {}", path.display()), error);
        let mut names = match std::fs::read_dir(dir) {
            Ok(entries) => entries
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect::<Vec<_>>(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed(dir, error)),
        };
        names.sort();
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|error| failed(&path, error))
        };
        let has = |name: &str| names.iter().any(|known| known == name);
        let mut found = Self::default();
        for name in &names {
            if let Some(stem) = name.strip_suffix(".cert") {
                let key_name = format!("{stem}.key");
                if !has(&key_name) {
                    return Err(RegistryError::Invalid(format!(
                        "missing key {key_name} for client certificate {name}. CA certificates must use the extension .crt"
                    )));
                }
                let key = rustls_pemfile::private_key(&mut read(&key_name)?.as_slice());
                let Ok(Some(key)) = key else {
                    return Err(RegistryError::Invalid(format!(
                        "tls: failed to find any PEM data in key input {key_name}"
                    )));
                };
                found.client = Some((certificates(&read(name)?), key));
            } else if let Some(stem) = name.strip_suffix(".key") {
                let certificate = format!("{stem}.cert");
                if !has(&certificate) {
                    return Err(RegistryError::Invalid(format!(
                        "missing client certificate {certificate} for key {name}"
                    )));
                }
            } else if name.strip_suffix(".crt").is_some() {
                found.authorities.extend(certificates(&read(name)?));
            }
        }
        Ok(found)
    }
}

/// The usual verification, and what Go does beyond it: a self-signed certificate that stands in
/// `certs.d` may be the server's own although it calls itself an authority (`openssl req -x509`
/// makes such ones, and every tutorial uses them).
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    pinned: Certificates,
}

impl Verifier {
    fn new(
        roots: RootCertStore,
        pinned: Certificates,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, RegistryError> {
        let usual = if roots.is_empty() {
            return Err(RegistryError::Invalid(
                "tls: failed to verify certificate: no certificate authorities are installed"
                    .to_owned(),
            ));
        } else {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| RegistryError::Invalid(format!("tls: {error}")))?
        };
        Ok(Self { usual, pinned })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let pinned = self.pinned.iter().any(|known| known == end_entity);
        match usual {
            Err(Error::InvalidCertificate(_)) if pinned => {
                check_dates(end_entity, now)?;
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// For insecure registries: encrypted, but to whomever.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A handshake's failure in Go's words.
pub(crate) fn go_text(error: &std::io::Error) -> String {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
            _ => error.to_string(),
        };
    };
    let x509 = |text: &str| format!("tls: failed to verify certificate: x509: {text}");
    match tls {
        Error::InvalidMessage(_) => "http: server gave HTTP response to HTTPS client".to_owned(),
        Error::InvalidCertificate(reason) => match reason {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                x509("certificate has expired or is not yet valid")
            }
            CertificateError::NotValidForName => x509("certificate is not valid for this name"),
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => x509(&format!(
                "certificate is valid for {}, not {}",
                presented.join(", "),
                expected.to_str()
            )),
            // The second: a certificate of its own making that nobody vouches for.
            CertificateError::UnknownIssuer | CertificateError::Other(_) => {
                x509("certificate signed by unknown authority")
            }
            other => x509(&other.to_string()),
        },
        Error::AlertReceived(alert) => format!("remote error: tls: {alert:?}"),
        other => format!("tls: {other}"),
    }
}
