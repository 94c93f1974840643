//! XCLIENT in the session: a trusted proxy introduces the client whose mail it passes on.
//!
//! The session begins anew, but what was told stays. TLS stays too: it is between the proxy and us.

use super::super::command::CommandError;
use super::super::xclient::Told;
use super::{IDLE_COMMANDS_MAX, Next, Session};

/// What XCLIENT means in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Introduction {
    /// The client may introduce nobody.
    Refused,
    /// It may, whomever it has introduced before.
    Allowed,
    /// It has said what the client calls itself.
    WithHelo,
}

impl Introduction {
    pub(super) fn allowed(is_allowed: bool) -> Self {
        if is_allowed { Self::Allowed } else { Self::Refused }
    }
}

impl Session<'_> {
    pub(super) fn introduce(&mut self, told: Told, out: &mut Vec<u8>) -> Next {
        if self.introduction == Introduction::Refused {
            return self.error(out, CommandError::NotAuthorized.reply());
        }
        if self.transaction.is_some() {
            return self.error(out, "503 5.5.1 A MAIL transaction is in progress");
        }
        self.misuse.idle += 1;
        if self.misuse.idle > IDLE_COMMANDS_MAX {
            return self.soft(out, "", true);
        }
        let names_helo = told.names_helo();
        self.introduction = if names_helo { Introduction::WithHelo } else { Introduction::Allowed };
        told.tell(&mut self.client);
        self.take_introduced_user();
        self.greeted = names_helo;
        Next::NewClient
    }
}
