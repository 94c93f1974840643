//! Who may do what: tokens, where a request carries them, and what they allow.
//!
//! A token is a JWT that postrider or a front end signed with the key in the data folder. It is checked once, at
//! the edge, and becomes an [`Authority`]; nothing behind the edge sees the token itself. Nothing in here waits or
//! looks at the clock: the time is an argument, only the key file is I/O.

mod authority;
mod claims;
mod config;
mod key;
mod origin;
mod presented;
mod shared_secret;

pub use authority::Authority;
pub use claims::{Claims, MercureClaims, PostriderClaims, TokenError};
pub use config::AuthConfig;
pub use key::{KeyError, SigningKey};
pub use origin::{OriginError, SiteOrigin, check_origin};
pub use presented::{COOKIE_NAME, Carrier, Presented};
pub use shared_secret::SharedSecret;
