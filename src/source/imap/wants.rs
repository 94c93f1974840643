//! What an account wants to hear of: what is not wanted is not asked for.

use crate::event::EventKind;
use crate::registry::ImapEndpoint;

/// The kinds of events that cost something to find out. `MessageNew` and what the watcher says of itself are always
/// reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a kind of event of its own, wanted or not")]
pub(super) struct Wants {
    /// `MessageRead`.
    pub read: bool,
    /// `FlagsSet` and `FlagsClear`.
    pub flags: bool,
    /// `MessageTrash`.
    pub trash: bool,
    /// `MessageExpunge`.
    pub expunge: bool,
    /// `MailboxCreate`, `MailboxDelete`, `MailboxRename`.
    pub mailboxes: bool,
    /// Which mailboxes there are must be known, whether it is reported or not: those that a pattern brings are watched.
    pub follows_mailboxes: bool,
}

impl Wants {
    pub(super) fn of(endpoint: &ImapEndpoint, has_pattern: bool) -> Self {
        let Some(events) = &endpoint.events else {
            return Self {
                read: true,
                flags: false,
                trash: false,
                expunge: true,
                mailboxes: has_pattern,
                follows_mailboxes: has_pattern,
            };
        };
        let wants = |kinds: &[EventKind]| events.iter().any(|kind| kinds.contains(kind));
        let mailboxes = wants(&[EventKind::MailboxCreate, EventKind::MailboxDelete, EventKind::MailboxRename]);
        Self {
            mailboxes,
            follows_mailboxes: mailboxes || has_pattern,
            read: wants(&[EventKind::MessageRead]),
            flags: wants(&[EventKind::FlagsSet, EventKind::FlagsClear]),
            trash: wants(&[EventKind::MessageTrash]),
            expunge: wants(&[EventKind::MessageExpunge]),
        }
    }

    /// Whether anything of flags is.
    pub(super) fn any_flags(self) -> bool {
        self.read || self.all_flags()
    }

    /// Whether flags besides \Seen are.
    pub(super) fn all_flags(self) -> bool {
        self.flags || self.trash
    }

    /// Whether any change of messages that were reported is.
    pub(super) fn any_change(self) -> bool {
        self.any_flags() || self.expunge
    }
}
