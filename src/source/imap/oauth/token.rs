//! Asks for tokens, and keeps an access token while it lasts.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::error;

use super::{Oauth, OauthError};
use crate::event::AccountName;
use crate::registry::Credentials;

/// A longer life than this is not believed: the clock would run over.
const LIFE_MAX: Duration = Duration::from_hours(24 * 365);

/// An access token and how long it counts.
#[derive(Debug, Clone)]
pub(in super::super) struct AccessToken {
    pub value: SecretString,
    /// Nothing where nobody says.
    pub expires_at: Option<Instant>,
    refresh_at: Option<Instant>,
}

impl AccessToken {
    fn new(value: SecretString, life: Option<Duration>, now: Instant) -> Self {
        // The session that it opened is renewed at 85 % of what is left at the earliest, so that each renewal finds a
        // new token.
        let refresh_at = life.map(|life| now + life.mul_f64(0.85));
        Self { value, expires_at: life.map(|life| now + life), refresh_at }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.refresh_at.is_none_or(|time| now < time)
    }
}

/// An account's tokens while the program runs.
#[derive(Debug, Default)]
pub(in super::super) struct Tokens {
    access: Option<Box<AccessToken>>,
    /// A refresh token that replaced the stored one and could not be stored.
    unsaved: Option<SecretString>,
}

impl Tokens {
    /// The access token that is kept, if it still counts for long enough.
    pub(in super::super) fn fresh(&self, now: Instant) -> Option<AccessToken> {
        self.access.as_deref().filter(|token| token.is_fresh(now)).cloned()
    }

    /// Drops the access token, unless it was renewed since `refused` was taken.
    pub(in super::super) fn forget(&mut self, refused: &SecretString) {
        self.access.take_if(|token| token.value.expose_secret() == refused.expose_secret());
    }

    /// Fetches a new access token.
    pub(in super::super) async fn refresh(
        &mut self,
        oauth: &Oauth,
        account: &AccountName,
        credentials: &Credentials,
    ) -> Result<AccessToken, OauthError> {
        let refresh_token = match self.unsaved.clone() {
            Some(token) => token,
            None => oauth.stored(account, credentials).await?,
        };
        let granted = oauth.refreshed(&refresh_token).await.map_err(|err| match err {
            Refusal::Grant(text) => OauthError::Withdrawn(account.clone(), text),
            Refusal::Other(err) => err,
        });
        if matches!(granted, Err(OauthError::Withdrawn(..))) {
            // A person may have logged in meanwhile.
            self.unsaved = None;
        }
        let granted = granted?;
        if let Some(token) = granted.refresh_token.as_ref().or(self.unsaved.as_ref()) {
            self.unsaved = match oauth.store(token, account, credentials).await {
                Ok(()) => None,
                Err(err) => {
                    error!(%account, error = %err, "a new refresh token could not be stored; after a restart somebody \
                        may have to log in again");
                    Some(token.clone())
                }
            };
        }
        self.access = Some(Box::new(granted.access.clone()));
        Ok(granted.access)
    }
}

/// What the token endpoint gave.
pub(super) struct Granted {
    pub access: AccessToken,
    pub refresh_token: Option<SecretString>,
}

/// Why it gave nothing.
pub(super) enum Refusal {
    /// The code or refresh token is not taken (RFC 6749 §5.2: `invalid_grant`).
    Grant(String),
    Other(OauthError),
}

/// The answer of a token endpoint (RFC 6749 §5).
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    access_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
    pub error: Option<String>,
    error_description: Option<String>,
}

/// Some providers write numbers as texts.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    pub(super) fn duration(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        };
        Duration::try_from_secs_f64(seconds?.min(LIFE_MAX.as_secs_f64())).ok()
    }
}

impl TokenAnswer {
    /// The error, for people: `invalid_grant: Token has been revoked`.
    pub(super) fn reason(&self) -> String {
        let text = [self.error.as_deref(), self.error_description.as_deref()];
        let text = text.into_iter().flatten().collect::<Vec<_>>().join(": ");
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
    }

    pub(super) fn granted(self, status: StatusCode, now: Instant) -> Result<Granted, Refusal> {
        match (self.error.as_deref(), self.access_token) {
            (None, Some(value)) if status.is_success() && !value.expose_secret().is_empty() => {
                if self.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
                    return Err(Refusal::Other(OauthError::Answer("its token is not of the kind Bearer")));
                }
                let life = self.expires_in.and_then(|life| life.duration());
                let refresh_token = self.refresh_token.filter(|token| !token.expose_secret().is_empty());
                Ok(Granted { access: AccessToken::new(value, life, now), refresh_token })
            }
            (None, _) => Err(Refusal::Other(OauthError::Answer("there is no token in it"))),
            (Some(_), value) => {
                drop(value);
                Err(Self { access_token: None, ..self }.refusal())
            }
        }
    }

    fn refusal(self) -> Refusal {
        let reason = self.reason();
        match self.error.as_deref() {
            Some("invalid_grant" | "interaction_required" | "consent_required") => Refusal::Grant(reason),
            Some("temporarily_unavailable" | "server_error" | "slow_down") => {
                Refusal::Other(OauthError::Temporary(reason))
            }
            _ => Refusal::Other(OauthError::Client(reason)),
        }
    }
}

impl Oauth {
    /// Asks the token endpoint.
    pub(super) async fn ask(&self, fields: &[(&str, &str)]) -> Result<(StatusCode, TokenAnswer), OauthError> {
        self.http.post(self.endpoints.token()?, &self.client(fields)).await
    }

    async fn refreshed(&self, refresh_token: &SecretString) -> Result<Granted, Refusal> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose_secret())];
        let (status, answer) = self.ask(&fields).await.map_err(Refusal::Other)?;
        answer.granted(status, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(status: u16, json: &str) -> Result<Granted, Refusal> {
        let answer: TokenAnswer = serde_json::from_str(json).unwrap();
        answer.granted(StatusCode::from_u16(status).unwrap(), Instant::now())
    }

    #[test]
    fn a_token_is_renewed_before_it_is_over() {
        let now = Instant::now();
        let life = |json| granted(200, json).ok().unwrap().access;
        let token = life(r#"{"access_token":"t","token_type":"Bearer","expires_in":3600,"more":1}"#);
        assert!(token.expires_at.unwrap() >= now + Duration::from_hours(1));
        assert!(token.is_fresh(now + Duration::from_mins(50)) && !token.is_fresh(now + Duration::from_mins(52)));
        assert!(life(r#"{"access_token":"t","expires_in":"10"}"#).expires_at.is_some());
        assert!(life(r#"{"access_token":"t","expires_in":1e300}"#).expires_at.is_some());
        assert!(life(r#"{"access_token":"t","expires_in":-1}"#).expires_at.is_none());
        assert!(life(r#"{"access_token":"t"}"#).is_fresh(now + LIFE_MAX));
    }

    #[test]
    fn a_refused_token_is_forgotten_and_a_newer_one_kept() {
        let access = granted(200, r#"{"access_token":"new"}"#).ok().unwrap().access;
        let mut tokens = Tokens { access: Some(access.into()), unsaved: None };
        tokens.forget(&SecretString::from("old"));
        assert!(tokens.fresh(Instant::now()).is_some());
        tokens.forget(&SecretString::from("new"));
        assert!(tokens.fresh(Instant::now()).is_none());
    }

    #[test]
    fn refusals_say_whether_a_person_is_needed() {
        let refused = |status, json| match granted(status, json).err().unwrap() {
            Refusal::Grant(reason) => format!("grant {reason}"),
            Refusal::Other(err) => format!("{} {err}", err.needs_person()),
        };
        let text = refused(400, "{\"error\":\"invalid_grant\",\"error_description\":\"Token has\\nbeen revoked\"}");
        assert_eq!(text, "grant invalid_grant: Token has been revoked");
        assert!(refused(401, r#"{"error":"invalid_client"}"#).starts_with("true "));
        assert!(refused(400, r#"{"error":"temporarily_unavailable"}"#).starts_with("false "));
        assert!(refused(200, r#"{"token_type":"Bearer"}"#).starts_with("false "));
        assert!(refused(200, r#"{"access_token":"t","token_type":"mac"}"#).contains("Bearer"));
    }

    #[test]
    fn no_token_shows_in_what_is_logged() {
        let tokens = Tokens {
            access: granted(200, r#"{"access_token":"hunter2"}"#).ok().map(|it| it.access.into()),
            unsaved: Some("hunter2".into()),
        };
        assert!(!format!("{tokens:?}").contains("hunter2"));
    }
}
