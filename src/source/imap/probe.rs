//! Tries an endpoint once and says what it found: for `postrider check`.

use std::net::SocketAddr;

use super::config::ImapConfig;
use super::connection::Patience;
use super::error::ImapError;
use super::link::examine;
use super::login::{LoggedIn, log_in};
use super::mailbox_name;
use super::protocol::Response;
use super::refusal::During;
use super::socket::TlsSettings;
use crate::registry::ImapEndpoint;

/// What there is at an endpoint.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The address that answered.
    pub address: Option<SocketAddr>,
    /// `TLS 1.3`; nothing without protection.
    pub protection: Option<String>,
    /// What the server offers after the login, in upper case.
    pub capabilities: Vec<String>,
    /// Whether new mail is known at once; else it is asked for every `imap.poll_interval`.
    pub idle: bool,
    /// The mailboxes that can be opened, decoded.
    pub mailboxes: Vec<String>,
    /// Each configured mailbox, with its number of messages, or why it cannot be watched.
    pub watched: Vec<(String, Result<u32, ImapError>)>,
}

/// Connects, logs in, lists the mailboxes, and opens the configured ones read-only.
///
/// # Errors
/// When it does not get so far as to list the mailboxes; see [`ImapError`], and [`ImapError::reason`] for people.
pub async fn probe(endpoint: &ImapEndpoint, config: &ImapConfig) -> Result<ProbeReport, ImapError> {
    let LoggedIn { mut connection, capabilities, peer, protection, .. } =
        log_in(endpoint, config, &TlsSettings::default()).await?;
    let patience = Patience { what: "LIST", silence: config.answer_timeout, during: During::Other };
    let mut mailboxes = Vec::new();
    connection
        .run("LIST \"\" \"*\"", patience, |response| match response {
            Response::Listed(listed) if listed.is_selectable() => {
                mailboxes.push(mailbox_name::decode(&listed.raw_name));
            }
            _ => {}
        })
        .await?;
    mailboxes.sort();
    let mut watched = Vec::new();
    for mailbox in &endpoint.mailboxes {
        let examined = match examine(&mut connection, mailbox, "", 1, config.open_timeout).await {
            Ok(examined) => Ok(examined.mirror.exists()),
            Err(err @ ImapError::Mailbox { .. }) => Err(err),
            Err(err) => return Err(err),
        };
        watched.push((mailbox.clone(), examined));
    }
    connection.logout(config.done_timeout.min(std::time::Duration::from_secs(2))).await;
    Ok(ProbeReport {
        address: peer,
        protection,
        idle: capabilities.has("IDLE"),
        capabilities: capabilities.0,
        mailboxes,
        watched,
    })
}
