//! What a JMAP server says of itself, mailboxes and messages (RFC 8620 §2, RFC 8621), as far as it is used. Pure.
//!
//! Everything that may be missing or null is optional, and properties that are not known are passed over.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The session resource (RFC 8620 §2).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionResource {
    pub api_url: String,
    #[serde(default)]
    pub event_source_url: Option<String>,
    #[serde(default)]
    pub primary_accounts: BTreeMap<String, String>,
    #[serde(default)]
    pub capabilities: Capabilities,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Capabilities {
    #[serde(default, rename = "urn:ietf:params:jmap:core")]
    pub core: Option<CoreCapability>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CoreCapability {
    pub max_objects_in_get: Option<usize>,
}

/// A change of state, as the event stream tells it (RFC 8620 §7.1).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StateChange {
    #[serde(default)]
    pub changed: BTreeMap<String, BTreeMap<String, String>>,
}

/// The answer to `Foo/changes` (RFC 8620 §5.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changes {
    pub new_state: String,
    #[serde(default, rename = "hasMoreChanges")]
    pub has_more: bool,
    #[serde(default)]
    pub created: Vec<String>,
    #[serde(default)]
    pub updated: Vec<String>,
    #[serde(default)]
    pub destroyed: Vec<String>,
}

/// The answer to `Foo/get` (RFC 8620 §5.1).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Got<T> {
    pub state: String,
    pub list: Vec<T>,
}

/// The answer to `Email/query` (RFC 8620 §5.5).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Queried {
    pub ids: Vec<String>,
}

/// A mailbox (RFC 8621 §2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Mailbox {
    pub id: String,
    pub name: String,
    pub parent_id: Option<String>,
    pub role: Option<String>,
    pub total_emails: Option<u32>,
    pub unread_emails: Option<u32>,
}

/// A message (RFC 8621 §4). Which of its properties are there depends on what was asked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Email {
    pub id: String,
    pub thread_id: Option<String>,
    pub mailbox_ids: BTreeMap<String, bool>,
    pub keywords: BTreeMap<String, bool>,
    pub size: Option<u64>,
    pub received_at: Option<String>,
    pub message_id: Option<Vec<String>>,
    pub in_reply_to: Option<Vec<String>>,
    pub references: Option<Vec<String>>,
    pub from: Option<Vec<EmailAddress>>,
    pub to: Option<Vec<EmailAddress>>,
    pub cc: Option<Vec<EmailAddress>>,
    pub reply_to: Option<Vec<EmailAddress>>,
    pub subject: Option<String>,
    pub sent_at: Option<String>,
    pub preview: Option<String>,
    pub attachments: Option<Vec<BodyPart>>,
    pub text_body: Option<Vec<BodyPart>>,
    pub body_values: BTreeMap<String, BodyValue>,
    #[serde(rename = "header:List-Id")]
    pub list_id: Option<String>,
    #[serde(rename = "header:Auto-Submitted")]
    pub auto_submitted: Option<String>,
    #[serde(rename = "header:Importance")]
    pub importance: Option<String>,
    #[serde(rename = "header:X-Priority")]
    pub x_priority: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct EmailAddress {
    pub name: Option<String>,
    pub email: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BodyPart {
    pub part_id: Option<String>,
    pub name: Option<String>,
    pub r#type: Option<String>,
    pub size: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct BodyValue {
    pub value: String,
}

impl Email {
    /// The mailboxes that it is in, by their IDs.
    pub(super) fn mailboxes(&self) -> impl Iterator<Item = &str> {
        self.mailbox_ids.iter().filter(|(_, is_in)| **is_in).map(|(id, _)| id.as_str())
    }

    /// The keywords that are set.
    pub(super) fn keywords(&self) -> impl Iterator<Item = &str> {
        self.keywords.iter().filter(|(_, is_set)| **is_set).map(|(keyword, _)| keyword.as_str())
    }
}
