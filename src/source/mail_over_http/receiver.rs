//! What all ways of mail over HTTP share: the envelope's way to accounts, and the message's way to the intake.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tracing::debug;

use super::config::Secrets;
use super::rebuilt::Parsed;
use super::refusal::{Refusal, Sender};
use super::replay::Replays;
use crate::event::{Origin, Topic};
use crate::http::{BodyMemory, Gate, HeldBody, Problem};
use crate::metrics::{Metrics, Results};
use crate::source::intake::{Client, Examine, Intake, Mail, Message, NoRoute, Outcome, Path, Peer, QueueId, Recipient};

/// Seconds after which a sender may try again what could not be stored.
const RETRY_AFTER: u32 = 30;
/// How often what a message is made of is in memory beside the form that it came in: as parts, encoded (by a third
/// longer), and in the message.
const REBUILT_COPIES: usize = 4;

/// Bounds of what is taken.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest message, in octets.
    pub message_bytes_max: usize,
    /// Recipients of one message.
    pub recipients_max: usize,
    /// Memory for all of them together, in octets; as much again for those whose sender is not known before they are read.
    pub memory_bytes_max: usize,
    /// How far the time in a signature may be from now.
    pub signature_age_max: Duration,
}

/// Takes mail over HTTP. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
}

/// What requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) limits: Limits,
    /// For bodies whose sender is known before they are read.
    pub(super) memory: BodyMemory,
    /// For bodies with the proof in them: anybody can fill it, and keeps out nobody else.
    pub(super) memory_unproven: BodyMemory,
    pub(super) secrets: Secrets,
    pub(super) replays: Replays,
    intake: Intake,
    /// By what became of them.
    requests: Results,
}

impl Receiver {
    /// A receiver that hands mail to `intake`, and whose numbers `metrics` tells.
    pub fn new(gate: Gate, secrets: Secrets, limits: Limits, intake: Intake, metrics: &Metrics) -> Self {
        let requests = Results::default();
        metrics.register_results("mail_over_http", "Requests that brought mail, by what became of them", &requests);
        let [memory, memory_unproven] = [limits.memory_bytes_max; 2].map(BodyMemory::new);
        let replays = Replays::new(limits.signature_age_max);
        Self { shared: Arc::new(Shared { gate, limits, memory, memory_unproven, secrets, replays, intake, requests }) }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// A message that was stored.
#[derive(Debug)]
pub(super) struct Taken {
    queue_id: QueueId,
    recipients: Vec<Value>,
}

/// A recipient and what was wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    address: String,
    reason: &'static str,
}

impl Refused {
    pub(super) fn json(&self) -> Value {
        json!({ "recipient": self.address, "reason": self.reason })
    }
}

impl Shared {
    /// Counts and answers.
    pub(super) fn answer(&self, sender: Sender, result: Result<Taken, Refusal>) -> Response {
        match result {
            Ok(Taken { queue_id, recipients }) => {
                self.requests.count("stored");
                let body = json!({ "queue_id": queue_id.to_string(), "recipients": recipients });
                // Postmark takes nothing but 200 for a success.
                let status = if sender == Sender::Program { StatusCode::CREATED } else { StatusCode::OK };
                (status, Json(body)).into_response()
            }
            Err(refusal) => {
                self.requests.count(refusal.name());
                debug!(?sender, ?refusal, "mail over HTTP not taken");
                sender.told(refusal)
            }
        }
    }

    /// Where these recipients' mail goes, each with what SMTP would have said of it. Local domains are for programs of
    /// this machine, and for who has a token; a provider speaks for anybody who wrote to it.
    pub(super) fn route(&self, addresses: &[String], peer: Peer) -> (Vec<Recipient>, Vec<Refused>) {
        let routing = self.intake.routing();
        let (mut recipients, mut refused) = (Vec::new(), Vec::new());
        for address in addresses {
            let Some(path) = Path::parse(address) else {
                refused.push(Refused { address: address.clone(), reason: "not an address" });
                continue;
            };
            match routing.route(&path, peer) {
                Ok(destination) => recipients.push(Recipient::new(path, destination)),
                Err(NoRoute::UnknownRecipient) => {
                    refused.push(Refused { address: address.clone(), reason: "no such recipient here" });
                }
                Err(NoRoute::ForeignDomain) => {
                    refused.push(Refused { address: address.clone(), reason: "not a domain of ours" });
                }
            }
        }
        (recipients, refused)
    }

    /// What a provider posted, for those of its recipients who are here.
    pub(super) async fn take_posted(
        &self,
        sender: &str,
        recipients: &[String],
        message: Bytes,
    ) -> Result<Taken, Refusal> {
        let (known, refused) = self.route(recipients, Peer::Remote);
        if known.is_empty() {
            return Err(Refusal::Permanent(no_recipients(&refused)));
        }
        self.check_size(message.len())?;
        // What is no address is no reason to lose the message.
        self.take(Path::parse(sender), known, Peer::Remote, None, message).await
    }

    /// The message that a provider has taken apart into what is in `body`; its memory counts with that of the body.
    pub(super) fn rebuild(&self, parsed: Parsed, body: &mut HeldBody) -> Result<Bytes, Refusal> {
        let len = parsed.len();
        self.check_size(len)?;
        body.count(len.saturating_mul(REBUILT_COPIES))?;
        Ok(parsed.into_message().into())
    }

    fn check_size(&self, len: usize) -> Result<(), Refusal> {
        if len <= self.limits.message_bytes_max {
            return Ok(());
        }
        let detail = format!("the message has more than {} bytes", self.limits.message_bytes_max);
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "message-too-large", detail);
        Err(Refusal::Permanent(problem))
    }

    /// Stores a message.
    pub(super) async fn take(
        &self,
        from: Option<Path>,
        recipients: Vec<Recipient>,
        peer: Peer,
        user: Option<String>,
        message: Bytes,
    ) -> Result<Taken, Refusal> {
        let queue_id = QueueId::new();
        let told = recipients.iter().map(told).collect();
        let client = Client { user, ..Client::at(None, peer) };
        let message = Message::from(message);
        // What servers are believed is said of those that are reached by LMTP: here anybody could write in their name.
        let examine = Examine::Nothing;
        let mail = Mail { origin: Origin::Http, queue_id, client, examine, from, recipients, message };
        match self.intake.take(mail).await {
            Outcome::Committed => Ok(Taken { queue_id, recipients: told }),
            Outcome::NoSpace => {
                let detail = "no space is left for the event log; try again later";
                let problem = Problem::new(StatusCode::INSUFFICIENT_STORAGE, "no-space", detail);
                Err(Refusal::Temporary(problem.with_retry_after(RETRY_AFTER)))
            }
            Outcome::Failed => {
                let detail = "the message could not be stored, see postrider's log; try again later";
                Err(Refusal::Temporary(Problem::unavailable("event-log", detail, RETRY_AFTER)))
            }
            Outcome::ShuttingDown => {
                let detail = "postrider is shutting down; try again later";
                Err(Refusal::Temporary(Problem::unavailable("shutting-down", detail, RETRY_AFTER)))
            }
            Outcome::Loop => {
                let detail = "the message has been through too many servers: it goes round in circles";
                Err(Refusal::Permanent(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "mail-loop", detail)))
            }
            Outcome::Refused(refusal) if refusal.is_temporary() => {
                Err(Refusal::Temporary(Problem::unavailable("sender-not-checked", refusal.text(), RETRY_AFTER)))
            }
            Outcome::Refused(refusal) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Err(Refusal::Permanent(Problem::new(status, "sender-refused", refusal.text())))
            }
        }
    }
}

/// Nobody of those whom a message is for is here.
pub(super) fn no_recipients(refused: &[Refused]) -> Problem {
    let all = refused.iter().map(Refused::json).collect();
    let detail = "mail is not taken for these recipients; `recipients` says why for each, and nothing was stored";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "recipient-refused", detail)
        .with_member("recipients", Value::Array(all))
}

/// A recipient as the answer has it.
fn told(recipient: &Recipient) -> Value {
    let to = &recipient.destination;
    let topic = Topic::mailbox(&to.account, &to.mailbox);
    let (account, topic) = (to.account.as_str(), topic.as_str());
    json!({ "recipient": recipient.path.as_str(), "account": account, "mailbox": to.mailbox, "topic": topic })
}
