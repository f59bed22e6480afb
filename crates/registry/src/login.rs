//! `docker login`: whether a registry takes the credentials.

use http::StatusCode;

use crate::auth::Auth;
use crate::config::Registry;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, HUB_INDEX};
use crate::error::{Code, RegistryError};
use crate::http_client::{Ask, Http, status_text};
use crate::repository::ping;

impl Registry {
    /// Tries the credentials; gives the refresh token to keep instead of the password, if the
    /// registry has such.
    pub async fn login(&self, credentials: &Credentials) -> Result<Option<String>, RegistryError> {
        let address = credentials.server_address.as_str();
        let host = if address.is_empty() {
            HUB_INDEX
        } else {
            let bare = address
                .strip_prefix("https://")
                .or_else(|| address.strip_prefix("http://"))
                .unwrap_or(address);
            bare.split('/').next().unwrap_or_default()
        };
        if host.is_empty() || format!("https://{host}/").parse::<http::Uri>().is_err() {
            return Err(RegistryError::Invalid(format!(
                "unable to parse server address: {address:?}"
            )));
        }
        let mut last = None;
        for endpoint in self.endpoints(host, false).await {
            match self.login_at(&endpoint, credentials).await {
                Ok(token) => return Ok(token),
                Err(error) if error.code() == Some(Code::Unauthorized) => return Err(error),
                Err(error) => {
                    tracing::info!(registry = endpoint.host, %error, "can't log in, trying the next endpoint");
                    last = Some(error);
                }
            }
        }
        Err(last
            .unwrap_or_else(|| RegistryError::Invalid(format!("no endpoints found for {host}"))))
    }

    async fn login_at(
        &self,
        endpoint: &Endpoint,
        credentials: &Credentials,
    ) -> Result<Option<String>, RegistryError> {
        let http = Http::new(&self.config, endpoint)?;
        let auth = Auth::new(credentials.clone(), Vec::new(), true);
        ping(&http, endpoint, &auth).await?;
        let mut ask = Ask::get(endpoint.url("/v2/")).quick();
        if let Some(value) = auth.header(&http, &ask.method, &ask.url, None).await? {
            ask.headers.insert(http::header::AUTHORIZATION, value);
        }
        let answer = http.send(&ask).await?;
        if answer.status() != StatusCode::OK {
            return Err(RegistryError::Refused(format!(
                "login attempt to {} failed with status: {}",
                ask.url,
                status_text(answer.status())
            )));
        }
        Ok(auth
            .refresh_token()
            .or_else(|| Some(credentials.identity_token.clone()))
            .filter(|token| !token.is_empty()))
    }
}
