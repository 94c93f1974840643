//! In place of the verifier where it is not built in (feature `mail-auth`): nothing is ever verified.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use super::MessageAuthenticationConfig;
use crate::event::Authentication;
use crate::source::intake::parsing::Parsing;
use crate::source::intake::spool::Whole;

/// There is none.
#[derive(Debug)]
pub(super) struct Verifier;

/// Nothing is looked up, so that nothing can be wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("verification is not built in")]
pub struct ResolverError(#[source] Infallible);

/// Nobody is asked.
#[derive(Debug, thiserror::Error)]
#[error("verification is not built in")]
pub struct NameServerError(#[source] Infallible);

/// Whose message it would be.
#[derive(Debug)]
#[expect(dead_code, reason = "nobody verifies")]
pub(super) struct Sender<'a> {
    pub address: Option<IpAddr>,
    pub helo: &'a str,
    pub mail_from: &'a str,
}

impl Verifier {
    #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
    pub(super) fn new(_config: &MessageAuthenticationConfig) -> Result<Self, ResolverError> {
        Ok(Self)
    }

    #[expect(clippy::unused_async, reason = "as the real one")]
    pub(super) async fn probe(&self) -> Result<Duration, NameServerError> {
        Ok(Duration::ZERO)
    }
}

/// Nothing is known. The configuration was refused that would ask for it.
#[expect(clippy::unused_async, reason = "as the real one")]
pub(super) async fn verify(
    _verifier: Option<&Verifier>,
    _parsing: &Parsing,
    _octets: Whole,
    _sender: Sender<'_>,
) -> Authentication {
    Authentication::default()
}
