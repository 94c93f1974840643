//! What Postmark's inbound webhook posts: JSON, with the message in `RawEmail` where "Include raw email content in JSON
//! payload" is on. Postmark proves itself by the user and password of the URL that it was given.

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Receiver;
use super::rebuilt::{File, Parsed};
use super::receiver::{Shared, Taken};
use super::refusal::{Refusal, Sender, off};
use crate::http::{Problem, parse_object};

/// Raw and taken apart, attachments in base64.
const JSON_FACTOR: usize = 4;

/// The parts of the JSON that are of use.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inbound {
    original_recipient: String,
    to_full: Vec<Address>,
    cc_full: Vec<Address>,
    bcc_full: Vec<Address>,
    from: String,
    to: String,
    cc: String,
    reply_to: String,
    subject: String,
    date: String,
    text_body: String,
    html_body: String,
    headers: Vec<Header>,
    attachments: Vec<Attachment>,
    raw_email: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Address {
    email: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Attachment {
    name: String,
    content: String,
    content_type: String,
    #[serde(rename = "ContentID")]
    content_id: String,
}

pub(super) async fn receive(State(receiver): State<Receiver>, request: Request) -> Response {
    let shared = receiver.shared();
    shared.answer(Sender::Postmark, take(shared, request).await)
}

async fn take(shared: &Shared, request: Request) -> Result<Taken, Refusal> {
    let Some(secret) = &shared.secrets.postmark else {
        return Err(Refusal::Unproven(off("Postmark", "postmark_secret_file")));
    };
    if !secret.is_in(request.headers()) {
        let detail = "the user name or the secret is not that of `[mail_over_http]`; give both in the URL: \
                      https://USER:SECRET@HOST/api/mail/postmark";
        return Err(Refusal::Unproven(Problem::credentials_needed(detail)));
    }
    let bytes_max = shared.limits.message_bytes_max.saturating_mul(JSON_FACTOR);
    let mut body = shared.memory.read(request, bytes_max, 2).await?;
    let mut inbound: Inbound = parse_object(&body.bytes).map_err(|err| {
        let detail = format!("the body is not what Postmark's inbound webhook posts: {err}");
        Refusal::Permanent(Problem::bad_request("json-invalid", detail))
    })?;
    let recipients = inbound.recipients();
    let from = sender(&inbound);
    let message = match inbound.raw_email.take() {
        Some(raw) => raw.into_bytes().into(),
        None => shared.rebuild(inbound.into_parsed(), &mut body)?,
    };
    shared.take_posted(&from, &recipients, message).await
}

/// The envelope's sender is in a field that Postmark's server adds.
fn sender(inbound: &Inbound) -> String {
    let path = inbound.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Return-Path"));
    let path = path.map_or(inbound.from.as_str(), |header| header.value.as_str());
    path.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

impl Inbound {
    /// Postmark posts once for each recipient of its own and names it; what is older than that field names all.
    fn recipients(&self) -> Vec<String> {
        if !self.original_recipient.is_empty() {
            return vec![self.original_recipient.clone()];
        }
        let all = [&self.to_full, &self.cc_full, &self.bcc_full].into_iter().flatten();
        all.map(|address| address.email.clone()).collect()
    }

    fn into_parsed(self) -> Parsed {
        let some = |text: String| Some(text);
        Parsed {
            header: self.headers.into_iter().map(|header| (header.name, header.value)).collect(),
            usual: vec![
                ("From", some(self.from)),
                ("To", some(self.to)),
                ("Cc", some(self.cc)),
                ("Reply-To", some(self.reply_to)),
                ("Subject", some(self.subject)),
                ("Date", some(self.date)),
            ],
            text: some(self.text_body),
            html: some(self.html_body),
            files: self.attachments.into_iter().map(File::from).collect(),
        }
    }
}

impl From<Attachment> for File {
    fn from(attachment: Attachment) -> Self {
        let Attachment { name, content, content_type, content_id } = attachment;
        let content_id = Some(content_id.trim_matches(['<', '>']).to_owned()).filter(|id| !id.is_empty());
        // What is no base64 is still an attachment of this name.
        Self { name, content_type, content_id, content: STANDARD.decode(content).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_found() {
        let json = br#"{"From":"a@b","ToFull":[{"Email":"x@y"}],"CcFull":[{"Email":"z@y"}],
                        "Headers":[{"Name":"Return-Path","Value":"<bounce@b>"}]}"#;
        let mut inbound: Inbound = parse_object(json).unwrap();
        assert_eq!((inbound.recipients(), sender(&inbound)), (vec!["x@y".into(), "z@y".into()], "bounce@b".into()));
        inbound.original_recipient = "o@y".to_owned();
        inbound.headers.clear();
        assert_eq!((inbound.recipients(), sender(&inbound)), (vec!["o@y".into()], "a@b".into()));
    }
}
