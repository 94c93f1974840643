//! Forms out, JSON in: HTTP to OAuth providers, with limits on time and size.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::OauthError;

/// For one question and its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// An answer is a token or a list of addresses.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// A client that is made when it is first needed: it brings the system's certificate authorities along. Cheap to clone;
/// clones share.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Http(Arc<OnceLock<Client>>);

impl Http {
    fn client(&self) -> Result<&Client, OauthError> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let agent = concat!("postrider/", env!("CARGO_PKG_VERSION"));
        let built = Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).user_agent(agent);
        let client = built.build().map_err(|err| unreachable_because(&err))?;
        Ok(self.0.get_or_init(|| client))
    }

    /// Posts a form, and reads the answer whatever its status is.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> Result<(StatusCode, T), OauthError> {
        self.send(self.client()?.post(url.clone()).form(fields)).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<(StatusCode, T), OauthError> {
        self.send(self.client()?.get(url.clone())).await
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<(StatusCode, T), OauthError> {
        let request = request.header(reqwest::header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|err| unreachable_because(&err))?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(OauthError::Temporary(format!("HTTP {status}")));
        }
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|err| unreachable_because(&err))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(OauthError::Answer("it is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        let answer =
            serde_json::from_slice(&body).map_err(|_| OauthError::Answer("it is not the JSON that it must be"))?;
        Ok((status, answer))
    }
}

/// reqwest's error without the address, which may carry a code.
fn unreachable_because(err: &reqwest::Error) -> OauthError {
    let mut reason = if err.is_timeout() { "no answer in time" } else { "no connection" }.to_owned();
    let mut cause = std::error::Error::source(err);
    while let Some(err) = cause {
        let text = err.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = err.source();
    }
    OauthError::Temporary(reason)
}

/// An address that secrets may be sent to: https, or this machine.
pub(super) fn safe_url(text: &str) -> Result<Url, OauthError> {
    let insecure = || OauthError::Insecure(text.to_owned());
    let url = Url::parse(text).map_err(|_| insecure())?;
    let is_here = url.host_str().is_some_and(crate::config::is_loopback);
    if url.scheme() == "https" || (url.scheme() == "http" && is_here) { Ok(url) } else { Err(insecure()) }
}
