//! What a route of Mailgun posts with `forward("https://…/api/mail/mailgun/mime")`: the message in `body-mime`, or, to a
//! path that does not end so, its parts. `timestamp` and `token` are signed with the account's webhook signing key.

use aws_lc_rs::hmac;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::Receiver;
use super::form::{FORM_FACTOR, Form};
use super::rebuilt::{File, Parsed};
use super::receiver::{Shared, Taken};
use super::refusal::{Refusal, Sender, off};
use super::replay::Ticket;
use crate::http::Problem;
use axum::http::StatusCode;

pub(super) async fn receive(State(receiver): State<Receiver>, request: Request) -> Response {
    let shared = receiver.shared();
    shared.answer(Sender::Mailgun, take(shared, request).await)
}

async fn take(shared: &Shared, request: Request) -> Result<Taken, Refusal> {
    let Some(key) = &shared.secrets.mailgun else {
        return Err(Refusal::Unproven(off("Mailgun", "mailgun_signing_key_file")));
    };
    let headers: HeaderMap = request.headers().clone();
    let bytes_max = shared.limits.message_bytes_max.saturating_mul(FORM_FACTOR);
    let mut body = shared.memory_unproven.read(request, bytes_max, 2).await?;
    let form = Form::read(&headers, body.bytes.clone()).await.map_err(Refusal::Permanent)?;
    let ticket = verify(shared, key.expose_secret().as_bytes(), &form, Timestamp::now())?;
    let recipients: Vec<String> = form.text("recipient").unwrap_or_default().split(',').map(trimmed).collect();
    let sender = form.text("sender").unwrap_or_default();
    let message = match form.field("body-mime") {
        Some(mime) => mime.content.clone(),
        None => shared.rebuild(parsed(&form), &mut body)?,
    };
    let taken = shared.take_posted(sender.trim(), &recipients, message).await?;
    ticket.keep();
    Ok(taken)
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// Whether Mailgun made this, now, and for the first time.
fn verify(shared: &Shared, key: &[u8], form: &Form, now: Timestamp) -> Result<Ticket, Refusal> {
    let [time, token, signature] = ["timestamp", "token", "signature"].map(|name| form.text(name).unwrap_or_default());
    let signed = format!("{time}{token}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hex(&signature).unwrap_or_default();
    if token.is_empty() || hmac::verify(&key, signed.as_bytes(), &tag).is_err() {
        let detail = "the signature is not Mailgun's; is `mail_over_http.mailgun_signing_key_file` the account's HTTP \
                      webhook signing key?";
        return Err(Refusal::Unproven(Problem::new(StatusCode::UNAUTHORIZED, "signature-invalid", detail)));
    }
    shared.replays.enter(signed.as_bytes(), &time, now).map_err(Refusal::from)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    // 32 octets of SHA-256, and nothing that is longer.
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2).map(std::str::from_utf8);
    pairs.map(|pair| u8::from_str_radix(pair.ok()?, 16).ok()).collect()
}

/// The parts of a message that was taken apart.
fn parsed(form: &Form) -> Parsed {
    let header = form.text("message-headers").unwrap_or_default();
    let files = form.fields.iter().filter(|field| field.name.starts_with("attachment-") && field.filename.is_some());
    Parsed {
        header: serde_json::from_str(&header).unwrap_or_default(),
        usual: vec![("From", form.text("from")), ("To", form.text("recipient")), ("Subject", form.text("subject"))],
        text: form.text("body-plain"),
        html: form.text("body-html"),
        files: files.map(File::of_field).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_64_hexadecimal_digits() {
        assert_eq!(hex(&"0fA0".repeat(16)), Some([0x0f, 0xa0].repeat(16)));
        for wrong in ["", "0f", &"0f".repeat(33), &"+f".repeat(32), &"0g".repeat(32), &"ü".repeat(32)] {
            assert!(hex(wrong).is_none_or(|octets| octets.len() == 32), "{wrong}");
        }
        assert_eq!(hex(&"0g".repeat(32)), None);
    }
}
