//! What SendGrid's Inbound Parse posts: the message in `email` where "POST the raw, full MIME message" is on, else its
//! parts; the envelope as JSON in `envelope`. A security policy signs the time and the whole body with ECDSA.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::Encoding;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::Receiver;
use super::form::{FORM_FACTOR, Form};
use super::rebuilt::{File, Parsed};
use super::receiver::{Shared, Taken};
use super::refusal::{Refusal, Sender, off};
use super::replay::Ticket;
use crate::http::Problem;

const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const TIMESTAMP: &str = "x-twilio-email-event-webhook-timestamp";

/// Who sent it to whom.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Envelope {
    to: Vec<String>,
    from: String,
}

pub(super) async fn receive(State(receiver): State<Receiver>, request: Request) -> Response {
    let shared = receiver.shared();
    shared.answer(Sender::Sendgrid, take(shared, request).await)
}

async fn take(shared: &Shared, request: Request) -> Result<Taken, Refusal> {
    let secrets = &shared.secrets;
    if secrets.sendgrid.is_none() && secrets.sendgrid_key.is_none() {
        return Err(Refusal::Unproven(off("SendGrid", "sendgrid_public_key")));
    }
    let headers = request.headers().clone();
    if secrets.sendgrid.as_ref().is_some_and(|secret| !secret.is_in(&headers)) {
        let detail = "the user name or the secret is not that of `[mail_over_http]`; give both in the URL: \
                      https://USER:SECRET@HOST/api/mail/sendgrid";
        return Err(Refusal::Unproven(Problem::credentials_needed(detail)));
    }
    let bytes_max = shared.limits.message_bytes_max.saturating_mul(FORM_FACTOR);
    let memory = if secrets.sendgrid.is_some() { &shared.memory } else { &shared.memory_unproven };
    let mut body = memory.read(request, bytes_max, 2).await?;
    let ticket = match &secrets.sendgrid_key {
        Some(key) => Some(verify(shared, key, &headers, &body.bytes, Timestamp::now())?),
        None => None,
    };
    let form = Form::read(&headers, body.bytes.clone()).await.map_err(Refusal::Permanent)?;
    let envelope = form.field("envelope").map(|field| serde_json::from_slice::<Envelope>(&field.content));
    let Some(Ok(envelope)) = envelope else {
        let detail = "the form has no `envelope`, or it is not JSON; this is for SendGrid's Inbound Parse";
        return Err(Refusal::Permanent(Problem::bad_request("form-invalid", detail)));
    };
    let message = match form.field("email") {
        Some(email) => email.content.clone(),
        None => shared.rebuild(parsed(&form), &mut body)?,
    };
    let taken = shared.take_posted(&envelope.from, &envelope.to, message).await?;
    if let Some(ticket) = ticket {
        ticket.keep();
    }
    Ok(taken)
}

/// Whether SendGrid made this, now, and for the first time.
fn verify(shared: &Shared, key: &[u8], headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Ticket, Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (time, signature) = (text(TIMESTAMP), STANDARD.decode(text(SIGNATURE)).unwrap_or_default());
    let signed = [time.as_bytes(), body].concat();
    if UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&signed, &signature).is_err() {
        let detail = "the signature is not SendGrid's; is `mail_over_http.sendgrid_public_key` that of the security \
                      policy which is attached to the parse setting?";
        return Err(Refusal::Unproven(Problem::new(StatusCode::UNAUTHORIZED, "signature-invalid", detail)));
    }
    // An ECDSA signature can be made into another one that is as good: what was signed is what is remembered.
    shared.replays.enter(&signed, time, now).map_err(Refusal::from)
}

/// The parts of a message that was taken apart. Texts come in the charsets that `charsets` names.
fn parsed(form: &Form) -> Parsed {
    let json = |name: &str| form.field(name).and_then(|field| serde_json::from_slice::<Value>(&field.content).ok());
    let charsets = json("charsets").unwrap_or_default();
    let text = |name: &str| {
        let field = form.field(name)?;
        let charset =
            charsets.get(name).and_then(Value::as_str).and_then(|label| Encoding::for_label(label.as_bytes()));
        let (text, _) = charset.unwrap_or(encoding_rs::UTF_8).decode_without_bom_handling(&field.content);
        Some(text.into_owned())
    };
    let files = form.fields.iter().filter(|field| field.name.starts_with("attachment") && field.filename.is_some());
    Parsed {
        header: header(&text("headers").unwrap_or_default()),
        usual: ["From", "To", "Cc", "Subject"].map(|name| (name, text(&name.to_ascii_lowercase()))).into(),
        text: text("text"),
        html: text("html"),
        files: files.map(File::of_field).collect(),
    }
}

/// The fields of a header, unfolded.
fn header(text: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), fields.last_mut()) {
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim_end().to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_unfolded() {
        let fields = header("Subject: one\r\n two\nReceived: x\nno field\n");
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, [("Subject", "one two"), ("Received", "x")]);
    }
}
