//! Tries an account once and says what it found: for `postrider check`.

use super::client::Client;
use super::config::JmapConfig;
use super::error::JmapError;
use super::mirror::{EmailChanges, MailboxChanges, Mirror};
use super::object::{Got, Mailbox};
use super::request::Request;
use crate::event::Content;
use crate::registry::Account;

/// What there is at an endpoint.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The paths of all mailboxes.
    pub mailboxes: Vec<String>,
    /// Those of the account's `mailboxes` that are not among them.
    pub missing: Vec<String>,
    /// Whether changes are known at once; else they are asked for every `jmap.poll_interval`.
    pub has_event_stream: bool,
}

/// Logs in, lists the mailboxes and opens the event stream; nothing for an account without a JMAP server.
///
/// # Errors
/// See [`JmapError`], and [`JmapError::reason`] for people.
pub async fn probe(account: &Account, config: &JmapConfig) -> Result<Option<ProbeReport>, JmapError> {
    let Some(endpoint) = &account.jmap else { return Ok(None) };
    let client = Client::new(endpoint, config).await?;
    let session = client.session(endpoint, config.ping).await?;
    let has_event_stream = client.events(&session, config.answer_timeout).await?.is_some();
    let request = Request::new(&session.account).mailboxes();
    let all: Got<Mailbox> = client.call(&session, &request).await?.take("mailboxes")?;
    // The mirror knows how mailboxes are called.
    let mut mirror = Mirror::new(account.name.clone(), Content::None, endpoint.mailboxes.clone(), 0);
    mirror.apply(MailboxChanges { now: all.list, ..MailboxChanges::default() }, EmailChanges::default());
    Ok(Some(ProbeReport { mailboxes: mirror.paths(), missing: mirror.missing(), has_event_stream }))
}
