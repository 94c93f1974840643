//! Whose token it is, and whether it counts: postrider's own key, and the issuers that the configuration names.
//!
//! What a token says of itself only chooses whose keys are tried: its `iss` the issuer, its `kid` the key of that issuer.
//! Which algorithms count is the issuer's and the key's business, never the token's (RFC 8725 §3.1).

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode_header};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::issuer::{Issuer, Keys};
use super::key_set::KeySet;
use super::{Claims, SigningKey, TokenError};

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    own: Arc<SigningKey>,
    issuers: Vec<Issuer>,
    /// What `aud` has to name where nothing else is configured: the address of the hub.
    resource: Vec<String>,
    hub: Url,
}

/// A token as it came, before anything of it is believed.
struct Unverified<'a> {
    token: &'a str,
    header: Header,
    issuer: Option<String>,
}

impl Verifier {
    /// A verifier for the hub at this address, which is its resource identifier too (RFC 9728).
    pub fn new(own: Arc<SigningKey>, issuers: Vec<Issuer>, hub: Url) -> Self {
        Self { own, issuers, resource: vec![hub.to_string()], hub }
    }

    /// The names of those whose tokens count.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().filter_map(|issuer| issuer.name.as_deref())
    }

    /// The key that postrider signs with.
    pub fn own_key(&self) -> &SigningKey {
        &self.own
    }

    /// Keeps published keys fresh until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for issuer in &self.issuers {
            if let Keys::Published(keys) = &issuer.keys {
                let (keys, stop) = (Arc::clone(keys), stop.clone());
                tasks.spawn(async move { keys.keep_fresh(stop).await });
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// What a token says, if somebody signed it whose tokens count, and it counts now.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.verify_at(token, Timestamp::now()).await
    }

    /// As [`Verifier::verify`], at another time than now.
    pub(super) async fn verify_at(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let unverified = Unverified::read(token)?;
        let claims = match self.open_by_issuer(&unverified).await? {
            Some(claims) => claims,
            // A front end that signs with our key may call itself what it likes, but for the name of an issuer.
            None => self.read(&unverified, &self.own.open(token)?, None)?,
        };
        claims.check_times(now)?;
        Ok(claims)
    }

    /// What the payload says of a token whose signature was good.
    fn read(
        &self,
        token: &Unverified<'_>,
        payload: &Map<String, Value>,
        issuer: Option<&Issuer>,
    ) -> Result<Claims, TokenError> {
        let named = issuer.filter(|issuer| !issuer.audience.is_empty());
        let audience = named.map_or(&self.resource, |issuer| &issuer.audience);
        if !token.is_access_token() {
            return Claims::read(payload, audience, named.is_some());
        }
        // RFC 9068 §4: the key has to be that of the issuer that the token names. Ours is that of the hub's own origin.
        let own = self.hub.origin().ascii_serialization();
        if token.issuer.is_none() || (issuer.is_none() && token.issuer.as_ref() != Some(&own)) {
            let detail =
                format!("`iss` of an access token must name its issuer; of postrider's own key that is `{own}`");
            return Err(TokenError::BadClaims(detail));
        }
        Claims::read_access_token(payload, audience, &self.hub)
    }

    /// What the token says by the keys of the issuers of its name; none where there are none of them, or where it may
    /// be our own.
    async fn open_by_issuer(&self, token: &Unverified<'_>) -> Result<Option<Claims>, TokenError> {
        let mut refusal = None;
        for issuer in self.issuers.iter().filter(|issuer| issuer.name == token.issuer) {
            match issuer.open(token).await {
                Ok(payload) => {
                    return Ok(Some(self.read(token, &payload, Some(issuer))?.without_administration()));
                }
                Err(err) => refusal = Some(err),
            }
        }
        match refusal {
            Some(err) if token.issuer.is_some() || token.header.alg != Algorithm::HS256 => Err(err),
            _ => Ok(None),
        }
    }
}

impl<'a> Unverified<'a> {
    fn read(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > SigningKey::TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: what is marked critical must be understood, and we know of no extension.
            return Err(TokenError::Malformed);
        }
        let payload: Map<String, Value> = insecure_decode_claims(token).map_err(|_| TokenError::Malformed)?;
        let issuer = match payload.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(issuer.clone()),
            Some(_) => return Err(TokenError::BadClaims("`iss` must be a string".to_owned())),
        };
        Ok(Self { token, header, issuer })
    }
}

impl Unverified<'_> {
    /// Whether it says that it is one (RFC 9068 §2.1). Media types have no case, and `application/` is mostly left out.
    fn is_access_token(&self) -> bool {
        let kind = self.header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        kind.strip_prefix("application/").unwrap_or(&kind) == "at+jwt"
    }
}

impl Issuer {
    /// The payload of a token that this issuer has signed.
    async fn open(&self, token: &Unverified<'_>) -> Result<Map<String, Value>, TokenError> {
        if !self.algorithms.contains(&token.header.alg) {
            return Err(TokenError::Algorithm);
        }
        let published = match &self.keys {
            Keys::Fixed(keys) => return open_by(keys, token),
            Keys::Published(published) => published,
        };
        let id = token.header.kid.as_deref();
        let keys = match published.now().filter(|keys| keys.has(id)) {
            Some(keys) => Some(keys),
            None => published.newer().await,
        };
        open_by(&*keys.ok_or(TokenError::NoKeys)?, token)
    }
}

fn open_by(keys: &KeySet, token: &Unverified<'_>) -> Result<Map<String, Value>, TokenError> {
    let algorithm = token.header.alg;
    let mut refusal = TokenError::UnknownKey;
    for key in keys.candidates(token.header.kid.as_deref(), algorithm) {
        match decode(token.token, key, &validation(algorithm)) {
            Ok(payload) => return Ok(payload),
            Err(err) => refusal = err,
        }
    }
    Err(refusal)
}

/// The payload of a token that this key has signed.
pub(super) fn decode(token: &str, key: &DecodingKey, by: &Validation) -> Result<Map<String, Value>, TokenError> {
    match jsonwebtoken::decode::<Map<String, Value>>(token, key, by) {
        Ok(decoded) if decoded.header.crit.is_some() => Err(TokenError::Malformed),
        Ok(decoded) => Ok(decoded.claims),
        Err(err) => Err(match err.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => {
                TokenError::BadSignature
            }
            _ => TokenError::Malformed,
        }),
    }
}

/// That of one algorithm. What the claims mean is `Claims`' business: it takes the time as an argument, names the claim
/// that is wrong, and refuses an `aud` of the wrong type, which the library would let pass.
pub(super) fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}
