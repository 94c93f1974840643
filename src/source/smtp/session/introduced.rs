//! XCLIENT in the session: a trusted proxy introduces the client whose mail it passes on.
//!
//! The session begins anew, but what was told stays. TLS stays too: it is between the proxy and us.

use super::super::command::CommandError;
use super::super::xclient::Told;
use super::{IDLE_COMMANDS_MAX, Next, Session};

impl Session<'_> {
    pub(super) fn introduce(&mut self, told: Told, out: &mut Vec<u8>) -> Next {
        if !self.may_introduce {
            return self.error(out, CommandError::NotAuthorized.reply());
        }
        if self.transaction.is_some() {
            return self.error(out, "503 5.5.1 A MAIL transaction is in progress");
        }
        self.misuse.idle += 1;
        if self.misuse.idle > IDLE_COMMANDS_MAX {
            return self.soft(out, "", true);
        }
        self.is_helo_told = told.names_helo();
        told.tell(&mut self.client);
        self.take_introduced_user();
        self.greeted = self.is_helo_told;
        Next::NewClient
    }
}
