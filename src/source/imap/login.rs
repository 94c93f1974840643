//! From an endpoint to a connection that is logged in.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};

use super::config::ImapConfig;
use super::connection::{Connection, Patience, bye};
use super::error::ImapError;
use super::protocol::command::Command;
use super::protocol::{Capabilities, Code, Condition, Reply, Response};
use super::refusal::During;
use super::socket::{Socket, TlsSettings, connect};
use crate::registry::{ImapEndpoint, ImapSecurity};

/// A connection that is logged in, and what was learnt on the way.
pub(super) struct LoggedIn {
    pub connection: Connection,
    pub capabilities: Capabilities,
    pub peer: Option<SocketAddr>,
    /// `TLS 1.3`, or nothing.
    pub protection: Option<String>,
    /// When the server will end the session, if that is known.
    pub expires_at: Option<tokio::time::Instant>,
}

/// Connects and logs in.
///
/// ID (RFC 2971) is not sent: it is optional.
///
/// # Errors
/// Whatever went wrong, with the advice for it.
pub(super) async fn log_in(
    endpoint: &ImapEndpoint,
    config: &ImapConfig,
    tls: &TlsSettings,
) -> Result<LoggedIn, ImapError> {
    // Before anything is sent: connections that never log in look like an attack to the server.
    let password = endpoint.password().await?;
    let mut way = Way::open(endpoint, config, tls).await?;
    let offered = match way.greeting.as_ref().and_then(capabilities_in) {
        Some(offered) => offered,
        None => ask(&mut way.connection, config).await?,
    };
    let preauthenticated = way.greeting.as_ref().is_some_and(|greeting| greeting.condition == Condition::PreAuth);
    let capabilities = if preauthenticated {
        offered
    } else {
        match authenticate(&mut way.connection, &offered, endpoint, &password, config).await? {
            Some(capabilities) => capabilities,
            // What a server offers changes with the login (RFC 9051 §6.2.2).
            None => ask(&mut way.connection, config).await?,
        }
    };
    Ok(LoggedIn {
        connection: way.connection,
        capabilities,
        peer: way.peer,
        protection: way.protection,
        expires_at: None,
    })
}

/// A connection that is as protected as it will be.
struct Way {
    connection: Connection,
    /// Absent after STARTTLS: what the server said before is void (RFC 9051 §6.2.1).
    greeting: Option<Reply>,
    peer: Option<SocketAddr>,
    protection: Option<String>,
}

impl Way {
    async fn open(endpoint: &ImapEndpoint, config: &ImapConfig, tls: &TlsSettings) -> Result<Self, ImapError> {
        let stream = connect(endpoint, config.connect_timeout).await?;
        let socket = match endpoint.security {
            ImapSecurity::Tls => tls.wrap(stream, endpoint, config.connect_timeout).await?,
            ImapSecurity::Starttls | ImapSecurity::None => Socket::Plain(stream),
        };
        let (peer, protection) = (socket.peer(), socket.protection());
        let mut connection = Connection::new(socket);
        let greeting = greeting(&mut connection, config).await?;
        if endpoint.security != ImapSecurity::Starttls {
            return Ok(Self { connection, greeting: Some(greeting), peer, protection });
        }
        if greeting.condition == Condition::PreAuth {
            // STARTTLS is not possible any more then: somebody may want just that (RFC 9051 §11.1).
            return Err(ImapError::NoStarttls(endpoint.host.clone()));
        }
        let starttls = connection.run("STARTTLS", patience("STARTTLS", config), drop).await;
        starttls.map_err(|err| match err {
            ImapError::Refused { .. } => ImapError::NoStarttls(endpoint.host.clone()),
            other => other,
        })?;
        let Socket::Plain(stream) = connection.into_socket() else {
            return Err(ImapError::NoStarttls(endpoint.host.clone()));
        };
        let socket = tls.wrap(stream, endpoint, config.connect_timeout).await?;
        let protection = socket.protection();
        Ok(Self { connection: Connection::new(socket), greeting: None, peer, protection })
    }
}

async fn greeting(connection: &mut Connection, config: &ImapConfig) -> Result<Reply, ImapError> {
    match connection.read(patience("connecting (no greeting)", config)).await? {
        Response::Status(reply) => match reply.condition {
            Condition::Ok | Condition::PreAuth => Ok(reply),
            _ => Err(bye(&reply)),
        },
        _ => Err(ImapError::Protocol("the first line is not a greeting; is this an IMAP server?".to_owned())),
    }
}

async fn ask(connection: &mut Connection, config: &ImapConfig) -> Result<Capabilities, ImapError> {
    let mut heard = None;
    let reply = connection
        .run("CAPABILITY", patience("CAPABILITY", config), |response| keep_capabilities(response, &mut heard))
        .await?;
    Ok(heard.or_else(|| capabilities_in(&reply)).unwrap_or_default())
}

/// Logs in, and returns what the server then offers, if it said so unasked.
async fn authenticate(
    connection: &mut Connection,
    offered: &Capabilities,
    endpoint: &ImapEndpoint,
    password: &SecretString,
    config: &ImapConfig,
) -> Result<Option<Capabilities>, ImapError> {
    let (username, password) = (endpoint.username.as_str(), password.expose_secret());
    if [username, password].iter().any(|text| text.contains(['\r', '\n', '\0'])) {
        return Err(ImapError::Unsendable);
    }
    let mut heard = None;
    let hear = |response| keep_capabilities(response, &mut heard);
    // A quoted string of LOGIN is ASCII (RFC 3501 §9); PLAIN is UTF-8 (RFC 4616 §2).
    let answer = if username.is_ascii() && password.is_ascii() && !offered.has("LOGINDISABLED") {
        let command = Command::new("LOGIN").for_server(offered).string(username).string(password);
        connection.run(command, patience("LOGIN", config), hear).await
    } else if offered.has("AUTH=PLAIN") || !offered.has("LOGINDISABLED") {
        // Without the initial response that SASL-IR allows: some servers offer it and then refuse it, and a login is
        // rare.
        let token = SecretString::from(BASE64.encode(format!("\0{username}\0{password}")));
        let patience = patience("AUTHENTICATE", config);
        connection.run_continued("AUTHENTICATE PLAIN", Some(token.expose_secret()), patience, hear).await
    } else {
        return Err(ImapError::NoLoginMethod(endpoint.host.clone(), offered.0.join(" ")));
    };
    let reply = answer.map_err(|err| match err {
        ImapError::Refused { refusal, text, .. } => ImapError::Login { refusal, text },
        other => other,
    })?;
    Ok(capabilities_in(&reply).or(heard))
}

fn keep_capabilities(response: Response, heard: &mut Option<Capabilities>) {
    match response {
        Response::Capabilities(capabilities) => *heard = Some(capabilities),
        Response::Status(reply) => {
            if let Some(capabilities) = capabilities_in(&reply) {
                *heard = Some(capabilities);
            }
        }
        _ => {}
    }
}

fn capabilities_in(reply: &Reply) -> Option<Capabilities> {
    match &reply.code {
        Some(Code::Capability(capabilities)) => Some(capabilities.clone()),
        _ => None,
    }
}

fn patience(what: &'static str, config: &ImapConfig) -> Patience {
    Patience { what, silence: config.login_timeout, during: During::Login }
}
