//! What is known of who really sent a message: SPF, DKIM, DMARC and ARC, in the words of RFC 8601.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was found out about a message's sender, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authentication {
    /// Who found it out.
    pub source: AuthenticationSource,
    /// Whether the client may send for `spf_domain` (RFC 7208).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spf: Option<AuthenticationResult>,
    /// The domain of the reverse-path, or what the client calls itself where that path is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spf_domain: Option<String>,
    /// The signatures (RFC 6376), topmost first; at most ten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dkim: Vec<SignatureResult>,
    /// Whether SPF or DKIM speaks for the domain in `From` (RFC 9989).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dmarc: Option<AuthenticationResult>,
    /// The domain in `From`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dmarc_domain: Option<String>,
    /// What that domain wants to be done with mail that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dmarc_policy: Option<DmarcPolicy>,
    /// Whether the chain of forwarders' seals is whole (RFC 8617).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arc: Option<AuthenticationResult>,
    /// The account wants such mail to be marked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspicious: bool,
}

/// Who found out what is known of a message's sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationSource {
    /// Postrider itself.
    #[serde(rename = "self")]
    Own,
    /// A trusted mail server, in an `Authentication-Results` field (RFC 8601).
    Header,
    /// Nobody: a trusted server's field was looked for, and is not there.
    #[default]
    None,
}

/// What one method found: the keywords of RFC 8601 §2.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationResult {
    /// The sender is who it says.
    Pass,
    /// It is not, or a signature does not fit the message.
    Fail,
    /// SPF: probably not.
    Softfail,
    /// Nothing can be said of it.
    Neutral,
    /// The domain says nothing, or there is no signature.
    None,
    /// There is a result that local policy does not accept.
    Policy,
    /// DNS did not answer: later it may be different.
    Temperror,
    /// What the domain or the message says cannot be understood.
    Permerror,
}

impl AuthenticationResult {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pass,
        Self::Fail,
        Self::Softfail,
        Self::Neutral,
        Self::None,
        Self::Policy,
        Self::Temperror,
        Self::Permerror,
    ];

    /// The keyword.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Softfail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::Policy => "policy",
            Self::Temperror => "temperror",
            Self::Permerror => "permerror",
        }
    }

    /// Of a keyword, in any case. `hardfail` is what SPF's `fail` was once called (RFC 8601 §2.7.2).
    pub fn of_keyword(keyword: &str) -> Option<Self> {
        if keyword.eq_ignore_ascii_case("hardfail") {
            return Some(Self::Fail);
        }
        Self::ALL.into_iter().find(|result| keyword.eq_ignore_ascii_case(result.as_str()))
    }
}

impl fmt::Display for AuthenticationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureResult {
    /// Who signed, where that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Whether the signature is right.
    pub result: AuthenticationResult,
}

/// What a domain wants to be done with mail in its name that fails DMARC (RFC 9989 §4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcPolicy {
    /// Nothing.
    None,
    /// It is suspicious.
    Quarantine,
    /// It is not to be accepted.
    Reject,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_those_of_the_json() {
        for result in AuthenticationResult::ALL {
            assert_eq!(serde_json::to_value(result).unwrap(), result.as_str());
            assert_eq!(AuthenticationResult::of_keyword(&result.as_str().to_uppercase()), Some(result));
        }
        assert_eq!(AuthenticationResult::of_keyword("HardFail"), Some(AuthenticationResult::Fail));
        assert_eq!(AuthenticationResult::of_keyword("discard"), None);
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let nothing = serde_json::to_string(&Authentication::default()).unwrap();
        assert_eq!(nothing, r#"{"source":"none"}"#);
        assert_eq!(serde_json::from_str::<Authentication>(&nothing).unwrap(), Authentication::default());
    }
}
