//! From an endpoint to a connection that is logged in.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::access::{Access, Proof};
use super::config::ImapConfig;
use super::connection::{Connection, Patience, bye};
use super::error::ImapError;
use super::protocol::command::Command;
use super::protocol::{Capabilities, Code, Condition, Reply, Response};
use super::refusal::{During, ServerText, classify};
use super::sasl::{Exchange, Identity, Mechanism, Message, Method, SaslError, Secret};
use super::socket::{Socket, connect};
use crate::registry::{CertificatePin, ImapEndpoint, ImapSecurity};

/// How we call ourselves (RFC 2971).
const ID: &str = concat!("ID (\"name\" \"postrider\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\")");
/// Pairs of the server's own ID that are kept (RFC 2971 §3.3), and the characters of each.
const ID_PAIRS_MAX: usize = 30;
const ID_CHARS_MAX: usize = 200;

/// A connection that is logged in, and what was learnt on the way.
pub(super) struct LoggedIn {
    pub connection: Connection,
    pub capabilities: Capabilities,
    pub peer: Option<SocketAddr>,
    /// `TLS 1.3`, or nothing.
    pub protection: Option<String>,
    /// The pin of the server's key, where there is TLS.
    pub pin: Option<CertificatePin>,
    /// What the server calls itself (RFC 2971): names in lower case, and their values. Empty where it does not say.
    pub server_id: Vec<(String, String)>,
    /// When the server will end the session because the token that opened it is over.
    pub expires_at: Option<Instant>,
    /// How it was logged in, for people; nothing where the server let us in by itself.
    pub method: Option<&'static str>,
}

/// Connects and logs in. A token that is refused is fetched anew and tried once more.
///
/// # Errors
/// Whatever went wrong, with the advice for it.
pub(super) async fn log_in(
    endpoint: &ImapEndpoint,
    config: &ImapConfig,
    access: &Access,
) -> Result<LoggedIn, ImapError> {
    // Before anything is sent: connections that never log in look like an attack to the server.
    let proof = access.proof(endpoint).await?;
    match log_in_with(endpoint, config, access, &proof).await {
        Err(refused @ ImapError::Login { .. }) if matches!(proof.secret, Secret::Token(_)) => {
            access.forget(&proof).await;
            let renewed = access.proof(endpoint).await?;
            if renewed.secret.is(&proof.secret) {
                return Err(refused);
            }
            log_in_with(endpoint, config, access, &renewed).await
        }
        outcome => outcome,
    }
}

async fn log_in_with(
    endpoint: &ImapEndpoint,
    config: &ImapConfig,
    access: &Access,
    proof: &Proof,
) -> Result<LoggedIn, ImapError> {
    // Each step has its own limit; a server that drips untagged lines keeps within those for ever.
    let limit = config.connect_timeout.saturating_mul(2).saturating_add(config.login_timeout.saturating_mul(4));
    let attempt = timeout(limit, attempt(endpoint, config, access, proof)).await;
    attempt.map_err(|_| ImapError::Timeout("logging in", limit))?
}

async fn attempt(
    endpoint: &ImapEndpoint,
    config: &ImapConfig,
    access: &Access,
    proof: &Proof,
) -> Result<LoggedIn, ImapError> {
    let quirks = access.quirks();
    let Way { mut connection, greeting, peer, protection, pin } = Way::open(endpoint, config, access).await?;
    let offered = match greeting.as_ref().and_then(capabilities_in) {
        Some(offered) => offered,
        None => ask(&mut connection, config).await?,
    };
    if quirks.id_before_login {
        identify(&mut connection, config).await?;
    }
    let preauthenticated = greeting.as_ref().is_some_and(|greeting| greeting.condition == Condition::PreAuth);
    let (method, capabilities) = if preauthenticated {
        (None, offered)
    } else {
        let login = Login { endpoint, proof, config, offered: &offered, may_ir: !quirks.no_sasl_ir };
        let (method, told) = login.run(&mut connection).await?;
        let capabilities = match told {
            Some(capabilities) => capabilities,
            // What a server offers changes with the login (RFC 9051 §6.2.2).
            None => ask(&mut connection, config).await?,
        };
        (Some(method), capabilities)
    };
    let server_id = if capabilities.has("ID") || quirks.id_before_login {
        identify(&mut connection, config).await?
    } else {
        Vec::new()
    };
    let expires_at = proof.expires_at;
    Ok(LoggedIn { connection, capabilities, peer, protection, pin, server_id, expires_at, method })
}

/// A connection that is as protected as it will be.
struct Way {
    connection: Connection,
    /// Absent after STARTTLS: what the server said before is void (RFC 9051 §6.2.1).
    greeting: Option<Reply>,
    peer: Option<SocketAddr>,
    protection: Option<String>,
    pin: Option<CertificatePin>,
}

impl Way {
    async fn open(endpoint: &ImapEndpoint, config: &ImapConfig, access: &Access) -> Result<Self, ImapError> {
        let tls = access.tls();
        let stream = connect(endpoint, config.connect_timeout).await?;
        let socket = match endpoint.security {
            ImapSecurity::Tls => tls.wrap(stream, endpoint, config.connect_timeout).await?,
            ImapSecurity::Starttls | ImapSecurity::None => Socket::Plain(stream),
        };
        let (peer, protection, pin) = (socket.peer(), socket.protection(), socket.pin());
        let mut connection = Connection::new(socket);
        let greeting = greeting(&mut connection, config).await?;
        if endpoint.security != ImapSecurity::Starttls {
            return Ok(Self { connection, greeting: Some(greeting), peer, protection, pin });
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
        let (protection, pin) = (socket.protection(), socket.pin());
        Ok(Self { connection: Connection::new(socket), greeting: None, peer, protection, pin })
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

/// Says who we are, and returns what the server says of itself. What it says changes nothing, and a refusal neither.
async fn identify(connection: &mut Connection, config: &ImapConfig) -> Result<Vec<(String, String)>, ImapError> {
    let mut heard = Vec::new();
    let hear = |response| {
        if let Response::Id(pairs) = response {
            heard = pairs;
        }
    };
    match connection.run(ID, patience("ID", config), hear).await {
        Ok(_) | Err(ImapError::Refused { .. }) => {}
        Err(err) => return Err(err),
    }
    let short = |text: String| text.chars().filter(|c| !c.is_control()).take(ID_CHARS_MAX).collect::<String>();
    Ok(heard.into_iter().take(ID_PAIRS_MAX).map(|(name, value)| (short(name), short(value))).collect())
}

/// One login, from what the server offers to its answer.
struct Login<'a> {
    endpoint: &'a ImapEndpoint,
    proof: &'a Proof,
    config: &'a ImapConfig,
    offered: &'a Capabilities,
    /// Whether SASL-IR can be believed.
    may_ir: bool,
}

/// How it was done, and what the server then offers, if it said so unasked.
type Done = (&'static str, Option<Capabilities>);

impl Login<'_> {
    async fn run(&self, connection: &mut Connection) -> Result<Done, ImapError> {
        let username = self.endpoint.username.as_str();
        let (Secret::Password(secret) | Secret::Token(secret)) = &self.proof.secret;
        let secret = secret.expose_secret();
        if [username, secret].iter().any(|text| text.contains(['\r', '\n', '\0', '\u{1}'])) {
            return Err(ImapError::Unsendable);
        }
        let chosen = Method::choose(self.offered, username, &self.proof.secret, self.endpoint.mechanism);
        let none = || ImapError::NoLoginMethod(self.endpoint.host.clone(), self.offered.0.join(" "));
        let method = chosen.ok_or_else(none)?;
        let mut heard = None;
        let reply = match method {
            Method::LoginCommand => {
                let command = Command::new("LOGIN").for_server(self.offered).string(username).string(secret);
                let hear = |response| keep_capabilities(response, &mut heard);
                let answer = connection.run(command, patience("LOGIN", self.config), hear).await;
                answer.map_err(|err| match err {
                    ImapError::Refused { refusal, text, .. } => ImapError::Login { method: "LOGIN", refusal, text },
                    other => other,
                })?
            }
            Method::Sasl(mechanism) => {
                let identity = Identity { username, host: &self.endpoint.host, port: self.endpoint.port() };
                let exchange = Exchange::new(mechanism, identity, secret, nonce()?)?;
                self.exchange(connection, mechanism, exchange, &mut heard).await?
            }
        };
        Ok((method.name(), capabilities_in(&reply).or(heard)))
    }

    /// AUTHENTICATE (RFC 9051 §6.2.2), until the server's answer.
    async fn exchange(
        &self,
        connection: &mut Connection,
        mechanism: Mechanism,
        mut exchange: Exchange,
        heard: &mut Option<Capabilities>,
    ) -> Result<Reply, ImapError> {
        let patience = patience("AUTHENTICATE", self.config);
        let mut unsaid = exchange.initial();
        // RFC 4959; a part of IMAP4rev2.
        let at_once = self.may_ir && (self.offered.has("SASL-IR") || self.offered.has("IMAP4REV2"));
        let command = match unsaid.take_if(|_| at_once) {
            Some(message) => {
                // An empty one would be `=`; none is.
                Zeroizing::new(format!("AUTHENTICATE {} {}", mechanism.name(), encoded(&message).as_str()))
            }
            None => Zeroizing::new(format!("AUTHENTICATE {}", mechanism.name())),
        };
        let tag = connection.send(&command, patience.silence).await?;
        loop {
            match connection.read(patience).await? {
                Response::Tagged(answered, reply) if answered == tag => {
                    if reply.condition != Condition::Ok {
                        let (refusal, text) = (classify(&reply, During::Login), ServerText::of(&reply));
                        return Err(ImapError::Login { method: mechanism.name(), refusal, text });
                    }
                    exchange.accepted()?;
                    return Ok(reply);
                }
                Response::Continue(challenge) => {
                    let message = match unsaid.take() {
                        // Whatever it says: it was not asked anything yet.
                        Some(message) => message,
                        None => answer(&mut exchange, &challenge).await?,
                    };
                    connection.send_line(&encoded(&message), patience.silence).await?;
                }
                Response::Status(reply) if reply.condition == Condition::Bye => return Err(bye(&reply)),
                response => keep_capabilities(response, heard),
            }
        }
    }
}

/// Answers a challenge, on a thread of its own where it is much work.
async fn answer(exchange: &mut Exchange, challenge: &str) -> Result<Message, SaslError> {
    let challenge = BASE64.decode(challenge.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if !exchange.is_costly() {
        return exchange.answer(challenge.as_deref());
    }
    let mut working = std::mem::replace(exchange, Exchange::Login(Vec::new()));
    let worked = tokio::task::spawn_blocking(move || {
        let answer = working.answer(challenge.as_deref());
        (working, answer)
    });
    // It fails by a panic, or because the runtime is ending.
    let (working, answer) = worked.await.map_err(|_| SaslError::Abandoned)?;
    *exchange = working;
    answer
}

fn encoded(message: &Message) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(message.as_bytes()))
}

fn nonce() -> Result<String, SaslError> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SaslError::Abandoned)?;
    Ok(BASE64.encode(bytes))
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
