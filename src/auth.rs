//! Who may do what: tokens, where a request carries them, and what they allow.
//!
//! A token is a JWT that postrider or a front end signed with the key in the data folder, or that an issuer signed whom
//! the configuration names. It is checked once, at the edge, and becomes an [`Authority`]; nothing behind the edge sees the
//! token itself. Nothing in here but [`Verifier`] waits: it may have to fetch an issuer's keys.

mod access_token;
mod authority;
mod claims;
mod config;
mod issuer;
mod key;
mod key_set;
mod origin;
mod presented;
mod published_keys;
mod shared_secret;
mod verifier;

pub use access_token::DETAIL_TYPE as ACCESS_TOKEN_DETAIL_TYPE;
pub use authority::Authority;
pub use claims::{Claims, MercureClaims, PostriderClaims, TokenError};
pub use config::{AuthConfig, AuthConfigError, IssuerConfig};
pub use issuer::{Issuer, IssuerError};
pub use key::{KeyError, SigningKey};
pub use key_set::KeySetError;
pub use origin::{OriginError, SiteOrigin, check_origin};
pub use presented::{ACCESS_TOKEN_COOKIE, COOKIE_NAME, Carrier, Presented};

pub use published_keys::FetchError;
pub use shared_secret::SharedSecret;
pub use verifier::Verifier;
