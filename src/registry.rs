//! Accounts: who has which mailboxes, how they are reached, and how they are doing.
//!
//! The registry is data that sources, transports and the API share: sources report an account's state here, the
//! API and the page read it. It does not know how a mailbox is watched.

mod account;
mod changes;
mod credentials;
mod jmap_endpoint;
mod password;
mod pin;
mod proxy;
mod sender_policy;
mod state;

pub use account::{Account, ForwardTo, ImapEndpoint, ImapSecurity, LoginMechanism, OauthConfig};
pub use changes::{AccountChanges, Succession};
pub use credentials::{Credentials, CredentialsConfig, CredentialsError, Field, Rekeyed};
pub use jmap_endpoint::{JmapEndpoint, JmapUrlError};
pub use password::{PasswordError, PasswordSource};
pub(crate) use password::{first_line_of, printed_by};
pub use pin::{CertificatePin, CertificatePinError};
pub use proxy::{ProxyAddress, ProxyAddressError, ProxyKind};
pub use sender_policy::{DmarcFail, Requirement};
pub use state::{AccountState, AccountStatus, Registry};
