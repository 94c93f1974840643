//! Who a request comes from, and whether its page may ask for it.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Problem;
use crate::auth::{Authority, Presented, SiteOrigin, Verifier, check_origin};

/// Turns a request's headers into what it may do. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    verifier: Arc<Verifier>,
    allowed_origins: Arc<[SiteOrigin]>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("allowed_origins", &self.allowed_origins).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate that takes the tokens that `verifier` takes, and pages of these origins besides our own.
    pub fn new(verifier: Arc<Verifier>, allowed_origins: &[SiteOrigin]) -> Self {
        Self { verifier, allowed_origins: allowed_origins.into() }
    }

    /// Who asks to read.
    ///
    /// # Errors
    /// A token that is there but not good is refused, rather than taken for none.
    pub async fn reader(&self, headers: &HeaderMap) -> Result<Authority, Problem> {
        match Presented::in_headers(headers)? {
            Some(presented) => self.bearer(presented).await,
            None => Ok(Authority::anonymous()),
        }
    }

    /// Who asks to change something, or to open a channel that any page could open in the user's name (WebSocket is
    /// not held back by the same-origin policy).
    ///
    /// # Errors
    /// As [`Gate::reader`], and when a cookie came along on another site's request.
    pub async fn writer(&self, headers: &HeaderMap) -> Result<Authority, Problem> {
        let authority = self.reader(headers).await?;
        self.check_origin(&authority, headers)?;
        Ok(authority)
    }

    /// Who a token makes of its bearer.
    ///
    /// # Errors
    /// When it is not good.
    pub async fn bearer(&self, presented: Presented<'_>) -> Result<Authority, Problem> {
        Ok(Authority::of(self.verifier.verify(presented.token).await?, presented.carrier))
    }

    /// The names of those whose tokens count.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.verifier.issuers()
    }

    /// Checks that a write with a cookie comes from one of our own pages.
    ///
    /// # Errors
    /// When it comes from another site's.
    pub fn check_origin(&self, authority: &Authority, headers: &HeaderMap) -> Result<(), Problem> {
        if authority.needs_origin_check() {
            let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("invalid"));
            let host = text(header::HOST).unwrap_or_default();
            let (origin, referer) = (text(header::ORIGIN), text(header::REFERER));
            // A proxy may have taken TLS off, so that either scheme is our own; no page can choose the host.
            ["https", "http"]
                .map(|scheme| check_origin(origin, referer, scheme, host, &self.allowed_origins))
                .into_iter()
                .reduce(Result::or)
                .unwrap_or(Ok(()))
                .map_err(|err| Problem::new(StatusCode::FORBIDDEN, "foreign-origin", err.to_string()))?;
        }
        Ok(())
    }

    /// Checks a token that came in a body.
    ///
    /// # Errors
    /// When it is not good.
    pub async fn token(&self, token: &str) -> Result<crate::auth::Claims, Problem> {
        Ok(self.verifier.verify(token).await?)
    }

    /// Signs a token of our own.
    pub fn sign(&self, claims: &crate::auth::Claims) -> String {
        self.verifier.own_key().sign(claims)
    }

    /// Whether pages of this origin may read our answers.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let site = origin.to_str().ok().and_then(|text| SiteOrigin::parse(text).ok());
        site.is_some_and(|site| self.allowed_origins.contains(&site))
    }
}
