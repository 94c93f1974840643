//! From a notification to the event that it becomes where nobody watches the account. Pure.

use super::notification::{Happening, Notification};
use super::route::Destination;
use crate::event::{Counts, Draft, EventKind, MessageSummary, Origin, Topic};
use crate::event_log::DedupKey;
use crate::message;
use crate::source::imap::{canonical_mailbox, dedup_key};

/// Flags whose setting has an event of its own, which Dovecot sends beside `FlagsSet`.
const TOLD_APART: [&str; 2] = ["\\Seen", "\\Deleted"];

/// The event, and its key where it can happen once only; none for what is no event here.
pub(super) fn draft(notification: &Notification, to: &Destination) -> Option<(Draft, Option<DedupKey>)> {
    let kind = match notification.event {
        Happening::MessageNew => EventKind::MessageNew,
        Happening::MessageAppend => EventKind::MessageAppend,
        Happening::MessageExpunge => EventKind::MessageExpunge,
        Happening::MessageRead => EventKind::MessageRead,
        Happening::MessageTrash => EventKind::MessageTrash,
        Happening::FlagsSet => EventKind::FlagsSet,
        Happening::FlagsClear => EventKind::FlagsClear,
        Happening::MailboxCreate => EventKind::MailboxCreate,
        Happening::MailboxDelete => EventKind::MailboxDelete,
        Happening::MailboxRename => EventKind::MailboxRename,
        Happening::Other => return None,
    };
    let mailbox = canonical_mailbox(&notification.folder);
    let mut draft = Draft::in_mailbox(kind, Origin::Dovecot, &to.account, &mailbox);
    draft.uid_validity = notification.imap_uidvalidity;
    draft.uid = notification.imap_uid.filter(|_| notification.imap_uidvalidity.is_some());
    let counts = Counts { messages: notification.messages, unseen: notification.unseen };
    draft.counts = (counts.messages.is_some() || counts.unseen.is_some()).then_some(counts);
    match kind {
        EventKind::MessageNew | EventKind::MessageAppend => {
            draft.flags.clone_from(&notification.flags);
            draft.message = summary(notification).trimmed_to(to.content);
        }
        EventKind::FlagsSet | EventKind::FlagsClear => {
            let mut flags = notification.flags.clone().unwrap_or_default();
            let told_apart = |flag: &String| TOLD_APART.iter().any(|apart| flag.eq_ignore_ascii_case(apart));
            flags.retain(|flag| kind == EventKind::FlagsClear || !told_apart(flag));
            if flags.is_empty() {
                return None;
            }
            draft.flags = Some(flags);
        }
        EventKind::MailboxRename => {
            draft.old_mailbox = notification.old_folder.as_deref().map(canonical_mailbox);
            // Whoever follows the old name must hear where it went.
            draft.topics.extend(draft.old_mailbox.as_deref().map(|old| Topic::mailbox(&to.account, old)));
        }
        _ => {}
    }
    // A flag can be set again, and a mailbox made again.
    let happens_once = matches!(kind, EventKind::MessageNew | EventKind::MessageAppend | EventKind::MessageExpunge);
    let place = draft.uid_validity.zip(draft.uid).filter(|_| happens_once);
    let key = place.map(|(uid_validity, uid)| dedup_key(&to.account, &mailbox, uid_validity, uid, kind.as_str()));
    Some((draft, key))
}

fn summary(notification: &Notification) -> MessageSummary {
    // The OX driver sends fields as they stand in the message, the Lua driver decodes them; twice does no harm.
    let decoded = |subject: &str| message::decoded_line(&message::decode_header_text(subject.as_bytes()));
    MessageSummary {
        message_id: notification.message_id.as_deref().and_then(message::message_id),
        from: notification.from.as_deref().map(message::decoded_addresses).unwrap_or_default(),
        subject: notification.subject.as_deref().and_then(decoded),
        preview: notification.snippet.as_deref().and_then(message::preview_of_text),
        ..MessageSummary::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Content;
    use crate::source::dovecot_push::notification::parse;

    fn event_of(json: &str, content: Content) -> Option<(Draft, Option<DedupKey>)> {
        let to = Destination { account: "alice".parse().unwrap(), content, watched: false };
        draft(&parse(json.as_bytes()).unwrap()[0], &to)
    }

    #[test]
    fn a_new_message_says_what_the_account_allows() {
        let json = r#"{"user":"alice","event":"messageNew","folder":"inbox","imap-uidvalidity":7,"imap-uid":42,
            "from":"\"Lovelace, Ada\" <ada@example.org>","subject":"a\r\nb\u0000","snippet":"  x\n y","unseen":3}"#;
        let (draft, key) = event_of(json, Content::Preview).unwrap();
        assert_eq!((draft.uid, draft.uid_validity, draft.mailbox.as_deref()), (Some(42), Some(7), Some("INBOX")));
        assert_eq!(draft.counts, Some(Counts { messages: None, unseen: Some(3) }));
        assert_eq!(key, Some(dedup_key(&"alice".parse().unwrap(), "INBOX", 7, 42, "MessageNew")));
        let message = draft.message.unwrap();
        assert_eq!(message.from[0].name.as_deref(), Some("Lovelace, Ada"));
        assert_eq!((message.subject.as_deref(), message.preview.as_deref()), (Some("a b"), Some("x y")));
        assert!(event_of(json, Content::Envelope).unwrap().0.message.unwrap().preview.is_none());
        assert!(event_of(json, Content::None).unwrap().0.message.is_none());
    }

    #[test]
    fn flags_and_mailboxes_are_told_by_their_own_kinds() {
        let flags = |event: &str, flags: &str| {
            let json = format!(
                r#"{{"user":"alice","event":"{event}","folder":"a","imap-uidvalidity":7,"imap-uid":1,"flags":{flags}}}"#
            );
            event_of(&json, Content::None).map(|(draft, key)| (draft.kind, draft.flags, key))
        };
        let only = |flag: &str| Some(vec![flag.to_owned()]);
        let set = Some((EventKind::FlagsSet, only("\\Flagged"), None));
        assert_eq!(flags("FlagsSet", r#"["\\Seen","\\Flagged"]"#), set);
        assert_eq!(flags("FlagsSet", r#"["\\Seen"]"#), None, "MessageRead says it");
        assert_eq!(flags("FlagsClear", r#"["\\Seen"]"#), Some((EventKind::FlagsClear, only("\\Seen"), None)));
        let renamed = r#"{"user":"alice","event":"MailboxRename","folder":"b","old-folder":"a"}"#;
        let (draft, _) = event_of(renamed, Content::None).unwrap();
        assert_eq!(draft.old_mailbox.as_deref(), Some("a"));
        let topics: Vec<_> = draft.topics.iter().map(Topic::as_str).collect();
        assert_eq!(topics, ["mail/alice/b", "mail/alice/a"]);
        assert_eq!(event_of(r#"{"user":"a","event":"MailboxSubscribe","folder":"b"}"#, Content::None), None);
    }
}
