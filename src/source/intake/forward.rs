//! What of a message goes on, and to whom: the intake's side of forwarding. Pure.
//!
//! A message that comes back to a recipient from whom it was sent on before would go round for ever: it is known by the
//! `Delivered-To` that was put before it. Where that is so for all recipients the message is refused; where others have
//! a use for it, it is an event for all of them, and one more says that it went no further.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tracing::debug;

use super::delivery::{Mail, Recipient};
use super::path::Path;
use crate::event::{Draft, EventKind};
use crate::event_log::{Append, DedupKey, Outgoing, OutgoingTo};
use crate::message::Trace;
use crate::registry::ForwardTo;
use crate::source::forward::{Came, Forwarding};

/// What becomes of the message for one recipient, beside its event.
#[derive(Debug)]
pub(super) enum Forward {
    /// It ends here.
    No,
    /// It goes on.
    To(Arc<ForwardTo>, Forwarding),
    /// It was sent on from this recipient before.
    Loop,
    /// It has to go on and nobody would send it: it must not be accepted.
    NotYet,
}

/// Where a recipient's mail goes, as far as it decides what its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Into the log alone.
    Here,
    /// On to another server.
    On,
    /// Nowhere at the moment.
    Closed,
}

impl Forward {
    pub(super) fn way(&self) -> Way {
        match self {
            Self::No | Self::Loop => Way::Here,
            Self::To(..) => Way::On,
            Self::NotYet => Way::Closed,
        }
    }

    /// As the recipient's destination says. `Delivered-To` is believed whoever wrote it, as Postfix does: who puts it into
    /// a message of theirs only has that one refused, or not sent on. A mark that can be proven to be ours would have to
    /// survive the servers between, which drop fields that they do not know.
    pub(super) fn of(to: &Recipient, forwarding: Option<&Forwarding>, trace: &Trace) -> Self {
        let Some(forward) = &to.destination.forward else { return Self::No };
        if trace.was_delivered_to(to.path.as_str()) {
            return Self::Loop;
        }
        let Some(forwarding) = forwarding else {
            debug!(account = %to.destination.account, "its mail has to wait for a restart: [smtp.forward] is new");
            return Self::NotYet;
        };
        Self::To(Arc::clone(forward), forwarding.clone())
    }
}

/// Adds to `append` what goes on of `message`, which is that of `mail`.
pub(super) fn send_on(
    append: &mut Append,
    mail: &Mail,
    message: &Bytes,
    forwards: &[Forward],
    digest: Option<&[u8]>,
    received: Timestamp,
) {
    let original = mail.from.as_ref().map(Path::as_str).unwrap_or_default();
    let mut outgoing: Option<Outgoing> = None;
    for (recipient, forward) in mail.recipients.iter().zip(forwards) {
        let (forward, forwarding) = match forward {
            Forward::No | Forward::NotYet => continue,
            Forward::Loop => {
                let mut draft = failed(mail, recipient, None);
                draft.reason = Some("the message was forwarded from here before: it would go round in circles".into());
                append.push(draft, digest.map(|digest| key(recipient.path.as_str(), digest)));
                continue;
            }
            Forward::To(forward, forwarding) => (forward, forwarding),
        };
        let outgoing = outgoing.get_or_insert_with(|| Outgoing {
            mail_from: forwarding.mail_from(original),
            message: message.clone(),
            to: Vec::new(),
            limits: forwarding.limits,
        });
        let came = Came { origin: mail.origin, client: &mail.client, queue_id: mail.queue_id };
        let head = forwarding.head(recipient.path.as_str(), &came, received);
        for address in &forward.to {
            // Two recipients that lead to one: it is still one message there.
            if outgoing.to.iter().all(|earlier| earlier.address != *address) {
                let note = serde_json::to_string(&failed(mail, recipient, Some(address))).unwrap_or_default();
                let key = digest.map(|digest| key(address, digest));
                outgoing.to.push(OutgoingTo { address: address.clone(), head: head.clone(), note, key });
            }
        }
    }
    if let Some(outgoing) = outgoing {
        append.send_on(outgoing);
    }
}

fn key(address: &str, digest: &[u8]) -> DedupKey {
    DedupKey::of(&[b"forward", address.as_bytes(), digest])
}

/// The event that says that a message went no further, but for the reason.
fn failed(mail: &Mail, recipient: &Recipient, to: Option<&String>) -> Draft {
    let at = &recipient.destination;
    let mut draft = Draft::in_mailbox(EventKind::ForwardFailed, mail.origin, &at.account, &at.mailbox);
    draft.envelope = Some(mail.envelope_for(recipient));
    draft.data = to.map(|to| json!({ "to": to }));
    draft
}
