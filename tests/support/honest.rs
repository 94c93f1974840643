//! Honest senders of mail: each message is sent until it is accepted, under the same Message-ID, and what the server
//! said is written down, to be compared with its log.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mail_client::{MailClient, Reply, Target};

/// One message for one or more recipients.
#[derive(Debug, Clone)]
pub struct Mail {
    /// With its angle brackets.
    pub message_id: String,
    pub recipients: Vec<String>,
    /// Lines of 80 octets that follow the header.
    pub lines: usize,
}

/// What became of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// 250 to the dot, for all recipients.
    Taken { queue_id: String, times: Times },
    /// 4xx. The session may go on, unless it is 421.
    Later(Reply),
    /// 5xx.
    Refused(Reply),
    /// The connection ended before there was a reply.
    Cut,
}

/// How long a message took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From MAIL to the reply to the dot.
    pub whole: Duration,
    /// From the text with its dot to the reply.
    pub dot: Duration,
}

/// What all senders were told. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    taken: BTreeMap<String, Receipt>,
    /// Messages that were sent and never accepted, with how many recipients.
    given_up: BTreeMap<String, usize>,
    /// 5xx replies: an honest sender hears none.
    refused: Vec<String>,
    /// Attempts that were put off, and those that were cut off.
    later: usize,
    cut: usize,
}

/// What the 250 promises.
#[derive(Debug)]
struct Receipt {
    queue_id: String,
    recipients: usize,
    /// An earlier attempt had no answer, and may be the one that is in the log.
    tried_before: bool,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub taken: usize,
    pub later: usize,
    pub cut: usize,
}

/// A session that has greeted.
pub async fn greet(target: &Target) -> io::Result<Result<MailClient, Reply>> {
    let mut client = MailClient::connect(target).await?;
    let hello = if client.is_lmtp() { "LHLO client.example.org" } else { "EHLO client.example.org" };
    let greeting = client.reply().await?;
    if !greeting.is_positive() {
        return Ok(Err(greeting));
    }
    let welcome = client.ask(hello).await?;
    Ok(if welcome.is_positive() { Ok(client) } else { Err(welcome) })
}

/// Sends a message over a session that is between two of them.
pub async fn attempt(client: &mut MailClient, mail: &Mail) -> Attempt {
    match try_attempt(client, mail).await {
        Ok(attempt) => attempt,
        Err(_) => Attempt::Cut,
    }
}

async fn try_attempt(client: &mut MailClient, mail: &Mail) -> io::Result<Attempt> {
    let begun = Instant::now();
    let rcpt = mail.recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>"));
    let commands = ["MAIL FROM:<sender@example.org>".to_owned()].into_iter().chain(rcpt).chain(["DATA".to_owned()]);
    for command in commands {
        let reply = client.ask(&command).await?;
        if !reply.is_positive() {
            return Ok(negative(reply));
        }
    }
    let dot = Instant::now();
    client.say(mail.text()).await?;
    let first = client.reply().await?;
    let times = Times { whole: begun.elapsed(), dot: dot.elapsed() };
    let mut bad = Some(first.clone()).filter(|reply| !reply.is_positive());
    let more = if client.is_lmtp() && first.code != 421 { mail.recipients.len() - 1 } else { 0 };
    for _ in 0..more {
        let reply = client.reply().await?;
        if reply.is_positive() {
            assert_eq!(reply.queue_id(), first.queue_id(), "one message has one name");
        } else {
            bad = Some(reply);
        }
    }
    Ok(match bad {
        Some(reply) => negative(reply),
        None => Attempt::Taken { queue_id: first.queue_id().expect("a queue ID").to_owned(), times },
    })
}

fn negative(reply: Reply) -> Attempt {
    if reply.is_permanent() { Attempt::Refused(reply) } else { Attempt::Later(reply) }
}

impl Mail {
    fn text(&self) -> String {
        let id = &self.message_id;
        let header = format!("From: sender@example.org\r\nMessage-ID: {id}\r\nSubject: {id}\r\n\r\n");
        header + &format!("{}\r\n", "x".repeat(78)).repeat(self.lines) + ".\r\n"
    }
}

impl Ledger {
    /// Writes down an attempt; `tried_before` says whether an earlier one was cut off or put off at the dot.
    pub fn note(&self, mail: &Mail, attempt: &Attempt, tried_before: bool) {
        let mut told = self.lock();
        match attempt {
            Attempt::Taken { queue_id, .. } => {
                let recipients = mail.recipients.len();
                let receipt = Receipt { queue_id: queue_id.clone(), recipients, tried_before };
                told.given_up.remove(&mail.message_id);
                assert!(
                    told.taken.insert(mail.message_id.clone(), receipt).is_none(),
                    "a sender that has its 250 is done"
                );
                return;
            }
            Attempt::Later(_) => told.later += 1,
            Attempt::Refused(reply) => told.refused.push(format!("{}: {}", mail.message_id, reply.text)),
            Attempt::Cut => told.cut += 1,
        }
        told.given_up.insert(mail.message_id.clone(), mail.recipients.len());
    }

    pub fn counts(&self) -> Counts {
        let told = self.lock();
        Counts { taken: told.taken.len(), later: told.later, cut: told.cut }
    }

    /// Fails unless each 250 is in the log once for each recipient, under its queue ID; nothing is there more often,
    /// nothing that nobody sent, and nobody heard 5xx. Events without a Message-ID are not an honest sender's.
    pub fn check(&self, log: &[Value]) {
        let mut events: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for event in log {
            if let Some(id) = event["message"]["message_id"].as_str() {
                let told = (event["topics"][0].as_str().expect("a topic"), event["envelope"]["queue_id"].as_str());
                events.entry(id).or_default().push((told.0, told.1.expect("a queue ID")));
            }
        }
        let told = self.lock();
        assert_eq!(told.refused, [""; 0], "a temporary trouble is no 5xx");
        for (id, receipt) in &told.taken {
            let found = events.remove(id.as_str()).unwrap_or_default();
            assert_eq!(found.len(), receipt.recipients, "{id} had its 250 ({receipt:?}); in the log is {found:?}");
            assert!(found.iter().all(|(topic, _)| found.iter().filter(|(other, _)| topic == other).count() == 1));
            let queue_id = found[0].1;
            assert!(found.iter().all(|(_, other)| *other == queue_id), "{id}: {found:?}");
            assert!(receipt.tried_before || receipt.queue_id == queue_id, "{id}: {receipt:?}, but {found:?}");
        }
        for (id, found) in events {
            let recipients = told.given_up.get(id).unwrap_or_else(|| panic!("nobody sent {id}"));
            assert_eq!(found.len(), *recipients, "{id} is there whole, and once: {found:?}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no panic")
    }
}

/// Sends a mail now and then until a moment, each over a connection of its own and until it is taken; how long each took
/// from the connection on, with what came in between.
pub async fn send_regularly(
    target: Target,
    sender: usize,
    ledger: Ledger,
    pause: Duration,
    until: tokio::time::Instant,
) -> Vec<Times> {
    let mut all = Vec::new();
    let start = tokio::time::Instant::now() + pause.mul_f64(rand::random());
    let mut ticks = tokio::time::interval_at(start, pause);
    for number in 0.. {
        ticks.tick().await;
        if tokio::time::Instant::now() >= until {
            break;
        }
        let message_id = format!("<{sender}.{number}.{}@honest.example>", std::process::id());
        let mail = Mail { message_id, recipients: vec![format!("honest+{sender}@example.org")], lines: 50 };
        let (begun, mut tried_before) = (Instant::now(), false);
        loop {
            let attempt = match greet(&target).await {
                Ok(Ok(mut client)) => attempt(&mut client, &mail).await,
                Ok(Err(reply)) => negative(reply),
                Err(_) => Attempt::Cut,
            };
            ledger.note(&mail, &attempt, tried_before);
            tried_before = true;
            if let Attempt::Taken { times, .. } = attempt {
                all.push(Times { whole: begun.elapsed(), ..times });
                break;
            }
        }
    }
    all
}
