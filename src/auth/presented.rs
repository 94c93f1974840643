//! Where a request carries its token.

use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, HeaderValue};

use super::TokenError;

/// The cookie that Mercure names for browsers, whose `EventSource` cannot set headers.
pub const COOKIE_NAME: &str = "mercureAuthorization";

/// The cookie of Mercure's current draft, for access tokens.
pub const ACCESS_TOKEN_COOKIE: &str = "__Secure-mercure_access_token";

/// How a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// `Authorization: Bearer`: the program that sent the request has the token.
    Header,
    /// A cookie: any site may have made the browser send it.
    Cookie,
    /// The address: who has it has the token.
    Query,
}

/// A token as a request carries it, not verified yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// The token.
    pub token: &'a str,
    /// How it came.
    pub carrier: Carrier,
}

impl<'a> Presented<'a> {
    /// The token of a request, if it carries one. A bearer token hides the cookie, even if it turns out to be bad:
    /// who says who they are must not be taken for somebody else. Other schemes of `Authorization` are a proxy's
    /// business and hide nothing.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] where it is not clear which token is meant.
    pub fn in_headers(headers: &'a HeaderMap) -> Result<Option<Self>, TokenError> {
        Ok(Self::bearer(headers)?.or_else(|| Self::in_cookie(headers, &[COOKIE_NAME])))
    }

    /// The token in the first of these cookies that is there.
    pub fn in_cookie(headers: &'a HeaderMap, names: &[&str]) -> Option<Self> {
        let token = names.iter().find_map(|name| cookie(headers, name))?;
        Some(Self { token, carrier: Carrier::Cookie })
    }

    /// The token in `Authorization`.
    ///
    /// # Errors
    /// As [`Presented::in_headers`].
    pub fn bearer(headers: &'a HeaderMap) -> Result<Option<Self>, TokenError> {
        let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(bearer);
        match (bearers.next(), bearers.next()) {
            (Some(token), None) => Ok(Some(Self { token: token?, carrier: Carrier::Header })),
            (Some(_), Some(_)) => Err(TokenError::Malformed),
            (None, _) => Ok(None),
        }
    }
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented").field("carrier", &self.carrier).finish_non_exhaustive()
    }
}

/// The token of one `Authorization` header, if its scheme is Bearer (RFC 6750 §2.1; case does not matter, RFC 9110
/// §11.1).
fn bearer(value: &HeaderValue) -> Option<Result<&str, TokenError>> {
    let bytes = value.as_bytes();
    let scheme = bytes.get(..6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || !matches!(bytes.get(6), None | Some(b' ')) {
        return None;
    }
    Some(value.to_str().map_err(|_| TokenError::Malformed).map(|text| text.get(6..).unwrap_or("").trim()))
}

/// The first cookie of the name: browsers send that of the longest path first (RFC 6265 §5.4).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // HTTP/2 may split the cookies over several headers (RFC 9113 §8.2.3).
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(';'));
    let value = pairs.filter_map(|pair| pair.trim().split_once('=')).find_map(|(k, v)| (k == name).then_some(v))?;
    Some(value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&'static str, &str)]) -> Result<Option<(String, Carrier)>, TokenError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Ok(Presented::in_headers(&headers)?.map(|presented| (presented.token.to_owned(), presented.carrier)))
    }

    #[test]
    fn header_hides_cookie_even_when_it_is_empty() {
        let cookie = ("cookie", "a=b; mercureAuthorization=from.the.cookie; c=d");
        assert_eq!(found(&[cookie]), Ok(Some(("from.the.cookie".into(), Carrier::Cookie))));
        assert_eq!(
            found(&[cookie, ("authorization", "bearer  from.the.header")]),
            Ok(Some(("from.the.header".into(), Carrier::Header)))
        );
        assert_eq!(found(&[cookie, ("authorization", "Bearer")]), Ok(Some((String::new(), Carrier::Header))));
        assert_eq!(found(&[cookie, ("authorization", "Bearer gr\u{fc}n")]), Err(TokenError::Malformed));
    }

    #[test]
    fn basic_authentication_of_a_proxy_leaves_the_cookie_alone() {
        let headers = [("authorization", "Basic dTpw"), ("cookie", "mercureAuthorization=\"t\"")];
        assert_eq!(found(&headers), Ok(Some(("t".into(), Carrier::Cookie))));
        assert_eq!(found(&[("authorization", "Bearerless x")]), Ok(None));
        assert_eq!(found(&[("cookie", "xmercureAuthorization=t; mercureauthorization=t")]), Ok(None));
    }

    #[test]
    fn two_bearer_tokens_are_refused() {
        assert_eq!(found(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]), Err(TokenError::Malformed));
    }

    #[test]
    fn debug_shows_no_token() {
        let presented = Presented { token: "s3cret", carrier: Carrier::Cookie };
        assert!(!format!("{presented:?}").contains("s3cret"));
    }
}
