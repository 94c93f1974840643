//! A message on its way into the event log: what it becomes there, and what its sender is told.
//!
//! All recipients go into one append, so that the one reply to the dot is true for all of them; where each has a reply of
//! its own, those whose mail cannot go on at the moment do not hold up the others. Whoever repeats a
//! message because the 250 was lost makes no second event, as long as the message has a Message-ID; without one,
//! two equal messages may well be two (the same alert twice), and losing one would be worse.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use jiff::{Timestamp, Unit};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::fmt::Simple;

use super::client::Client;
use super::forward::{self, Forward, Way};
use super::path::Path;
use super::routing::Destination;
use super::spool::Message;
use super::{Examine, Intake, Refusal, keeping};
use crate::attachments::Pending;
use crate::event::{Authentication, Content, Draft, Envelope, EventKind, Origin, Priority};
use crate::event_log::{Append, AppendError, DedupKey};
use crate::message::summarise;

/// One message with its envelope, to be committed.
#[derive(Debug)]
pub(crate) struct Mail {
    /// Which way it came.
    pub origin: Origin,
    /// What its sender is told, the event carries, and the log lines name.
    pub queue_id: QueueId,
    /// Who handed it over.
    pub client: Client,
    /// How it is found out who sent it.
    pub examine: Examine,
    /// The reverse-path; none for `<>`.
    pub from: Option<Path>,
    /// Whom it is for, in the order in which they were named. Never empty.
    pub recipients: Vec<Recipient>,
    /// The message.
    pub message: Message,
}

impl Mail {
    /// What an event of a recipient says of the envelope. Who wrote is content too, whether the message says so or the
    /// envelope; what the message is called in the log is not.
    pub(super) fn envelope_for(&self, recipient: &Recipient) -> Envelope {
        let is_wanted = recipient.destination.content > Content::None;
        let mail_from = || self.from.as_ref().map(Path::as_str).unwrap_or_default().to_owned();
        Envelope {
            mail_from: is_wanted.then(mail_from),
            rcpt_to: is_wanted.then(|| recipient.path.as_str().to_owned()),
            queue_id: self.queue_id.to_string(),
        }
    }
}

/// What was found of a message before it is committed.
#[derive(Debug)]
pub(super) struct Found {
    /// All of it.
    pub octets: Bytes,
    /// Who sent it, as far as that is known.
    pub authentication: Option<Authentication>,
    /// For whom it is suspicious, in the recipients' order.
    pub suspicious: Vec<bool>,
    /// To whom it goes on, in the recipients' order.
    pub forwards: Vec<Forward>,
}

/// A recipient whose mail is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    /// As the client wrote it, but for a secret in it.
    pub path: Path,
    /// Where its mail goes.
    pub destination: Destination,
}

impl Recipient {
    /// A recipient that the routing has sent somewhere. What is secret about its address ends here.
    pub(crate) fn new(path: Path, destination: Destination) -> Self {
        let Some(secret) = &destination.secret else { return Self { path, destination } };
        let mut shown = path.as_str().to_owned();
        secret.redact(&mut shown);
        let path = Path::parse(&shown).unwrap_or_else(Path::postmaster);
        Self { path, destination }
    }
}

/// The name of one message in replies, events and log lines: a UUIDv7 in 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueId(Simple);

impl QueueId {
    /// A name that no other message has.
    pub(crate) fn new() -> Self {
        let ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        // `now_v7` asks the system for random octets, for each message again.
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &rand::random()).into_uuid().simple())
    }

    /// A name that a test knows beforehand.
    #[cfg(test)]
    pub(crate) fn numbered(number: u128) -> Self {
        Self(uuid::Uuid::from_u128(number).simple())
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is committed.
    Committed,
    /// There is no space left for it.
    NoSpace,
    /// It could not be committed, or not in time.
    Failed,
    /// The log takes nothing more.
    ShuttingDown,
    /// It has been through too many servers: it would come again and again.
    Loop,
    /// Its recipients do not take it from whoever sent it.
    Refused(Refusal),
}

/// A message that is to be committed, and what was found of it.
#[derive(Debug)]
pub(super) struct Letter {
    pub mail: Mail,
    pub found: Found,
}

impl Letter {
    /// The same for those of its recipients whose mail goes one of these ways.
    fn only(self, is_one: impl Fn(Way) -> bool) -> Self {
        let Self { mut mail, mut found } = self;
        let is_one: Vec<bool> = found.forwards.iter().map(|forward| is_one(forward.way())).collect();
        retain(&mut mail.recipients, &is_one);
        retain(&mut found.suspicious, &is_one);
        retain(&mut found.forwards, &is_one);
        Self { mail, found }
    }
}

/// Keeps those at whose place there is a yes.
fn retain<T>(all: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    all.retain(|_| keep.next() == Some(&true));
}

/// Why a message is not committed.
enum NotCommitted {
    /// It has to go on, and too much waits for that already.
    OutboxFull,
    /// Something that concerns all of its recipients.
    For(Outcome),
}

/// What the sender is told of all recipients.
fn outcome(result: &Result<(), NotCommitted>) -> Outcome {
    match result {
        Ok(()) => Outcome::Committed,
        Err(NotCommitted::OutboxFull) => Outcome::NoSpace,
        Err(NotCommitted::For(outcome)) => *outcome,
    }
}

/// Commits one message for all of its recipients or for none; see [`super::Intake::take`].
pub(super) async fn commit(intake: &Intake, letter: Letter) -> Outcome {
    if letter.found.forwards.iter().any(|forward| forward.way() == Way::Closed) {
        return Outcome::Failed;
    }
    outcome(&append(intake, Arc::new(letter)).await)
}

/// Commits one message for those of its recipients for whom that can be done; see [`super::Intake::take_each`].
pub(super) async fn commit_each(intake: &Intake, letter: Letter) -> Vec<Outcome> {
    let ways: Vec<Way> = letter.found.forwards.iter().map(Forward::way).collect();
    let letter = Arc::new(letter.only(|way| way != Way::Closed));
    // It stays in memory for as long as what goes on of it, and is parsed again only where that finds no place.
    let rest = (ways.contains(&Way::Here) && ways.contains(&Way::On)).then(|| Arc::clone(&letter));
    let result = append(intake, letter).await;
    let on = outcome(&result);
    let here = match (result, rest.and_then(Arc::into_inner)) {
        (Err(NotCommitted::OutboxFull), Some(rest)) => {
            outcome(&append(intake, Arc::new(rest.only(|way| way == Way::Here))).await)
        }
        _ => on,
    };
    let told = |way: &Way| match way {
        Way::Here => here,
        Way::On => on,
        Way::Closed => Outcome::Failed,
    };
    ways.iter().map(told).collect()
}

async fn append(intake: &Intake, letter: Arc<Letter>) -> Result<(), NotCommitted> {
    let Intake { event_log, attachments, append_timeout, .. } = intake;
    let Letter { mail, found } = &*letter;
    let (message, content) = (found.octets.clone(), content_of(&mail.recipients));
    let (queue_id, size, recipients) = (mail.queue_id, mail.message.len(), mail.recipients.len());
    // To the millisecond, as the event's own time.
    let now = Timestamp::now();
    let received = now.round(Unit::Millisecond).unwrap_or(now);
    let parsed = async {
        let append = intake.parsing.run(size, move || append_of(&letter.mail, &letter.found, received)).await?;
        let keeping = keeping::keep(attachments.as_ref(), append, message, content);
        timeout(*append_timeout, keeping).await.map_or_else(|late| Ok(Err(late)), |kept| kept.map(Ok))
    };
    let (append, mut kept) = match parsed.await {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(_)) => {
            warn!(%queue_id, size, timeout = ?append_timeout, "attachments not kept in time, the sender tries again later");
            return Err(NotCommitted::For(Outcome::Failed));
        }
        Err(err) => {
            warn!(%queue_id, size, error = %err, "message not parsed");
            return Err(NotCommitted::For(Outcome::Failed));
        }
    };
    // Whether the log has the events is known only when it says so.
    kept.iter_mut().for_each(Pending::leave);
    match timeout(*append_timeout, event_log.append(append)).await {
        Ok(Ok(appended)) => {
            if let Some(kept) = kept {
                kept.settle(&appended).await;
            }
            let repeated = appended.iter().filter(|appended| appended.repeated).count();
            // At the default level: who was told a queue ID asks the operator for it.
            info!(%queue_id, size, recipients, repeated, "message committed");
            Ok(())
        }
        Ok(Err(err)) => {
            warn!(%queue_id, size, error = %err, "message not committed, its sender tries again later");
            if matches!(err, AppendError::NoSpace(_) | AppendError::OutboxFull) {
                kept.into_iter().for_each(Pending::discard);
            }
            Err(match err {
                AppendError::OutboxFull => NotCommitted::OutboxFull,
                AppendError::NoSpace(_) => NotCommitted::For(Outcome::NoSpace),
                AppendError::Closed => NotCommitted::For(Outcome::ShuttingDown),
                _ => NotCommitted::For(Outcome::Failed),
            })
        }
        Err(_) => {
            warn!(%queue_id, size, timeout = ?append_timeout, "message not committed in time, its sender tries again later");
            Err(NotCommitted::For(Outcome::Failed))
        }
    }
}

/// How much of a message is summarised for all of these. The Message-ID is needed even where no account wants anything of
/// the message in its events.
fn content_of(recipients: &[Recipient]) -> Content {
    recipients.iter().map(|recipient| recipient.destination.content).fold(Content::Envelope, Content::max)
}

/// One event for each mailbox that the message is for.
fn append_of(mail: &Mail, found: &Found, received: Timestamp) -> Append {
    let Found { octets: message, authentication, suspicious, forwards } = found;
    let Mail { origin, recipients, .. } = mail;
    let mailboxes = mailboxes(recipients);
    let mut summary = summarise(message, content_of(recipients));
    summary.received = Some(received);
    summary.size = Some(message.len() as u64);
    summary.authentication.clone_from(authentication);
    for secret in recipients.iter().filter_map(|recipient| recipient.destination.secret.as_ref()) {
        let shown = [&mut summary.to, &mut summary.cc].into_iter().flatten();
        // Many programs write the address as the name, too.
        shown.for_each(|shown| {
            secret.redact(&mut shown.address);
            shown.name.iter_mut().for_each(|name| secret.redact(name));
        });
    }
    let digest = summary.message_id.is_some().then(|| digest(&SHA256, message));

    let mut append = Append::new();
    for (at, recipient, to) in mailboxes {
        let mut draft = Draft::in_mailbox(EventKind::MessageNew, *origin, &to.account, &to.mailbox);
        draft.topics.extend(to.topics);
        draft.message = summary.clone().trimmed_to(to.content);
        if let Some(message) = draft.message.as_mut().filter(|_| suspicious.get(at) == Some(&true)) {
            message.authentication.get_or_insert_default().suspicious = true;
            message.priority = Priority::Low;
        }
        draft.envelope = Some(mail.envelope_for(recipient));
        let key = digest.as_ref().map(|digest| {
            DedupKey::of(&[b"smtp", to.account.as_str().as_bytes(), to.mailbox.as_bytes(), digest.as_ref()])
        });
        append.push(draft, key);
    }
    forward::send_on(&mut append, mail, message, forwards, digest.as_ref().map(AsRef::as_ref), received);
    append
}

/// The mailboxes of all recipients, each once and with its first recipient and the place of that: two addresses of one
/// mailbox are still one message in it, on the topics of both.
fn mailboxes(recipients: &[Recipient]) -> Vec<(usize, &Recipient, Destination)> {
    let mut mailboxes: Vec<(usize, &Recipient, Destination)> = Vec::new();
    for (at, recipient) in recipients.iter().enumerate() {
        let to = &recipient.destination;
        let is_same = |known: &Destination| known.account == to.account && known.mailbox == to.mailbox;
        let Some((.., known)) = mailboxes.iter_mut().find(|(.., known)| is_same(known)) else {
            mailboxes.push((at, recipient, to.clone()));
            continue;
        };
        for topic in &to.topics {
            if !known.topics.contains(topic) {
                known.topics.push(topic.clone());
            }
        }
    }
    mailboxes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{AccountName, Event, TopicMatcher};
    use crate::event_log::{EventLog, EventLogConfig, Selection};
    use crate::registry::ForwardTo;
    use crate::source::intake::{Peer, Routing};

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn recipient(name: &str, content: Content) -> Recipient {
        Recipient {
            path: path(&format!("{name}@example.org")),
            destination: Destination::new(AccountName::parse(name).unwrap(), "INBOX", content),
        }
    }

    fn mail(recipients: Vec<Recipient>) -> Mail {
        Mail {
            origin: Origin::Lmtp,
            queue_id: QueueId::new(),
            client: Client::at(None, Peer::Loopback),
            examine: Examine::Nothing,
            from: Some(path("ada@example.org")),
            recipients,
            message: Message::from(b"Message-ID: <a@b>\r\nSubject: s\r\n\r\nbody\r\n".to_vec()),
        }
    }

    /// How many events of each account there are.
    async fn events(log: &EventLog) -> Vec<String> {
        let events = log.read_newest(&Selection::unrestricted([TopicMatcher::all()]), 9).await.unwrap();
        events.iter().map(|event| event.topics[0].as_str().to_owned()).collect()
    }

    #[tokio::test]
    async fn who_cannot_have_it_sent_on_now_holds_up_nobody_else_who_has_an_answer_of_their_own() {
        use Outcome::{Committed, Failed, NoSpace};
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let without = Intake::new(Routing::default(), log.clone(), Duration::from_secs(5));
        let full = without.clone().with_forwarding(&toml::from_str("host = 'x'\nqueue_max = 1").unwrap(), "mx");
        let to = |name: &str, forward: &[&str]| {
            let mut recipient = recipient(name, Content::Preview);
            let to: Vec<String> = forward.iter().map(|to| (*to).to_owned()).collect();
            recipient.destination.forward = (!to.is_empty()).then(|| Arc::new(ForwardTo { to }));
            recipient
        };
        let both = || mail(vec![to("alice", &["x@x.example", "y@x.example"]), to("bob", &[])]);
        assert_eq!(full.take(both()).await, NoSpace, "SMTP has one answer for all");
        assert!(events(&log).await.is_empty());
        assert_eq!(full.take_each(both()).await, [NoSpace, Committed]);
        assert_eq!(events(&log).await, ["mail/bob/INBOX"]);
        assert_eq!(without.take(both()).await, Failed);
        assert_eq!(without.take_each(both()).await, [Failed, Committed], "it is known already");
        assert_eq!(
            full.take_each(mail(vec![to("alice", &["x@x.example"])])).await,
            [Committed],
            "there is room for one"
        );
        assert_eq!(events(&log).await, ["mail/bob/INBOX", "mail/alice/INBOX"]);
    }

    /// Two recipients of one message whose accounts allow different things.
    #[tokio::test]
    async fn what_the_envelope_says_is_content_too() {
        let mail = mail(vec![recipient("none", Content::None), recipient("some", Content::Envelope)]);
        let found = Found {
            octets: mail.message.whole().await.unwrap().into_bytes(),
            authentication: Some(Authentication::default()),
            suspicious: vec![true, true],
            forwards: Vec::new(),
        };
        let append = append_of(&mail, &found, Timestamp::UNIX_EPOCH);
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        log.append(append).await.unwrap();
        let events = log.read_newest(&Selection::unrestricted([TopicMatcher::all()]), 2).await.unwrap();
        let drafts = events.iter().map(|event| serde_json::from_slice::<Event>(&event.json).unwrap().draft);
        let kept: Vec<_> = drafts
            .map(|draft| {
                let envelope = draft.envelope.unwrap();
                assert_eq!(envelope.queue_id, mail.queue_id.to_string(), "it names nobody");
                (draft.message.is_some(), envelope.mail_from.is_some(), envelope.rcpt_to.is_some())
            })
            .collect();
        assert_eq!(kept, [(false, false, false), (true, true, true)]);
        let message =
            events.iter().find_map(|event| serde_json::from_slice::<Event>(&event.json).unwrap().draft.message);
        let (authentication, priority) = message.map(|message| (message.authentication, message.priority)).unwrap();
        assert!(authentication.unwrap().suspicious && priority == Priority::Low, "it is marked");
    }
}
