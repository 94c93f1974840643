//! Where to ask: from the configuration, the provider's preset, or what the provider says itself (OpenID Connect
//! Discovery).

use std::collections::BTreeMap;

use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::http::{Http, safe_url};
use super::{OauthConfig, OauthError};
use crate::source::imap::provider::{OauthPreset, Providers};

/// Where one provider is asked, and for what.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    token: Option<Url>,
    authorization: Option<Url>,
    device: Option<Url>,
    pub(super) scope: Option<String>,
    pub(super) parameters: BTreeMap<String, String>,
    /// The name of this machine in the address that the browser comes back to.
    pub(super) redirect_host: String,
    /// Who the provider says it is, where that is known.
    pub(super) issuer: Option<String>,
}

/// What a provider says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Discovered {
    issuer: String,
    token_endpoint: Option<String>,
    authorization_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
}

impl Endpoints {
    pub(super) async fn find(config: &OauthConfig, providers: &Providers, http: &Http) -> Result<Self, OauthError> {
        if let Some(preset) = providers.oauth(&config.provider) {
            return Self::of(config, preset, None);
        }
        if !config.provider.contains("://") {
            return Err(OauthError::Provider(config.provider.clone()));
        }
        let issuer = safe_url(&config.provider)?;
        if config.token_endpoint.is_some() {
            // All that is needed was said: a provider without discovery.
            return Self::of(config, &OauthPreset::default(), None);
        }
        let found = discover(&issuer, http).await?;
        let preset = OauthPreset {
            token_endpoint: found.token_endpoint,
            authorization_endpoint: found.authorization_endpoint,
            device_authorization_endpoint: found.device_authorization_endpoint,
            scope: Some("openid offline_access".to_owned()),
            ..OauthPreset::default()
        };
        Self::of(config, &preset, Some(found.issuer))
    }

    fn of(config: &OauthConfig, preset: &OauthPreset, issuer: Option<String>) -> Result<Self, OauthError> {
        let url = |own: &Option<String>, known: &Option<String>| {
            own.as_ref().or(known.as_ref()).map(|text| safe_url(text)).transpose()
        };
        Ok(Self {
            token: url(&config.token_endpoint, &preset.token_endpoint)?,
            authorization: url(&config.authorization_endpoint, &preset.authorization_endpoint)?,
            device: url(&config.device_authorization_endpoint, &preset.device_authorization_endpoint)?,
            scope: config.scope.clone().or_else(|| preset.scope.clone()),
            parameters: preset.authorization_parameters.clone(),
            redirect_host: preset.redirect_host.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
            issuer,
        })
    }

    pub(super) fn token(&self) -> Result<&Url, OauthError> {
        self.token.as_ref().ok_or(OauthError::NoEndpoint("token_endpoint"))
    }

    pub(super) fn authorization(&self) -> Result<&Url, OauthError> {
        self.authorization.as_ref().ok_or(OauthError::NoEndpoint("authorization_endpoint"))
    }

    pub(super) fn device(&self) -> Result<&Url, OauthError> {
        self.device.as_ref().ok_or(OauthError::NoEndpoint("device_authorization_endpoint"))
    }
}

async fn discover(issuer: &Url, http: &Http) -> Result<Discovered, OauthError> {
    let base = issuer.as_str().trim_end_matches('/');
    let url = safe_url(&format!("{base}/.well-known/openid-configuration"))?;
    let (status, found) = http.get::<Discovered>(&url).await?;
    if status != StatusCode::OK {
        return Err(OauthError::Answer("there is no OpenID configuration below its address"));
    }
    // OpenID Connect Discovery §4.3: else one provider could speak for another.
    if found.issuer.trim_end_matches('/') != base {
        return Err(OauthError::Answer("its OpenID configuration is of another issuer"));
    }
    Ok(found)
}
