//! `POST /api/mail`: a whole message (RFC 5322), with its envelope in the query.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use url::form_urlencoded;

use super::Receiver;
use super::receiver::{Shared, Taken, no_recipients};
use super::refusal::{Refusal, Sender};
use crate::auth::Authority;
use crate::http::{Problem, media_type, unsupported_media_type};
use crate::source::intake::{Path, Peer, Recipient};

/// The envelope, as the query has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Envelope {
    recipients: Vec<String>,
    sender: Option<String>,
}

pub(super) async fn receive(State(receiver): State<Receiver>, request: Request) -> Response {
    let shared = receiver.shared();
    shared.answer(Sender::Program, take(shared, request).await)
}

/// Everything that the head of a request says is checked before its body is read.
async fn take(shared: &Shared, request: Request) -> Result<Taken, Refusal> {
    let authority = shared.gate.writer(request.headers()).await.map_err(Refusal::Unproven)?;
    if authority.is_anonymous() {
        return Err(Refusal::Unproven(Problem::unauthorized()));
    }
    if !["message/rfc822", "message/global"].contains(&media_type(request.headers()).as_str()) {
        return Err(Refusal::Permanent(unsupported_media_type("message/rfc822")));
    }
    let envelope = parse(request.uri().query().unwrap_or_default(), shared.limits.recipients_max);
    let envelope = envelope.map_err(Refusal::Permanent)?;
    let from = sender(envelope.sender.as_deref()).map_err(Refusal::Permanent)?;
    let (recipients, refused) = shared.route(&envelope.recipients, Peer::Loopback);
    may_write(&authority, &recipients).map_err(Refusal::Unproven)?;
    // All or nothing: a program can put its list right, while half a success is easily taken for a whole one.
    if !refused.is_empty() {
        return Err(Refusal::Permanent(no_recipients(&refused)));
    }
    let user = Some(authority.claims().bearer().to_owned());
    let body = shared.memory.read(request, shared.limits.message_bytes_max, 1).await?;
    if body.bytes.is_empty() {
        let detail = "the body is empty; send the message in it, `curl --data-binary @mail.eml`";
        return Err(Refusal::Permanent(Problem::bad_request("message-empty", detail)));
    }
    shared.take(from, recipients, Peer::Loopback, user, body.bytes.clone()).await
}

fn parse(query: &str, recipients_max: usize) -> Result<Envelope, Problem> {
    let mut envelope = Envelope::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "recipient" if envelope.recipients.len() >= recipients_max => {
                let detail = format!("a message has at most {recipients_max} recipients; send it to the others again");
                return Err(Problem::bad_request("too-many-recipients", detail));
            }
            "recipient" => envelope.recipients.push(plus(&value)),
            "sender" if envelope.sender.is_some() => {
                return Err(Problem::bad_request("sender-invalid", "`sender` may be given once"));
            }
            "sender" => envelope.sender = Some(plus(&value)),
            other => {
                let other: String = other.chars().take(100).collect();
                let detail = format!("unknown parameter `{other}`; there are `recipient` and `sender`");
                return Err(Problem::bad_request("parameter-unknown", detail));
            }
        }
    }
    if envelope.recipients.is_empty() {
        let detail = "whom is it for? Add `?recipient=ADDRESS` to the URL, once for each";
        return Err(Problem::bad_request("recipient-missing", detail));
    }
    Ok(envelope)
}

/// A plus that nobody encoded arrives as a space, which no address has outside of quotes.
fn plus(value: &str) -> String {
    if value.contains('"') { value.to_owned() } else { value.replace(' ', "+") }
}

/// The reverse-path; none at all, an empty one and `<>` are the null path.
fn sender(text: Option<&str>) -> Result<Option<Path>, Problem> {
    match text {
        None | Some("" | "<>") => Ok(None),
        Some(text) => Path::parse(text).map(Some).ok_or_else(|| {
            Problem::bad_request("sender-invalid", "`sender` is not an address; leave it out for the null sender")
        }),
    }
}

/// Mail into a mailbox is an event on its topic, and who may publish there may bring it there. Without any right at all
/// nobody learns which addresses there are.
fn may_write(authority: &Authority, recipients: &[Recipient]) -> Result<(), Problem> {
    let forbidden = || {
        let detail = "the token may not write to all of these mailboxes; its `mercure.publish` claim must match each \
                      one's topic, `mail/ACCOUNT/MAILBOX`: `postrider token --publish 'mail/alice/{mailbox}'`";
        Problem::new(StatusCode::FORBIDDEN, "not-allowed", detail)
    };
    if authority.claims().mercure.publish.is_empty() {
        return Err(forbidden());
    }
    let all_allowed = recipients.iter().all(|recipient| authority.may_publish(&recipient.destination.all_topics()));
    if all_allowed { Ok(()) } else { Err(forbidden()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_the_query() {
        let envelope = parse("recipient=a%2Bx@b&sender=c@d&recipient=e+y@f", 2).unwrap();
        assert_eq!(envelope.recipients, ["a+x@b", "e+y@f"]);
        assert_eq!(sender(envelope.sender.as_deref()).unwrap().unwrap().as_str(), "c@d");
        assert!(sender(None).unwrap().is_none() && sender(Some("<>")).unwrap().is_none());
        for (query, word) in [
            ("", "?recipient="),
            ("recipient=a@b&recipient=c@d&recipient=e@f", "at most 2"),
            ("recipient=a@b&sender=&sender=", "once"),
            ("recipent=a@b", "`recipent`"),
        ] {
            assert!(parse(query, 2).unwrap_err().detail().contains(word), "{query}");
        }
        assert!(sender(Some("a@b c")).is_err());
    }
}
