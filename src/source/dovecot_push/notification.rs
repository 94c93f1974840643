//! What Dovecot says, read once at the edge. Pure.
//!
//! The OX driver sends one object for a delivery into INBOX; our Lua script uses the same names for all events, and
//! sends those of one transaction as a list. Fields that are not known are passed over: each Dovecot may add some.

use serde::{Deserialize, Deserializer};

/// Notifications that are taken at once; the script that we ship sends at most half as many.
const COUNT_MAX: usize = 200;

/// What happened, by the plugin's names (RFC 5423).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    MessageNew,
    MessageAppend,
    MessageExpunge,
    MessageRead,
    MessageTrash,
    FlagsSet,
    FlagsClear,
    MailboxCreate,
    MailboxDelete,
    MailboxRename,
    /// Something for which there is no event here, in this version or at all.
    Other,
}

/// One happening.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Notification {
    pub user: String,
    pub event: Happening,
    /// In UTF-8, as Dovecot has it inside, and not in IMAP's modified UTF-7: a name with `&` in it is not decoded.
    pub folder: String,
    #[serde(default)]
    pub old_folder: Option<String>,
    #[serde(default)]
    pub imap_uidvalidity: Option<u32>,
    #[serde(default)]
    pub imap_uid: Option<u32>,
    #[serde(default)]
    pub from: Option<String>,
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default)]
    pub snippet: Option<String>,
    #[serde(default)]
    pub message_id: Option<String>,
    #[serde(default)]
    pub messages: Option<u32>,
    #[serde(default)]
    pub unseen: Option<u32>,
    #[serde(default)]
    pub flags: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Happening {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The OX driver begins with a small letter, the Lua driver with a capital.
        let name = String::deserialize(deserializer)?.to_ascii_lowercase();
        Ok(match name.as_str() {
            "messagenew" => Self::MessageNew,
            "messageappend" => Self::MessageAppend,
            "messageexpunge" => Self::MessageExpunge,
            "messageread" => Self::MessageRead,
            "messagetrash" => Self::MessageTrash,
            "flagsset" => Self::FlagsSet,
            "flagsclear" => Self::FlagsClear,
            "mailboxcreate" => Self::MailboxCreate,
            "mailboxdelete" => Self::MailboxDelete,
            "mailboxrename" => Self::MailboxRename,
            _ => Self::Other,
        })
    }
}

/// Why a body cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotificationError {
    #[error("expected what Dovecot's push-notification plugin sends: {0}")]
    Json(#[from] serde_json::Error),
    #[error("more than {COUNT_MAX} notifications at once")]
    TooMany,
    #[error("a name is empty, longer than 1000 bytes, or has control characters")]
    Name,
}

/// Reads a body: one notification, or a list of them.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Notification>, NotificationError> {
    let notifications: Vec<Notification> = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(body)?
    } else {
        vec![serde_json::from_slice(body)?]
    };
    if notifications.len() > COUNT_MAX {
        return Err(NotificationError::TooMany);
    }
    let usable = |name: &str| !name.is_empty() && name.len() <= 1000 && !name.chars().any(char::is_control);
    let all_usable =
        |one: &Notification| usable(&one.user) && usable(&one.folder) && one.old_folder.as_deref().is_none_or(usable);
    if notifications.iter().all(all_usable) { Ok(notifications) } else { Err(NotificationError::Name) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the OX driver of Dovecot 2.3.19 sent it.
    const CAPTURED: &str = r#"{"user":"alice","event":"messageNew","folder":"INBOX","imap-uidvalidity":1795211633,
        "imap-uid":42,"from":"Ada <ada@example.org>","subject":"Grüße","snippet":"Hello","unseen":7}"#;

    #[test]
    fn what_dovecot_sends_is_read() {
        let [one] = parse(CAPTURED.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!((one.event, one.imap_uid, one.unseen), (Happening::MessageNew, Some(42), Some(7)));
        assert_eq!((one.imap_uidvalidity, one.folder.as_str()), (Some(1_795_211_633), "INBOX"));
        let list = format!("[{CAPTURED},{}]", CAPTURED.replace("messageNew", "SomethingNew"));
        let events: Vec<_> = parse(list.as_bytes()).unwrap().into_iter().map(|one| one.event).collect();
        assert_eq!(events, [Happening::MessageNew, Happening::Other]);
    }

    #[test]
    fn what_it_does_not_send_is_refused() {
        let without = |from: &str, to: &str| parse(CAPTURED.replace(from, to).as_bytes());
        assert!(matches!(without("INBOX", ""), Err(NotificationError::Name)));
        assert!(matches!(without("INBOX", "a\\nb"), Err(NotificationError::Name)));
        assert!(matches!(without("1795211633", "-1"), Err(NotificationError::Json(_))));
        assert!(matches!(without("1795211633", "4294967296"), Err(NotificationError::Json(_))));
        assert!(matches!(parse(b"null"), Err(NotificationError::Json(_))));
        let many = format!("[{}]", vec![CAPTURED; COUNT_MAX + 1].join(","));
        assert!(matches!(parse(many.as_bytes()), Err(NotificationError::TooMany)));
        assert_eq!(parse(b"[]").unwrap(), []);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..CAPTURED.len()) {
            let _parsed_or_not = parse(&body).is_ok();
            prop_assert!(parse(&CAPTURED.as_bytes()[..cut]).is_err());
        }
    }
}
