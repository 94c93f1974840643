//! What is asked of the server, and how its answers are taken apart (RFC 8620 §3). Pure.
//!
//! One request has to do for what is usual: each round trip is time in which nobody knows of the message. So changes
//! and the objects that changed are asked for together, by back-references (§3.7).

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::JmapError;
use crate::event::Content;

const CORE: &str = "urn:ietf:params:jmap:core";
pub(super) const MAIL: &str = "urn:ietf:params:jmap:mail";

/// Changes that are asked for together with the objects; past that, only their IDs come at first.
pub(super) const CHANGES_MAX: usize = 100;
/// Changes in one further answer of IDs alone.
const MORE_CHANGES_MAX: usize = 1000;
/// Octets of text that are asked for with `content = "text"`.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// What tells of a message that is known whether anything of it changed.
const PLACE: [&str; 4] = ["id", "threadId", "mailboxIds", "keywords"];

/// Method calls of one request, each with its name as its ID.
#[derive(Debug)]
pub(super) struct Request {
    account: String,
    calls: Vec<Value>,
}

impl Request {
    pub(super) fn new(account: &str) -> Self {
        Self { account: account.to_owned(), calls: Vec::new() }
    }

    fn call(mut self, method: &str, id: &str, mut arguments: Value) -> Self {
        if let Some(arguments) = arguments.as_object_mut() {
            arguments.insert("accountId".to_owned(), json!(self.account));
        }
        self.calls.push(json!([method, arguments, id]));
        self
    }

    /// All mailboxes.
    pub(super) fn mailboxes(self) -> Self {
        self.call("Mailbox/get", "mailboxes", json!({ "ids": null, "properties": MAILBOX }))
    }

    /// Where messages stand now, without any of them.
    pub(super) fn email_state(self) -> Self {
        self.call("Email/get", "state", json!({ "ids": [], "properties": ["id"] }))
    }

    /// The newest messages, that were received since `after` if that is given; their IDs alone.
    pub(super) fn newest(self, max: usize, after: Option<&str>) -> Self {
        let sort = json!([{ "property": "receivedAt", "isAscending": false }]);
        let mut arguments = json!({ "sort": sort, "limit": max });
        if let (Some(after), Some(arguments)) = (after, arguments.as_object_mut()) {
            arguments.insert("filter".to_owned(), json!({ "after": after }));
        }
        self.call("Email/query", "newest", arguments)
    }

    /// Where the messages of [`Self::newest`] are and how they are flagged.
    pub(super) fn their_places(self) -> Self {
        let ids = json!({ "resultOf": "newest", "name": "Email/query", "path": "/ids" });
        self.call("Email/get", "places", json!({ "#ids": ids, "properties": PLACE }))
    }

    /// What changed of the mailboxes, and those that did.
    pub(super) fn mailbox_changes(self, since: &str, max: usize) -> Self {
        let ids = |path| json!({ "resultOf": "mailbox_changes", "name": "Mailbox/changes", "path": path });
        self.call("Mailbox/changes", "mailbox_changes", json!({ "sinceState": since, "maxChanges": max }))
            .call("Mailbox/get", "new_mailboxes", json!({ "#ids": ids("/created"), "properties": MAILBOX }))
            .call("Mailbox/get", "changed_mailboxes", json!({ "#ids": ids("/updated"), "properties": MAILBOX }))
    }

    /// What changed of the messages, and those that did.
    pub(super) fn email_changes(self, since: &str, content: Content, max: usize) -> Self {
        let ids = |path| json!({ "resultOf": "email_changes", "name": "Email/changes", "path": path });
        let mut new = summary_arguments(content);
        if let Some(new) = new.as_object_mut() {
            new.insert("#ids".to_owned(), ids("/created"));
        }
        self.call("Email/changes", "email_changes", json!({ "sinceState": since, "maxChanges": max }))
            .call("Email/get", "new_emails", new)
            .call("Email/get", "changed_emails", json!({ "#ids": ids("/updated"), "properties": PLACE }))
    }

    /// What changed of the messages, as IDs alone.
    pub(super) fn more_email_changes(self, since: &str) -> Self {
        let arguments = json!({ "sinceState": since, "maxChanges": MORE_CHANGES_MAX });
        self.call("Email/changes", "email_changes", arguments)
    }

    /// New messages by their IDs.
    pub(super) fn emails(self, ids: &[String], content: Content) -> Self {
        let mut arguments = summary_arguments(content);
        if let Some(arguments) = arguments.as_object_mut() {
            arguments.insert("ids".to_owned(), json!(ids));
        }
        self.call("Email/get", "new_emails", arguments)
    }

    /// Where messages are and how they are flagged, by their IDs.
    pub(super) fn places(self, ids: &[String]) -> Self {
        self.call("Email/get", "changed_emails", json!({ "ids": ids, "properties": PLACE }))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "using": [CORE, MAIL], "methodCalls": self.calls })
    }
}

const MAILBOX: [&str; 6] = ["id", "name", "parentId", "role", "totalEmails", "unreadEmails"];

/// Only what the account's events may carry is asked for.
fn summary_arguments(content: Content) -> Value {
    let mut properties = PLACE.to_vec();
    properties.push("receivedAt");
    if content > Content::None {
        properties.extend(["size", "messageId", "inReplyTo", "references", "from", "to", "cc", "replyTo", "subject"]);
        properties.extend(["sentAt", "hasAttachment", "attachments"]);
        properties.extend(["header:List-Id", "header:Auto-Submitted", "header:Importance", "header:X-Priority"]);
    }
    if content >= Content::Preview {
        properties.push("preview");
    }
    let mut arguments = json!({ "properties": properties, "bodyProperties": ["partId", "name", "type", "size"] });
    if let (true, Some(arguments)) = (content >= Content::Text, arguments.as_object_mut()) {
        properties.extend(["textBody", "bodyValues"]);
        arguments.insert("properties".to_owned(), json!(properties));
        arguments.insert("fetchTextBodyValues".to_owned(), json!(true));
        arguments.insert("maxBodyValueBytes".to_owned(), json!(TEXT_BYTES_MAX));
    }
    arguments
}

/// The answers to one request.
#[derive(Debug)]
pub(super) struct Answers(Vec<(String, Value, String)>);

impl Answers {
    /// Reads the body of an answer.
    pub(super) fn parse(body: &[u8]) -> Result<Self, JmapError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            method_responses: Vec<(String, Value, String)>,
        }
        let body: Body = serde_json::from_slice(body).map_err(|err| JmapError::NotJmap(err.to_string()))?;
        Ok(Self(body.method_responses))
    }

    /// The answer to the call with this ID.
    ///
    /// # Errors
    /// What the server had against the call, or that there is no such answer.
    pub(super) fn take<T: DeserializeOwned>(&mut self, id: &str) -> Result<T, JmapError> {
        let at = self.0.iter().position(|(_, _, of)| of == id);
        let Some(at) = at else { return Err(JmapError::NotJmap(format!("no answer to `{id}`"))) };
        let (name, arguments, _) = self.0.swap_remove(at);
        if name == "error" {
            let text = |key: &str| arguments.get(key).and_then(Value::as_str).map(str::to_owned);
            return Err(match text("type").unwrap_or_default().as_str() {
                "cannotCalculateChanges" => JmapError::CannotCalculateChanges,
                kind => {
                    JmapError::Method { call: id.to_owned(), error: kind.to_owned(), description: text("description") }
                }
            });
        }
        serde_json::from_value(arguments).map_err(|err| JmapError::NotJmap(format!("in the answer to `{id}`: {err}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::{Changes, Email, Got};
    use super::*;

    #[test]
    fn content_decides_what_is_asked_for() {
        let asked = |content| Request::new("a").email_changes("s", content, 9).to_json().to_string();
        assert!(!asked(Content::None).contains("subject") && asked(Content::Envelope).contains("subject"));
        assert!(!asked(Content::Envelope).contains("preview") && asked(Content::Preview).contains("preview"));
        assert!(!asked(Content::Preview).contains("bodyValues") && asked(Content::Text).contains("bodyValues"));
    }

    #[test]
    fn answers_are_found_by_their_call_and_errors_by_their_type() {
        let body = br#"{"methodResponses":[["error",{"type":"cannotCalculateChanges"},"email_changes"],
            ["Email/get",{"state":"7","list":[{"id":"m","subject":null,"unknown":1}]},"new_emails"],
            ["error",{"type":"serverFail","description":"no disk"},"state"]],"sessionState":"0"}"#;
        let mut answers = Answers::parse(body).unwrap();
        let changes = answers.take::<Changes>("email_changes");
        assert!(matches!(changes, Err(JmapError::CannotCalculateChanges)), "{changes:?}");
        let got: Got<Email> = answers.take("new_emails").unwrap();
        assert_eq!((got.state.as_str(), got.list[0].id.as_str()), ("7", "m"));
        let failed = answers.take::<Got<Email>>("state").unwrap_err().reason();
        assert!(failed.contains("serverFail: no disk"), "{failed}");
        assert!(matches!(answers.take::<Changes>("email_changes"), Err(JmapError::NotJmap(_))));
        assert!(matches!(Answers::parse(b"<html>"), Err(JmapError::NotJmap(_))));
    }
}
