//! A login on another device (RFC 8628): a person types a short code there, and we ask until that is done.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::token::{Refusal, Seconds, TokenAnswer};
use super::{Oauth, OauthError};

/// Pause between questions where the provider says nothing (RFC 8628 §3.5), and how much longer it gets.
const INTERVAL: Duration = Duration::from_secs(5);
const SLOWER_BY: Duration = Duration::from_secs(5);
/// How long a code counts where the provider does not say.
const LIFE: Duration = Duration::from_mins(15);

/// A login that has begun.
#[derive(Debug)]
pub struct DeviceLogin<'a> {
    oauth: &'a Oauth,
    code: SecretString,
    rhythm: Rhythm,
    /// Where a person goes.
    pub address: String,
    /// The same with the code in it, for a link or a QR code.
    pub address_with_code: Option<String>,
    /// What a person types there.
    pub user_code: String,
}

#[derive(Deserialize)]
struct Begun {
    device_code: Option<SecretString>,
    user_code: Option<String>,
    #[serde(alias = "verification_url")]
    verification_uri: Option<String>,
    verification_uri_complete: Option<String>,
    expires_in: Option<Seconds>,
    interval: Option<Seconds>,
    error: Option<String>,
}

impl Oauth {
    /// Begins a login on another device.
    ///
    /// # Errors
    /// See [`OauthError`].
    pub async fn begin_on_device(&self) -> Result<DeviceLogin<'_>, OauthError> {
        let scope = self.endpoints.scope.as_deref().map(|scope| ("scope", scope));
        let fields: Vec<_> = scope.into_iter().collect();
        let (status, begun) = self.http.post::<Begun>(self.endpoints.device()?, &self.client(&fields)).await?;
        if let Some(error) = begun.error {
            return Err(OauthError::Client(error.chars().filter(|c| !c.is_control()).take(100).collect()));
        }
        let whole = status == StatusCode::OK;
        match (begun.device_code, begun.user_code, begun.verification_uri) {
            (Some(code), Some(user_code), Some(address)) if whole => Ok(DeviceLogin {
                oauth: self,
                code,
                rhythm: Rhythm {
                    interval: begun
                        .interval
                        .and_then(|it| it.duration())
                        .unwrap_or(INTERVAL)
                        .max(Duration::from_secs(1)),
                    ends_at: Instant::now() + begun.expires_in.and_then(|it| it.duration()).unwrap_or(LIFE),
                },
                address,
                address_with_code: begun.verification_uri_complete,
                user_code,
            }),
            _ => Err(OauthError::Answer("there is no code in it")),
        }
    }
}

impl DeviceLogin<'_> {
    /// Asks until the person has agreed, and returns the refresh token.
    ///
    /// # Errors
    /// See [`OauthError`].
    pub async fn finish(mut self) -> Result<SecretString, OauthError> {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", self.code.expose_secret()),
        ];
        loop {
            sleep(self.rhythm.interval).await;
            let asked = self.oauth.ask(&fields).await;
            match self.rhythm.after(asked, Instant::now()) {
                Next::AskAgain => {}
                Next::Done(outcome) => return outcome,
            }
        }
    }
}

/// When to ask again. Pure.
#[derive(Debug)]
struct Rhythm {
    interval: Duration,
    ends_at: Instant,
}

enum Next {
    AskAgain,
    Done(Result<SecretString, OauthError>),
}

impl Rhythm {
    fn after(&mut self, asked: Result<(StatusCode, TokenAnswer), OauthError>, now: Instant) -> Next {
        let again = match &asked {
            Ok((_, answer)) => match answer.error.as_deref() {
                Some("authorization_pending") => true,
                Some("slow_down") => {
                    self.interval = self.interval.saturating_add(SLOWER_BY);
                    true
                }
                Some("access_denied") => return Next::Done(Err(OauthError::Denied(answer.reason()))),
                Some("expired_token") => return Next::Done(Err(OauthError::Expired)),
                _ => false,
            },
            // RFC 8628 §3.5: on a lost connection the pause doubles.
            Err(OauthError::Temporary(_)) => {
                self.interval = self.interval.saturating_mul(2);
                true
            }
            Err(_) => false,
        };
        if again {
            return if now + self.interval < self.ends_at {
                Next::AskAgain
            } else {
                Next::Done(Err(OauthError::Expired))
            };
        }
        Next::Done(asked.and_then(|(status, answer)| match answer.granted(status, now) {
            Ok(granted) => granted.refresh_token.ok_or(OauthError::NoRefreshToken),
            Err(Refusal::Grant(text)) => Err(OauthError::Denied(text)),
            Err(Refusal::Other(err)) => Err(err),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> (StatusCode, TokenAnswer) {
        (StatusCode::OK, serde_json::from_str(json).unwrap())
    }

    fn rhythm(now: Instant) -> Rhythm {
        Rhythm { interval: Duration::from_secs(5), ends_at: now + Duration::from_mins(5) }
    }

    #[test]
    fn it_asks_in_the_providers_rhythm() {
        let now = Instant::now();
        let mut rhythm = rhythm(now);
        let pending = || Ok(answer(r#"{"error":"authorization_pending"}"#));
        assert!(matches!(rhythm.after(pending(), now), Next::AskAgain));
        assert_eq!(rhythm.interval, Duration::from_secs(5));
        assert!(matches!(rhythm.after(Ok(answer(r#"{"error":"slow_down"}"#)), now), Next::AskAgain));
        assert_eq!(rhythm.interval, Duration::from_secs(10));
        let lost = Err(OauthError::Temporary("no connection".to_owned()));
        assert!(matches!(rhythm.after(lost, now), Next::AskAgain));
        assert_eq!(rhythm.interval, Duration::from_secs(20));
        let late = now + Duration::from_secs(290);
        assert!(matches!(rhythm.after(pending(), late), Next::Done(Err(OauthError::Expired))));
    }

    #[test]
    fn it_ends_with_what_the_person_said() {
        let now = Instant::now();
        let ended = |json| match rhythm(now).after(Ok(answer(json)), now) {
            Next::Done(outcome) => outcome,
            Next::AskAgain => panic!("{json}"),
        };
        let token = ended(r#"{"access_token":"a","refresh_token":"r"}"#).unwrap();
        assert_eq!(token.expose_secret(), "r");
        assert!(matches!(ended(r#"{"access_token":"a"}"#), Err(OauthError::NoRefreshToken)));
        assert!(matches!(ended(r#"{"error":"access_denied"}"#), Err(OauthError::Denied(_))));
        assert!(matches!(ended(r#"{"error":"expired_token"}"#), Err(OauthError::Expired)));
        assert!(matches!(ended(r#"{"error":"invalid_client"}"#), Err(OauthError::Client(_))));
    }
}
