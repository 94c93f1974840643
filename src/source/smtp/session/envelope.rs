//! MAIL and RCPT: from whom a message is, and to whom, as far as it is taken (RFC 5321 §4.1.1.2, §4.1.1.3).

use std::sync::Arc;

use super::super::collector::Collector;
use super::super::command::Mail;
use super::super::parameter::MailParameters;
use super::{Next, Role, Session, TOO_BIG, go_on};
use crate::source::intake::{NoRoute, Path, Recipient, Routing};

/// Unknown recipients without a message in between: more than a mailing list has stale, less than guessing names needs.
const UNKNOWN_RECIPIENTS_MAX: u32 = 50;
/// Recipients beyond the limit: a client may send all of a long list before it reads a reply (RFC 2920).
const EXCESS_RECIPIENTS_MAX: u32 = 1000;

const NEEDS_SMTPUTF8: &str = "553 5.6.7 Address needs SMTPUTF8";

/// A transaction before its text: MAIL was accepted.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) from: Option<Path>,
    /// What held at MAIL holds for all recipients.
    pub(super) routing: Arc<Routing>,
    pub(super) smtputf8: bool,
    pub(super) recipients: Vec<Recipient>,
    /// The message, when it comes by BDAT.
    pub(super) chunks: Option<Collector>,
    /// At least one RCPT was refused, so that "no recipients" is no mistake in the order of commands.
    pub(super) refused: bool,
}

impl Session<'_> {
    pub(super) fn mail(&mut self, mail: Mail, out: &mut Vec<u8>) -> Next {
        if !self.greeted {
            let hello = if self.policy.role == Role::Lmtp { "LHLO" } else { "EHLO" };
            return self.error(out, &format!("503 5.5.1 Send {hello} first"));
        }
        if let Some(refusal) = self.login_due() {
            return self.error(out, refusal);
        }
        if self.transaction.is_some() {
            return self.error(out, "503 5.5.1 Nested MAIL command");
        }
        if self.is_throttled {
            return self.idle(out, "450 4.7.1 Too many messages from your address, try again later");
        }
        if mail.parameters.size > self.policy.limits.message_bytes_max as u64 {
            return self.error(out, TOO_BIG);
        }
        if !mail.parameters.smtputf8 && mail.from.as_ref().is_some_and(Path::is_internationalized) {
            return self.error(out, NEEDS_SMTPUTF8);
        }
        let Mail { from, parameters: MailParameters { smtputf8, .. } } = mail;
        let (routing, recipients) = (self.policy.routes.current(), Vec::new());
        self.transaction = Some(Open { from, routing, smtputf8, recipients, chunks: None, refused: false });
        go_on(out, "250 2.1.0 Ok")
    }

    pub(super) fn rcpt(&mut self, path: Path, out: &mut Vec<u8>) -> Next {
        let Some(open) = &mut self.transaction else {
            return self.error(out, "503 5.5.1 Send MAIL first");
        };
        if open.chunks.is_some() {
            return self.error(out, "503 5.5.1 The message has begun");
        }
        if open.recipients.len() >= self.policy.limits.recipients_max {
            // RFC 5321 §4.5.3.1.10: the message goes to those that were accepted, the client sends the rest again.
            self.misuse.excess_recipients += 1;
            return self.soft(
                out,
                "452 4.5.3 Too many recipients",
                self.misuse.excess_recipients > EXCESS_RECIPIENTS_MAX,
            );
        }
        let refusal = if !open.smtputf8 && path.is_internationalized() {
            NEEDS_SMTPUTF8
        } else {
            match open.routing.route(&path, self.client.peer) {
                Ok(destination) if self.identity.as_ref().is_some_and(|own| !own.may_write_to(&destination)) => {
                    "550 5.7.1 You may not write to this recipient"
                }
                Ok(destination) => {
                    open.recipients.push(Recipient::new(path, destination));
                    return go_on(out, "250 2.1.5 Ok");
                }
                Err(NoRoute::UnknownRecipient) => "550 5.1.1 No such recipient here",
                Err(NoRoute::ForeignDomain) => "550 5.7.1 Relaying denied",
            }
        };
        open.refused = true;
        self.misuse.unknown_recipients += 1;
        self.misuse.errors_total = self.misuse.errors_total.saturating_add(1);
        self.soft(out, refusal, self.misuse.unknown_recipients > UNKNOWN_RECIPIENTS_MAX)
    }
}
