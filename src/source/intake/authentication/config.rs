//! `[smtp.message_authentication]`: how it is found out who really sent a message.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time that is of any use: less fails on the slower half of the world's name servers, and clients wait ten minutes for
/// the answer to their message (RFC 5321 §4.5.3.2.6).
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_mins(2);

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// `[smtp.message_authentication]`: SPF, DKIM, DMARC and ARC, found out here or by a trusted mail server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessageAuthenticationConfig {
    /// Whether messages are verified that come to `smtp.listen`, and to other listeners of the role `"smtp"` that say
    /// nothing else. Default: those of clients on other machines that have not logged in.
    pub verify: Option<bool>,
    /// Mail servers whose `Authentication-Results` are believed where postrider does not verify itself, by the name that
    /// they give themselves there. Default: none.
    pub trusted_authserv_ids: Vec<String>,
    /// Name servers, as `"192.0.2.53"` or with a port. Default: the system's, in `/etc/resolv.conf`.
    pub resolver: Vec<NameServer>,
    /// How long one message may wait for DNS; then what is not known is a `temperror`. Default: `"5s"`.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for MessageAuthenticationConfig {
    fn default() -> Self {
        Self { verify: None, trusted_authserv_ids: Vec::new(), resolver: Vec::new(), timeout: Duration::from_secs(5) }
    }
}

/// Where a name server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameServer(pub SocketAddr);

impl TryFrom<String> for NameServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let alone = || text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT));
        let address = text.parse().ok().or_else(alone);
        address.map(Self).ok_or_else(|| {
            format!("`{text}` is no name server: give its address, such as `192.0.2.53` or `[2001:db8::53]:5353`")
        })
    }
}

impl From<NameServer> for String {
    fn from(server: NameServer) -> Self {
        server.0.to_string()
    }
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageAuthenticationConfigError {
    /// Verification is asked for, and not built in.
    #[error(
        "`verify = true`, but this postrider was built without the feature `mail-auth`; build it with that feature, or let \
         your mail server verify and name it in `smtp.message_authentication.trusted_authserv_ids`"
    )]
    NotBuiltIn,
    /// Too little time, or more than clients wait.
    #[error("`smtp.message_authentication.timeout` is {}; give it 500ms to 2m", humantime_serde::re::humantime::format_duration(*.0))]
    Timeout(Duration),
    /// A server without a name.
    #[error(
        "`smtp.message_authentication.trusted_authserv_ids` has an empty entry; give the name that your mail server writes \
         first into `Authentication-Results`"
    )]
    EmptyId,
}

impl MessageAuthenticationConfig {
    /// Finds settings that cannot be. `verifies` says whether any listener asks for verification by name.
    ///
    /// # Errors
    /// See [`MessageAuthenticationConfigError`].
    pub fn check(&self, verifies: bool) -> Result<(), MessageAuthenticationConfigError> {
        if cfg!(not(feature = "mail-auth")) && (verifies || self.verify == Some(true)) {
            return Err(MessageAuthenticationConfigError::NotBuiltIn);
        }
        if !TIMEOUTS.contains(&self.timeout) {
            return Err(MessageAuthenticationConfigError::Timeout(self.timeout));
        }
        if self.trusted_authserv_ids.iter().any(|id| id.trim().is_empty()) {
            return Err(MessageAuthenticationConfigError::EmptyId);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default() {
        let default = MessageAuthenticationConfig::default();
        assert_eq!(toml::from_str::<MessageAuthenticationConfig>("").unwrap(), default);
        assert_eq!(default.check(false), Ok(()));
    }

    #[test]
    fn name_servers_are_addresses() {
        let servers = |text: &str| toml::from_str::<MessageAuthenticationConfig>(text).map(|config| config.resolver);
        let [plain, port, six] =
            ["192.0.2.53:53", "127.0.0.1:5353", "[2001:db8::53]:53"].map(|a| NameServer(a.parse().unwrap()));
        let found = servers("resolver = ['192.0.2.53', '127.0.0.1:5353', '2001:db8::53']").unwrap();
        assert_eq!(found, [plain, port, six]);
        let err = servers("resolver = ['dns.example.org']").unwrap_err().to_string();
        assert!(err.contains("192.0.2.53"), "{err}");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let check = |text: &str, verifies| toml::from_str::<MessageAuthenticationConfig>(text).unwrap().check(verifies);
        let zero = check("timeout = '0s'", false).unwrap_err().to_string();
        assert!(zero.contains("500ms to 2m"), "{zero}");
        let empty = check("trusted_authserv_ids = ['mx.example.org', ' ']", false);
        assert_eq!(empty, Err(MessageAuthenticationConfigError::EmptyId));
        let expected =
            if cfg!(feature = "mail-auth") { Ok(()) } else { Err(MessageAuthenticationConfigError::NotBuiltIn) };
        assert_eq!(check("verify = true", false), expected);
        assert_eq!(check("", true), expected);
        assert_eq!(check("verify = false", false), Ok(()));
    }
}
