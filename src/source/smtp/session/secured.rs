//! STARTTLS (RFC 3207) in the session, and what holds of a session with TLS.
//!
//! Nothing that came in the clear counts afterwards: neither what the client said before, nor what it, or somebody on
//! the way, sent behind the command (CVE-2011-0411).

use super::super::command::CommandError;
use super::super::config::TlsMode;
use super::{Next, Session, reply};

impl Session<'_> {
    /// TLS has begun, by STARTTLS or at once: nothing has been said yet (RFC 3207 §4.2).
    pub(in super::super) fn tls_started(&mut self) {
        self.lines.reset();
        (self.client.tls, self.greeted, self.transaction) = (true, false, None);
        self.forget_login();
    }

    /// Whether EHLO names STARTTLS.
    pub(super) fn offers_starttls(&self) -> bool {
        self.policy.tls == TlsMode::Starttls && !self.client.tls
    }

    pub(super) fn start_tls(&mut self, out: &mut Vec<u8>) -> Next {
        if self.client.tls {
            return self.error(out, "503 5.5.1 TLS is on already");
        }
        if !self.offers_starttls() {
            return self.refuse(CommandError::NotImplemented, out);
        }
        Next::StartTls
    }

    /// Answers STARTTLS, unless something came behind it: no honest client says more before the handshake.
    pub(super) fn grant_tls(octets_behind: usize, out: &mut Vec<u8>) -> Next {
        if octets_behind > 0 {
            reply(out, "554 5.5.1 STARTTLS has to be the last command");
            return Next::HangUp;
        }
        reply(out, "220 2.0.0 Ready to start TLS");
        Next::StartTls
    }
}
