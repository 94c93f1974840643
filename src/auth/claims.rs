//! What a token says, and how it is read: each claim is checked by name, so that a front end's developer learns
//! which one is wrong.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use super::access_token;
use crate::event::TopicMatcher;

/// The claim `mercure` under a name that nobody else can have chosen.
const MERCURE_URL: &str = "https://mercure.rocks/";

/// Why a token is not accepted. No message holds any of the token, so that it may be logged and answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not a JWT of the kind that is used here.
    #[error(
        "not a token: expected a signed JSON Web Token of at most {} bytes, as `postrider token` prints it",
        super::SigningKey::TOKEN_BYTES_MAX
    )]
    Malformed,
    /// Somebody else signed it, or it was changed since.
    #[error(
        "the token was not signed with this server's key (HS256), or was altered; make one with `postrider token` on \
         the server, or sign with the key in its data folder"
    )]
    BadSignature,
    /// Its `exp` is past.
    #[error("the token expired at {0}; get a new one, for example with `postrider token`")]
    Expired(Timestamp),
    /// Its `nbf` is to come.
    #[error("the token is not valid before {0}; wait until then, or set the clock right")]
    NotYet(Timestamp),
    /// Its issuer's tokens are signed otherwise.
    #[error("the token is signed in a way that its issuer's tokens are not; see `algorithms` in `[[auth.issuer]]`")]
    Algorithm,
    /// Its issuer has no such key.
    #[error(
        "the token was signed with a key that its issuer does not have, or not any more; get a new token, or look at \
         the issuer's keys"
    )]
    UnknownKey,
    /// Its issuer's keys could not be fetched yet. The token may be good.
    #[error("the keys of the token's issuer cannot be read at the moment; try again later, or see postrider's log")]
    NoKeys,
    /// Only access tokens count, and this is none.
    #[error(
        "the token is no access token (RFC 9068, `typ` `at+jwt`), and tokens of the older kind are switched off here; see \
             `mercure.legacy`"
    )]
    NotAnAccessToken,
    /// A claim is not what it should be.
    #[error("the token's claim {0}; sign a token with that claim corrected")]
    BadClaims(String),
}

/// What a token says. Absent claims allow nothing; an absent `exp` never expires.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// What may be seen and published.
    pub mercure: MercureClaims,
    /// What may be administrated.
    #[serde(skip_serializing_if = "PostriderClaims::is_empty")]
    pub postrider: PostriderClaims,
    /// When it ends, in seconds since 1970 (RFC 7519 §4.1.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// When it begins, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// When it was made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Its identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// It is an access token (RFC 9068), not one of Mercure's older kind.
    #[serde(skip)]
    pub is_access_token: bool,
}

/// The claim `mercure`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MercureClaims {
    /// Events on a matching topic may be seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<TopicMatcher>,
    /// Events whose topics all match may be published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<TopicMatcher>,
    /// What others may know of a subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// The claim `postrider`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PostriderClaims {
    /// Accounts whose state may be read; `*` stands for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// Everything may be administrated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

impl PostriderClaims {
    fn is_empty(&self) -> bool {
        self.accounts.is_empty() && !self.admin
    }
}

impl Claims {
    /// Clocks differ by this much at most; the library's default of a minute would let a revoked user stay.
    const LEEWAY_SECONDS: u64 = 5;

    /// Whose it is, for limits and log lines: who brings a token is known, even where it names nobody.
    pub(crate) fn bearer(&self) -> &str {
        self.sub.as_deref().unwrap_or("token")
    }

    /// Reads the payload of a token whose signature was good. Where it says who it is for, that has to be one of
    /// `audience`; it has to say so where that is `required`.
    ///
    /// # Errors
    /// [`TokenError::BadClaims`], naming the first claim that is wrong. Claims that are not known are left alone.
    pub(super) fn read(payload: &Map<String, Value>, audience: &[String], required: bool) -> Result<Self, TokenError> {
        check_audience(payload.get("aud"), audience, required)?;
        // The form for those whose tokens may only have names of their own.
        let own = if payload.contains_key("mercure") { "mercure" } else { MERCURE_URL };
        let mercure = section(payload, own)?;
        let postrider = section(payload, "postrider")?;
        Ok(Self {
            mercure: MercureClaims {
                subscribe: matchers(mercure, "mercure.subscribe")?,
                publish: matchers(mercure, "mercure.publish")?,
                payload: mercure.and_then(|mercure| mercure.get("payload")).cloned(),
            },
            postrider: PostriderClaims {
                accounts: strings(postrider, "postrider.accounts")?.into_iter().map(str::to_owned).collect(),
                admin: boolean(postrider, "postrider.admin")?,
            },
            exp: numeric_date(payload, "exp")?,
            nbf: numeric_date(payload, "nbf")?,
            iat: numeric_date(payload, "iat")?,
            jti: string(payload, "jti")?,
            sub: string(payload, "sub")?,
            is_access_token: false,
        })
    }

    /// Reads the payload of an access token (RFC 9068) whose signature was good and whose `iss` is its issuer's name. Rights
    /// are in its `authorization_details` (RFC 9396); relative matchers in them start at `hub`.
    ///
    /// # Errors
    /// As [`Claims::read`]. One detail that is wrong voids the whole token.
    pub(super) fn read_access_token(
        payload: &Map<String, Value>,
        audience: &[String],
        hub: &Url,
    ) -> Result<Self, TokenError> {
        check_audience(payload.get("aud"), audience, true)?;
        if !payload.contains_key("exp") {
            return Err(wrong("exp", "there (RFC 9068 §2.2)"));
        }
        Ok(Self {
            mercure: access_token::details(payload, hub)?,
            postrider: PostriderClaims::default(),
            exp: numeric_date(payload, "exp")?,
            nbf: numeric_date(payload, "nbf")?,
            iat: numeric_date(payload, "iat")?,
            jti: string(payload, "jti")?,
            sub: string(payload, "sub")?,
            is_access_token: true,
        })
    }

    /// Whether the token counts at `now`.
    ///
    /// # Errors
    /// [`TokenError::Expired`] and [`TokenError::NotYet`].
    pub(super) fn check_times(&self, now: Timestamp) -> Result<(), TokenError> {
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        match (self.exp, self.nbf) {
            (Some(exp), _) if exp.saturating_add(Self::LEEWAY_SECONDS) <= seconds => {
                Err(TokenError::Expired(timestamp(exp)))
            }
            (_, Some(nbf)) if nbf > seconds.saturating_add(Self::LEEWAY_SECONDS) => {
                Err(TokenError::NotYet(timestamp(nbf)))
            }
            _ => Ok(()),
        }
    }

    /// The same for somebody who may give out rights to see and publish, and none to administrate.
    pub(super) fn without_administration(mut self) -> Self {
        self.postrider.admin = false;
        self
    }

    /// When the token ends; a stream that it opened ends then too.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.exp.map(timestamp)
    }
}

/// RFC 7519 §4.1.3: a token for somebody else must be refused.
fn check_audience(aud: Option<&Value>, audience: &[String], required: bool) -> Result<(), TokenError> {
    let is_ours = |value: &Value| value.as_str().is_some_and(|text| audience.iter().any(|own| own == text));
    let expected = || audience.join("` or `");
    let fits = match aud {
        None if required => {
            return Err(TokenError::BadClaims(format!("`aud` is missing; it must be `{}`", expected())));
        }
        None => true,
        Some(Value::Array(all)) => all.iter().any(is_ours),
        Some(one) => is_ours(one),
    };
    let wrong = || TokenError::BadClaims("`aud` says that it is for another service".to_owned());
    if fits { Ok(()) } else { Err(wrong()) }
}

/// The instant of a `NumericDate`; what lies beyond the year 9999 is as good as its end.
fn timestamp(seconds: u64) -> Timestamp {
    i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(Timestamp::MAX)
}

pub(super) fn wrong(claim: &str, expected: &str) -> TokenError {
    TokenError::BadClaims(format!("`{claim}` must be {expected}"))
}

/// The value of the last part of `claim`.
fn value<'a>(section: Option<&'a Map<String, Value>>, claim: &str) -> Option<&'a Value> {
    let name = claim.rsplit('.').next().unwrap_or(claim);
    section?.get(name)
}

fn section<'a>(payload: &'a Map<String, Value>, claim: &str) -> Result<Option<&'a Map<String, Value>>, TokenError> {
    match payload.get(claim) {
        None => Ok(None),
        Some(Value::Object(section)) => Ok(Some(section)),
        Some(_) => Err(wrong(claim, "an object")),
    }
}

fn strings<'a>(section: Option<&'a Map<String, Value>>, claim: &str) -> Result<Vec<&'a str>, TokenError> {
    let expected = || wrong(claim, "a list of strings");
    match value(section, claim) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or_else(expected)).collect(),
        Some(_) => Err(expected()),
    }
}

fn matchers(section: Option<&Map<String, Value>>, claim: &str) -> Result<Vec<TopicMatcher>, TokenError> {
    let parse = |(at, text): (usize, &str)| {
        // The matcher itself stays out of the message: it may be as long as the token.
        TopicMatcher::parse(text).map_err(|err| TokenError::BadClaims(format!("`{claim}[{at}]` is refused: {err}")))
    };
    strings(section, claim)?.into_iter().enumerate().map(parse).collect()
}

fn boolean(section: Option<&Map<String, Value>>, claim: &str) -> Result<bool, TokenError> {
    match value(section, claim) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(wrong(claim, "true or false")),
    }
}

fn string(payload: &Map<String, Value>, claim: &str) -> Result<Option<String>, TokenError> {
    match payload.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(claim, "a string")),
    }
}

/// A `NumericDate` (RFC 7519 §2), which may have a fraction. `null` is refused rather than read as "never".
fn numeric_date(payload: &Map<String, Value>, claim: &str) -> Result<Option<u64>, TokenError> {
    let Some(value) = payload.get(claim) else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..1e15).contains(seconds))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked above")]
        Some(seconds.trunc() as u64)
    });
    whole.map(Some).ok_or_else(|| wrong(claim, "a number of seconds since 1970"))
}
