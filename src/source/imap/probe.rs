//! Tries an endpoint once and says what it found: for `postrider check`.

use std::net::SocketAddr;

use super::access::Ways;
use super::config::ImapConfig;
use super::connection::Patience;
use super::error::ImapError;
use super::link::examine;
use super::login::{LoggedIn, log_in};
use super::mailbox_name;
use super::protocol::Response;
use super::refusal::During;
use crate::event::AccountName;
use crate::registry::{Credentials, ImapEndpoint};

/// What there is at an endpoint.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The address that answered.
    pub address: Option<SocketAddr>,
    /// `TLS 1.3`; nothing without protection.
    pub protection: Option<String>,
    /// How it was logged in, `SCRAM-SHA-256`; nothing where the server let us in by itself.
    pub method: Option<&'static str>,
    /// What the server calls itself (RFC 2971): names in lower case, and their values.
    pub server_id: Vec<(String, String)>,
    /// What the server offers after the login, in upper case.
    pub capabilities: Vec<String>,
    /// Whether new mail is known at once; else it is asked for every `imap.poll_interval`.
    pub idle: bool,
    /// The mailboxes that can be opened, decoded.
    pub mailboxes: Vec<String>,
    /// Each configured mailbox, with its number of messages, or why it cannot be watched.
    pub watched: Vec<(String, Result<u32, ImapError>)>,
}

/// Connects, logs in, lists the mailboxes, and opens the configured ones read-only; for an endpoint that says itself
/// where its password comes from.
///
/// # Errors
/// When it does not get so far as to list the mailboxes; see [`ImapError`], and [`ImapError::reason`] for people.
pub async fn probe(endpoint: &ImapEndpoint, config: &ImapConfig) -> Result<ProbeReport, ImapError> {
    // Nothing is stored for it, so that the name does not matter.
    let name = AccountName::parse(&endpoint.username).or_else(|_| AccountName::parse("probe"));
    let Ok(name) = name else { return Err(ImapError::Unsendable) };
    probe_account(&name, endpoint, config, None).await
}

/// The same for an account whose password or refresh token may be stored.
///
/// # Errors
/// As [`probe`].
pub async fn probe_account(
    account: &AccountName,
    endpoint: &ImapEndpoint,
    config: &ImapConfig,
    credentials: Option<Credentials>,
) -> Result<ProbeReport, ImapError> {
    let access = Ways::new(config, credentials).access(account.clone());
    let LoggedIn { mut connection, capabilities, peer, protection, server_id, method, .. } =
        log_in(endpoint, config, &access).await?;
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
        method,
        server_id,
        idle: capabilities.has("IDLE"),
        capabilities: capabilities.0,
        mailboxes,
        watched,
    })
}
