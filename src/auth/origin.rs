//! Whether a write that a cookie allows was meant by the page's own site (cross-site request forgery).
//!
//! A pure function: the caller knows the scheme that the client used, which behind a proxy is not the socket's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Origin, Url};

/// An origin that may write with the cookie besides the server's own, as configured: `https://mail.example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteOrigin(Origin);

/// Why a cookie-borne write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// Nothing says where it came from.
    #[error("a write with the cookie needs an `Origin` or `Referer` header; programs send `Authorization: Bearer`")]
    Missing,
    /// It came from another site.
    #[error("a write with the cookie came from another origin; add that origin to the allowed ones if it is yours")]
    Foreign,
    /// A text that should be an origin is not.
    #[error("not an origin: expected `https://host` or `https://host:port` and nothing behind it")]
    Invalid,
}

impl SiteOrigin {
    /// Checks an origin that came from outside: scheme, host and at most a port, as RFC 6454 §6.2 writes them.
    ///
    /// # Errors
    /// [`OriginError::Invalid`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|_| OriginError::Invalid)?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        let origin = url.origin();
        if bare && anonymous && !text.ends_with('/') && origin.is_tuple() {
            Ok(Self(origin))
        } else {
            Err(OriginError::Invalid)
        }
    }
}

impl fmt::Display for SiteOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.ascii_serialization())
    }
}

impl FromStr for SiteOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl Serialize for SiteOrigin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SiteOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Checks that a cookie-borne write came from the server's own origin (`scheme` and the request's `Host`) or an
/// allowed one. `Origin` decides where it is there; `Referer` stands in for browsers that leave it out.
///
/// # Errors
/// [`OriginError::Missing`] when there is neither header, [`OriginError::Foreign`] when it is not one of ours, which
/// `Origin: null` never is.
pub fn check_origin(
    origin: Option<&str>,
    referer: Option<&str>,
    scheme: &str,
    host: &str,
    allowed: &[SiteOrigin],
) -> Result<(), OriginError> {
    let from = match (origin, referer) {
        (Some(origin), _) => SiteOrigin::parse(origin).map_err(|_| OriginError::Foreign)?.0,
        (None, Some(referer)) => Url::parse(referer).map_err(|_| OriginError::Foreign)?.origin(),
        (None, None) => return Err(OriginError::Missing),
    };
    // An opaque origin (`data:`, a sandboxed frame) is equal to none, whatever was configured.
    let own = SiteOrigin::parse(&format!("{scheme}://{host}"));
    if from.is_tuple() && (own.is_ok_and(|own| own.0 == from) || allowed.iter().any(|site| site.0 == from)) {
        Ok(())
    } else {
        Err(OriginError::Foreign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: Option<&str>, referer: Option<&str>) -> Result<(), OriginError> {
        let allowed = [SiteOrigin::parse("https://mail.example.org").unwrap()];
        check_origin(origin, referer, "https", "push.example.org", &allowed)
    }

    #[test]
    fn own_and_allowed_origins_may_write() {
        assert_eq!(check(Some("https://push.example.org"), None), Ok(()));
        assert_eq!(check(Some("https://push.example.org:443"), None), Ok(()), "the default port is the same origin");
        assert_eq!(check(Some("https://mail.example.org"), None), Ok(()));
        assert_eq!(check(None, Some("https://push.example.org/a/page?q#f")), Ok(()));
        assert_eq!(check_origin(Some("http://[::1]:8025"), None, "http", "[::1]:8025", &[]), Ok(()));
    }

    #[test]
    fn all_else_is_foreign() {
        for origin in [
            "http://push.example.org",
            "https://push.example.org:8443",
            "https://push.example.org.evil.test",
            "https://evil.test/https://push.example.org",
            "https://push.example.org@evil.test",
            "null",
            "",
            "data:text/html,x",
        ] {
            assert_eq!(check(Some(origin), None), Err(OriginError::Foreign), "{origin}");
        }
        assert_eq!(check(Some("https://evil.test"), Some("https://push.example.org/")), Err(OriginError::Foreign));
        assert_eq!(check(None, Some("https://evil.test/")), Err(OriginError::Foreign));
        assert_eq!(check(None, None), Err(OriginError::Missing));
        // A request that forges its Host cannot make an opaque origin its own.
        assert_eq!(check_origin(Some("null"), None, "data", "x", &[]), Err(OriginError::Foreign));
    }

    #[test]
    fn configured_origins_are_bare() {
        for wrong in ["https://a/", "https://a/b", "https://u@a", "a.example", "*", "mailto:a@b", "https://a?"] {
            assert_eq!(SiteOrigin::parse(wrong), Err(OriginError::Invalid), "{wrong}");
        }
        assert_eq!(SiteOrigin::parse("HTTPS://A.example:443").unwrap().to_string(), "https://a.example");
    }
}
