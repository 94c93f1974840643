//! Tries an endpoint once and says what it found: for `postrider check`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::access::Ways;
use super::config::ImapConfig;
use super::connection::{Connection, Patience};
use super::error::ImapError;
use super::link::examine;
use super::login::{LoggedIn, log_in};
use super::mailboxes::{Directory, Selection};
use super::offers::Offers;
use super::protocol::{Condition, Response};
use super::provider::Quirks;
use super::refusal::{During, ServerText};
use crate::event::AccountName;
use crate::registry::{CertificatePin, Credentials, ImapEndpoint};

/// Mailboxes that are opened to see whether they can be: a pattern may bring thousands.
const OPENED_MAX: usize = 20;
/// For a goodbye.
const LOGOUT: Duration = Duration::from_secs(2);

/// What there is at an endpoint.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProbeReport {
    /// The address that answered; the proxy's, where there is one.
    pub address: Option<SocketAddr>,
    /// `TLS 1.3`; nothing without protection.
    pub protection: Option<String>,
    /// The pin of the server's key, where there is TLS.
    pub pin: Option<CertificatePin>,
    /// How it was logged in, `SCRAM-SHA-256`; nothing where the server let us in by itself.
    pub method: Option<&'static str>,
    /// How long it took to connect and log in, with a new token where one was needed.
    pub login_took: Duration,
    /// How long the token lasts that was used.
    pub token_lasts: Option<Duration>,
    /// What the server calls itself (RFC 2971): names in lower case, and their values.
    pub server_id: Vec<(String, String)>,
    /// The provider that the host belongs to, if it is a known one.
    pub provider: Option<String>,
    /// What is particular about it.
    pub quirks: Quirks,
    /// What the server offers after the login, in upper case.
    pub capabilities: Vec<String>,
    /// Whether new mail is known at once; else it is asked for every `imap.poll_interval`.
    pub idle: bool,
    /// How long the server took to take IDLE, or why it did not; nothing where it is not offered or nothing was opened.
    pub idle_accepted: Option<Result<Duration, String>>,
    /// Whether one connection hears of all mailboxes (NOTIFY).
    pub notify: bool,
    /// The mailboxes that can be opened, decoded.
    pub mailboxes: Vec<String>,
    /// Mailboxes that `mailboxes` asks for.
    pub chosen: Vec<String>,
    /// The first of those, with its number of messages, or why it cannot be watched.
    pub watched: Vec<(String, Result<u32, ImapError>)>,
}

/// Connects, logs in, lists the mailboxes, opens the wanted ones read-only, and tries IDLE; for an endpoint that says
/// itself where its password comes from.
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
    let access = Ways::new(config, credentials).access(account.clone(), &endpoint.host);
    let quirks = access.quirks().clone();
    let began = Instant::now();
    let logged_in = log_in(endpoint, config, &access).await?;
    let login_took = began.elapsed();
    let LoggedIn { mut connection, capabilities, peer, protection, pin, server_id, expires_at, method } = logged_in;
    let directory = list(&mut connection, config).await?;
    let selection = Selection::new(&endpoint.mailboxes, &endpoint.mailboxes_excluded);
    let chosen: Vec<String> = selection.choose(&directory).into_iter().map(|(name, _)| name.to_owned()).collect();
    let watched = open(&mut connection, &chosen, config).await?;
    let offers = Offers::of(&capabilities);
    let idle = offers.idle && !quirks.no_idle;
    let is_open = watched.last().is_some_and(|(_, opened)| opened.is_ok());
    let idle_accepted = if idle && is_open { Some(idle_once(&mut connection, config).await?) } else { None };
    connection.logout(config.done_timeout.min(LOGOUT)).await;
    Ok(ProbeReport {
        address: peer,
        protection,
        pin,
        method,
        login_took,
        token_lasts: expires_at.map(|time| time.saturating_duration_since(Instant::now())),
        server_id,
        provider: access.provider(endpoint).map(str::to_owned),
        idle: idle && !matches!(idle_accepted, Some(Err(_))),
        idle_accepted,
        notify: offers.notify && config.notify && quirks.notify != Some(false),
        quirks,
        capabilities: capabilities.0,
        mailboxes: directory.entries.into_keys().collect(),
        chosen,
        watched,
    })
}

async fn list(connection: &mut Connection, config: &ImapConfig) -> Result<Directory, ImapError> {
    let mut directory = Directory::default();
    let patience = Patience { what: "LIST", silence: config.answer_timeout, during: During::Other };
    let listing = connection.run("LIST \"\" \"*\"", patience, |response| {
        if let Response::Listed(listed) = response {
            directory.hear_listed(&listed);
        }
    });
    listing.await?;
    Ok(directory)
}

/// Opens the mailboxes one after the other; the last one stays open.
async fn open(
    connection: &mut Connection,
    chosen: &[String],
    config: &ImapConfig,
) -> Result<Vec<(String, Result<u32, ImapError>)>, ImapError> {
    let mut watched = Vec::new();
    for mailbox in chosen.iter().take(OPENED_MAX) {
        let opened = match examine(connection, mailbox, "", 1, config.open_timeout).await {
            Ok(examined) => Ok(examined.mirror.exists()),
            Err(err @ ImapError::Mailbox { .. }) => Err(err),
            Err(err) => return Err(err),
        };
        watched.push((mailbox.clone(), opened));
    }
    Ok(watched)
}

/// Begins IDLE and ends it; how long the server took to agree.
async fn idle_once(connection: &mut Connection, config: &ImapConfig) -> Result<Result<Duration, String>, ImapError> {
    let patience = Patience { what: "IDLE", silence: config.login_timeout, during: During::Other };
    let began = Instant::now();
    let tag = connection.send("IDLE", patience.silence).await?;
    loop {
        match connection.read(patience).await {
            Ok(Response::Continue(_)) => {
                let took = began.elapsed();
                connection.queue_done(tag, config.done_timeout);
                return Ok(Ok(took));
            }
            Ok(Response::Tagged(answered, reply)) if answered == tag => {
                return Ok(Err(ServerText::of(&reply).to_string()));
            }
            Ok(Response::Status(reply)) if reply.condition == Condition::Bye => {
                return Ok(Err(ServerText::of(&reply).to_string()));
            }
            Ok(_) => {}
            Err(err @ ImapError::Timeout(..)) => return Ok(Err(err.to_string())),
            Err(err) => return Err(err),
        }
    }
}
