//! AUTH in the session (RFC 4954): who may begin it and when, and its lines in and out of their base64.
//!
//! What the lines say is the mechanism's business ([`Exchange`]); whether it is true the caller finds out, by
//! [`Next::Verify`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::super::command::{Auth, CommandError};
use super::super::sasl::{Exchange, Mechanism, Secret, Step, Verdict};
use super::super::users::Users;
use super::{Next, Role, Session, go_on, reply};
use crate::source::intake::Peer;

/// RFC 4954 §4: lines of an exchange may have 12288 octets, for tokens.
const EXCHANGE_LINE_BYTES_MAX: usize = 12_288;

impl<'a> Session<'a> {
    /// The caller has found out what [`Next::Verify`] asked.
    pub(in super::super) fn verified(&mut self, verdict: Verdict, out: &mut Vec<u8>) -> Next {
        let Some(exchange) = &mut self.exchange else { return Next::Read };
        let step = match verdict {
            Verdict::Granted(identity) => exchange.judged(Some(identity)),
            Verdict::Denied => exchange.judged(None),
            Verdict::Unavailable => Step::Unavailable,
            Verdict::LockedOut => {
                self.exchange = None;
                let hostname = &self.policy.hostname;
                reply(out, &format!("421 4.7.0 {hostname} Too many failed logins, try again later"));
                return Next::HangUp;
            }
        };
        self.step(step, out)
    }

    /// Whatever was said of oneself was said by somebody else, or in the clear.
    pub(super) fn forget_login(&mut self) {
        (self.exchange, self.identity, self.client.user) = (None, None, None);
    }

    /// A trusted proxy has said who the client is, so that nothing is to be proven any more; or that it does not know.
    pub(super) fn take_introduced_user(&mut self) {
        let user = self.client.user.as_deref().zip(self.policy.users.as_deref());
        (self.exchange, self.identity) = (None, user.and_then(|(name, users)| users.identity(name)));
    }

    /// The mechanisms for EHLO; none where nobody can log in.
    pub(super) fn offered_mechanisms(&self) -> Option<String> {
        let users = self.policy.users.as_deref().filter(|_| self.is_protected())?;
        let names: Vec<&str> = Mechanism::offered(users).map(Mechanism::name).collect();
        (!names.is_empty()).then(|| format!("AUTH {}", names.join(" ")))
    }

    /// Whether nobody can listen in.
    pub(super) fn is_protected(&self) -> bool {
        self.client.tls || self.client.peer == Peer::Loopback
    }

    /// The reply that refuses mail from who has to log in first.
    pub(super) fn login_due(&self) -> Option<&'static str> {
        if self.policy.role != Role::Submission || self.identity.is_some() {
            None
        } else if self.is_protected() {
            Some("530 5.7.0 Authentication required")
        } else {
            Some("530 5.7.0 Must issue a STARTTLS command first")
        }
    }

    /// Longest line that makes sense now: credentials may be long, nothing else is.
    pub(super) fn line_bytes_max(&self) -> Option<usize> {
        let may_log_in = self.policy.users.is_some() && self.identity.is_none() && self.is_protected();
        may_log_in.then_some(EXCHANGE_LINE_BYTES_MAX)
    }

    pub(super) fn auth(&mut self, auth: &Auth, out: &mut Vec<u8>) -> Next {
        let (mechanism, users) = match self.may_log_in(auth) {
            Ok(both) => both,
            Err(refusal) => return self.error(out, refusal),
        };
        let exchange = Exchange::new(mechanism);
        let prompt = exchange.prompt();
        self.exchange = Some(Box::new(exchange));
        match auth.initial.as_ref().map(Secret::expose) {
            None => challenge(prompt, out),
            // An empty one (RFC 4954 §4).
            Some("=") => self.hear(b"", users, out),
            Some(initial) => self.decode(initial.as_bytes(), users, out),
        }
    }

    fn may_log_in(&self, auth: &Auth) -> Result<(Mechanism, &'a Users), &'static str> {
        let Some(users) = self.policy.users.as_deref() else { return Err(CommandError::NotImplemented.reply()) };
        if !self.greeted {
            return Err("503 5.5.1 Send EHLO first");
        }
        if self.identity.is_some() {
            return Err("503 5.5.1 Already authenticated");
        }
        if self.transaction.is_some() {
            return Err("503 5.5.1 Not during a mail transaction");
        }
        if !self.is_protected() {
            return Err("538 5.7.11 Encryption required, issue a STARTTLS command first");
        }
        let mechanism = auth.mechanism.filter(|mechanism| mechanism.is_offered(users));
        mechanism.map(|mechanism| (mechanism, users)).ok_or("504 5.5.4 Mechanism not offered here")
    }

    /// Takes a line, if it belongs to an exchange.
    pub(super) fn answer(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Next> {
        self.exchange.as_ref()?;
        let users = self.policy.users.as_deref()?;
        if line == b"*" {
            self.exchange = None;
            return Some(self.error(out, "501 5.7.0 Authentication cancelled"));
        }
        Some(self.decode(line, users, out))
    }

    fn decode(&mut self, line: &[u8], users: &Users, out: &mut Vec<u8>) -> Next {
        match BASE64.decode(line).map(Zeroizing::new) {
            Ok(message) => self.hear(&message, users, out),
            Err(_) => self.step(Step::Malformed, out),
        }
    }

    fn hear(&mut self, message: &[u8], users: &Users, out: &mut Vec<u8>) -> Next {
        let step = self.exchange.as_mut().map_or(Step::Malformed, |exchange| exchange.take(message, users));
        self.step(step, out)
    }

    fn step(&mut self, step: Step, out: &mut Vec<u8>) -> Next {
        let ended = match step {
            Step::Challenge(text) => return challenge(&text, out),
            Step::Verify(attempt) => return Next::Verify(Box::new(attempt)),
            ended => ended,
        };
        self.exchange = None;
        match ended {
            Step::Granted(identity) => {
                self.client.user = Some(identity.name.clone());
                self.identity = Some(identity);
                go_on(out, "235 2.7.0 Authentication successful")
            }
            Step::Denied => self.error(out, "535 5.7.8 Authentication credentials invalid"),
            Step::Unavailable => go_on(out, "454 4.7.0 Temporary authentication failure"),
            _ => self.error(out, "501 5.5.2 Cannot decode this for the mechanism"),
        }
    }
}

fn challenge(text: &str, out: &mut Vec<u8>) -> Next {
    go_on(out, &format!("334 {}", BASE64.encode(text)))
}
