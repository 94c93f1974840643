//! Topics and account names: the strings that say what an event is about, checked once at the edge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize};

/// Everything but RFC 3986 §2.3's unreserved characters is encoded, so that a mailbox is always one segment.
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What an event is about, and what subscribers ask for: a path such as `mail/alice/INBOX`, or any text of a publisher.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Topic(Box<str>);

/// Why a text is not a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// There is nothing in it.
    #[error("a topic must not be empty")]
    Empty,
    /// `*` is what subscribers say for "all".
    #[error("`*` stands for all topics and cannot be a topic itself")]
    Wildcard,
    /// It is longer than [`Topic::BYTES_MAX`].
    #[error("a topic has at most {} bytes", Topic::BYTES_MAX)]
    TooLong,
    /// It holds a control character.
    #[error("a topic must not contain control characters")]
    Control,
}

impl Topic {
    /// The longest topic, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 1024;

    /// Checks a topic that came from outside.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if text == "*" {
            return Err(TopicError::Wildcard);
        }
        check(text, Self::BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// A topic as the log has it. Not checked again: that of a mailbox may be longer than a topic from outside, and
    /// whoever asks for it by a pattern must find it.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// `mail/{account}/{mailbox}`: everything that happens in one mailbox.
    pub fn mailbox(account: &AccountName, mailbox: &str) -> Self {
        Self(format!("mail/{}/{}", encode(account.as_str()), encode(mailbox)).into())
    }

    /// `mail/{account}`: what happens to an account as a whole.
    pub fn account(account: &AccountName) -> Self {
        Self(format!("mail/{}", encode(account.as_str())).into())
    }

    /// Any text as one segment of a topic.
    pub(crate) fn segment(text: &str) -> String {
        encode(text).to_string()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The limits that topics and matchers share.
pub(super) fn check(text: &str, bytes_max: usize) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > bytes_max {
        Err(TopicError::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(TopicError::Control)
    } else {
        Ok(())
    }
}

fn encode(variable: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(variable, NOT_UNRESERVED)
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The name of an account: what stands in its topics, its configuration and its events. Cheap to clone: a watched
/// account has its name in ten places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AccountName(Arc<str>);

/// Why a text is not an account name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an account name has 1 to {} bytes and no control characters", AccountName::BYTES_MAX)]
pub struct NameError;

impl AccountName {
    /// The longest name, in bytes of UTF-8: an SMTP local part has at most 64 (RFC 5321 §4.5.3.1.1), an address 254.
    pub const BYTES_MAX: usize = 254;

    /// Checks a name that came from outside.
    ///
    /// # Errors
    /// When it is empty, too long, or holds control characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text, Self::BYTES_MAX).map_err(|_| NameError)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccountName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for AccountName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_one_segment_whatever_its_name() {
        let alice = AccountName::parse("alice@example.org").unwrap();
        assert_eq!(Topic::mailbox(&alice, "Lists/rust").as_str(), "mail/alice%40example.org/Lists%2Frust");
        assert_eq!(Topic::mailbox(&alice, "Entwürfe *").as_str(), "mail/alice%40example.org/Entw%C3%BCrfe%20%2A");
    }

    #[test]
    fn what_cannot_be_a_topic_is_refused_with_its_reason() {
        assert_eq!(Topic::parse(""), Err(TopicError::Empty));
        assert_eq!(Topic::parse("*"), Err(TopicError::Wildcard));
        assert_eq!(Topic::parse("a\nb"), Err(TopicError::Control));
        assert_eq!(Topic::parse(&"x".repeat(1025)), Err(TopicError::TooLong));
        assert!(Topic::parse("mail/alice/{mailbox}").is_ok());
    }
}
