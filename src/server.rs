//! All parts together: opens what the configuration names, runs it, and ends it in order.
//!
//! Sources stop first, so that nothing new comes; then the streams say goodbye; the event log closes last.

mod prepared;
mod sources;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::middleware;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use self::prepared::Prepared;
use self::sources::Sources;
use crate::api::{self, Api};
use crate::attachments::Attachments;
use crate::auth::{IssuerError, KeyError, SigningKey, Verifier};
use crate::config::Config;
use crate::event_log::{EventLog, OpenError};
use crate::http::{self, Gate};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::registry::{Credentials, PasswordError, Registry};
use crate::source::dovecot_push;
use crate::source::forward::Forwarder;
use crate::source::imap::{self, WatcherHandle};
use crate::source::intake::{AddressSecrets, Intake, ResolverError, Routing, RoutingError};
use crate::source::mail_over_http;
use crate::source::smtp::{
    self, BindError, ListenerSettings, Role, ServerTls, SocketAddress, TlsError, UserError, Users,
};
use crate::transport::{self, Presence, Shards, Transports};
use crate::web;

/// Connections that wait to be accepted; the system may allow fewer. When all subscribers come back at once, those that
/// find no room try again after seconds.
const BACKLOG: u32 = 4096;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The event log.
    #[error(transparent)]
    EventLog(#[from] OpenError),
    /// The signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What the tokens of others are verified with.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The secret that Dovecot sends.
    #[error("cannot receive what Dovecot pushes without its secret, see `[dovecot]`")]
    DovecotSecret(#[from] PasswordError),
    /// The attachments that are kept.
    #[error("cannot read the folder of attachments {0}; it must be a folder that postrider may read")]
    Attachments(PathBuf, #[source] std::io::Error),
    /// What a provider proves itself with.
    #[error(transparent)]
    MailOverHttp(#[from] mail_over_http::SecretError),
    /// The mail receiver's certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The password of somebody who may submit mail.
    #[error(transparent)]
    User(#[from] UserError),
    /// Who lists which address.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// Senders are to be verified, and there are no name servers.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// A listener.
    #[error(
        "cannot listen on {address} for {protocol}; is another program using it? Give another with --{flag} ADDR:PORT"
    )]
    Listen {
        /// What was to be spoken.
        protocol: &'static str,
        /// The command line's option for it.
        flag: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A Unix socket.
    #[error("cannot listen on the Unix socket {}; its folder must be there, and postrider may write to it", path.display())]
    UnixSocket {
        /// Where.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A server whose ports are open.
#[derive(Debug)]
pub struct Server {
    config: Config,
    http: Option<TcpListener>,
    http_address: SocketAddr,
    /// Until it runs.
    smtp: Option<Vec<smtp::Listener>>,
    /// Who may submit mail; until it runs.
    users: Option<(Users, Arc<SigningKey>)>,
    /// Of the mail receiver's listeners.
    certificates: Vec<ServerTls>,
    intake: Intake,
    event_log: EventLog,
    registry: Registry,
    watcher: WatcherHandle,
    dovecot_push: Option<dovecot_push::Receiver>,
    mail_over_http: mail_over_http::Receiver,
    attachments: Attachments,
    metrics: Metrics,
    hub: Hub,
    gate: Gate,
    verifier: Arc<Verifier>,
    hub_url: Arc<Url>,
    /// Who is subscribed to what, where that is told.
    presence: Option<Presence>,
}

impl Server {
    /// Reads everything that the configuration names, then opens the event log and the ports.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn open(config: Config, data_dir: &Path) -> Result<Self, StartError> {
        let metrics = Metrics::default();
        let prepared = Prepared::read(&config, data_dir, &metrics).await?;
        let event_log = EventLog::open(data_dir, &config.event_log)?;
        let key = Arc::new(SigningKey::load_or_create(data_dir)?);
        let http = listen(config.http.listen, "HTTP", "http")?;
        let mut listeners = Vec::new();
        for listener in config.smtp.listeners() {
            if let Some(risk) = listener.risk() {
                tracing::warn!(listen = %listener.listen, "{risk}");
            }
            listeners.push(receive_on(&listener).await?);
        }
        let certificates = listeners.iter().filter_map(smtp::Listener::tls).collect();
        let smtp = Some(listeners);
        let users = prepared.users.map(|users| (users, Arc::clone(&key)));
        let mut intake = Intake::new(prepared.routing, event_log.clone(), config.smtp.append_timeout)
            .with_received_max(config.smtp.received_max.get())
            .with_authenticator(prepared.authenticator);
        if let Some(forward) = &config.smtp.forward {
            intake = intake.with_forwarding(forward, &config.smtp.announced_name());
        }
        let credentials = Credentials::new(data_dir, &config.credentials);
        let registry = Registry::new(&config.account).with_credentials(credentials);
        let watcher = WatcherHandle::default();
        imap::register_metrics(&metrics);
        let dovecot_push = prepared.dovecot.map(|secret| {
            let (watcher, event_log) = (watcher.clone(), event_log.clone());
            for account in config.account.iter().filter(|a| a.imap.as_ref().is_some_and(|imap| imap.dovecot_push)) {
                watcher.at_login(&account.name, &dovecot_push::metadata_command(&secret.token(&account.name)));
            }
            dovecot_push::Receiver::new(secret, &config.account, watcher, event_log, &metrics)
        });
        let hub = Hub::new(event_log.clone(), config.hub.clone());
        let http_address = http.local_addr().unwrap_or(config.http.listen);
        let base_url = public_url(&config, http_address);
        let link_key = key.derived("links to attachments");
        let attachments = open_attachments(&config, data_dir, &base_url, link_key, &event_log, &metrics).await?;
        let intake = intake.with_attachments(attachments.clone());
        let hub_url = Arc::new(transport::hub_url(&base_url, http_address));
        let verifier = Arc::new(Verifier::new(key, prepared.issuers, Url::clone(&hub_url)));
        let presence = config.mercure.subscriptions.then(|| Presence::new(event_log.clone()));
        let gate = Gate::new(Arc::clone(&verifier), &config.auth.allowed_origins);
        let limits = mail_over_http::Limits {
            message_bytes_max: config.smtp.message_bytes_max.get(),
            recipients_max: config.smtp.recipients_max.get(),
            memory_bytes_max: config.mail_over_http.memory_bytes_max.get(),
            signature_age_max: config.mail_over_http.signature_age_max,
        };
        let secrets = prepared.mail_over_http;
        let mail_over_http = mail_over_http::Receiver::new(gate.clone(), secrets, limits, intake.clone(), &metrics);
        let http = Some(http);
        Ok(Self {
            config,
            http,
            http_address,
            smtp,
            users,
            certificates,
            intake,
            event_log,
            registry,
            watcher,
            dovecot_push,
            mail_over_http,
            attachments,
            metrics,
            hub,
            gate,
            verifier,
            hub_url,
            presence,
        })
    }

    /// Where HTTP is served; the port was chosen by the system if 0 was asked for.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where SMTP is received, unless it is switched off.
    pub fn smtp_address(&self) -> Option<SocketAddr> {
        let listeners = self.smtp.as_ref().filter(|_| self.config.smtp.enabled)?;
        Some(listeners.first().and_then(smtp::Listener::address).unwrap_or(self.config.smtp.listen))
    }

    /// What else mail is received on: what is spoken there, and where.
    pub fn smtp_listeners(&self) -> impl Iterator<Item = (Role, SocketAddress)> {
        let main = usize::from(self.config.smtp.enabled);
        self.smtp.iter().flatten().skip(main).map(|listener| (listener.role(), listener.place()))
    }

    /// The address of the page, with a token that is good for an hour behind `#`.
    pub fn sign_in_link(&self) -> String {
        let token = self.gate.sign(&api::sign_in_claims(Timestamp::now()));
        format!("{}/#token={token}", self.page_url())
    }

    /// The address of the page.
    pub fn page_url(&self) -> String {
        public_url(&self.config, self.http_address())
    }

    /// Runs until `stop` is cancelled, then ends everything within the grace period. Cancels `stop` itself, and ends,
    /// when the event log is gone: what cannot be stored must not be accepted, and only a new start helps. A
    /// configuration that comes by `reloads` takes effect as far as [`Server::reload`] says; of several that come meanwhile, the newest.
    pub async fn run(mut self, mut reloads: watch::Receiver<Option<Config>>, stop: CancellationToken) {
        // Sources and streams end one after the other: each may use half of the time.
        let grace = self.config.shutdown.grace / 2;
        let (streams, upgraded, hub_stop) = (CancellationToken::new(), TaskTracker::new(), CancellationToken::new());
        let mut hub = JoinSet::new();
        let (dispatcher, tail, dispatch) = (self.hub.clone(), self.event_log.tail(), hub_stop.clone());
        hub.spawn(async move { dispatcher.run(tail, dispatch).await });
        let (config, stall_timeout) = (self.config.stream.clone(), self.config.http.stall_timeout);
        let shards = Shards::new(self.hub.clone(), config, stall_timeout, streams.clone());
        hub.spawn(shards.clone().run(hub_stop.clone()));

        let mut sources =
            Sources::new(self.event_log.clone(), self.registry.clone(), self.watcher.clone(), stop.clone());
        if let Some(listeners) = self.smtp.take() {
            let receiver = smtp::Receiver::new(self.config.smtp.clone(), self.intake.clone(), &self.metrics);
            let receiver = match self.users.take() {
                Some((users, key)) => receiver.with_users(users, Some(key)),
                None => receiver,
            };
            sources.spawn(smtp::serve(listeners, receiver, grace, stop.clone()));
        }
        sources.spawn(self.attachments.clone().expire(stop.clone()));
        sources.spawn(Arc::clone(&self.verifier).run(stop.clone()));
        if let Some(forwarder) = self.forwarder() {
            sources.spawn(forwarder.run(grace, stop.clone()));
        }
        sources.watch(None, &self.config).await;
        let router = self.router(shards, &streams, &upgraded);
        let (http, http_config) = (self.http.take(), self.config.http.clone());
        // Everybody has gone: their going is told before the log is closed.
        let (presence, gone) = (self.presence.clone(), CancellationToken::new());
        let serving = async {
            if let Some(listener) = http {
                http::serve(listener, router, &http_config, &upgraded, grace, streams.clone()).await;
            }
            gone.cancel();
        };
        let telling = async {
            if let Some(presence) = &presence {
                presence.run(gone.clone()).await;
            }
        };
        let working = async {
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    // It ends with the log, or by a panic.
                    Some(_) = hub.join_next() => {
                        tracing::error!("the event log or the hub has failed, stopping; please report this as a bug");
                        stop.cancel();
                    }
                    Ok(()) = reloads.changed() => {
                        let newest = reloads.borrow_and_update().clone();
                        if let Some(config) = newest {
                            self.reload(config, &mut sources).await;
                        }
                    }
                }
            }
            sources.ended().await;
            streams.cancel();
        };
        tokio::join!(serving, working, telling);
        self.event_log.close().await;
        hub_stop.cancel();
        while hub.join_next().await.is_some() {}
    }

    /// What sends mail on, if anything does.
    fn forwarder(&self) -> Option<Forwarder> {
        let smtp = &self.config.smtp;
        let Some(config) = smtp.forward.clone() else {
            let waiting = self.event_log.outbox_totals().recipients;
            if waiting > 0 {
                tracing::warn!(
                    waiting,
                    "mail waits to be forwarded and [smtp.forward] is gone; it goes on when it is back"
                );
            }
            return None;
        };
        Some(Forwarder::new(config, &smtp.announced_name(), self.event_log.clone(), &self.metrics))
    }

    /// Takes over what can be changed while the server runs: the accounts with their mailboxes and addresses, who else
    /// gets mail, `[imap]` and `[jmap]`. Accounts that are watched and stay as they are go on undisturbed, unless it is
    /// the section that changed. Certificates of the mail receiver are looked at. The rest is named and waits for a
    /// restart.
    async fn reload(&mut self, config: Config, sources: &mut Sources) {
        let waiting = needs_restart(&self.config, &config);
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(", "), "changed settings that need a restart");
        }
        self.certificates.iter().for_each(ServerTls::look_soon);
        match routing(&config).await {
            Ok(routing) => {
                // Before anybody is routed to a new account.
                self.intake.replace_sender_policies(&config.account);
                self.intake.replace_routing(routing);
            }
            Err(err) => {
                let error: &dyn std::error::Error = &err;
                tracing::error!(error, "recipients are not reloaded, mail goes where it went before");
            }
        }
        self.registry.replace(&config.account);
        self.attachments.replace(&config.account);
        if let Some(receiver) = &self.dovecot_push {
            receiver.replace(&config.account);
        }
        sources.watch(Some(&self.config), &config).await;
        (self.config.account, self.config.imap, self.config.jmap) = (config.account, config.imap, config.jmap);
        (self.config.smtp.route, self.config.smtp.local_domains) = (config.smtp.route, config.smtp.local_domains);
        tracing::info!(accounts = self.config.account.len(), "configuration reloaded");
    }

    fn router(&self, shards: Shards, streams: &CancellationToken, upgraded: &TaskTracker) -> axum::Router {
        let transports = Transports {
            hub: self.hub.clone(),
            event_log: self.event_log.clone(),
            gate: self.gate.clone(),
            shards,
            config: self.config.stream.clone(),
            mercure: self.config.mercure.clone(),
            hub_url: Arc::clone(&self.hub_url),
            presence: self.presence.clone(),
            stop: streams.clone(),
            upgraded: upgraded.clone(),
        };
        let api = Api {
            attachments: self.attachments.clone(),
            registry: self.registry.clone(),
            event_log: self.event_log.clone(),
            hub: self.hub.clone(),
            metrics: self.metrics.clone(),
            gate: self.gate.clone(),
            secure_cookie: self.page_url().starts_with("https://"),
        };
        transport::router(transports)
            .merge(api::router(api))
            .merge(mail_over_http::router(self.mail_over_http.clone()))
            .merge(web::router())
            .merge(self.dovecot_push.clone().map(dovecot_push::router).unwrap_or_default())
            .layer(middleware::from_fn_with_state(Arc::clone(&self.hub_url), transport::advertise))
            .fallback(http::not_found)
            .method_not_allowed_fallback(http::method_not_allowed)
            .layer(middleware::from_fn_with_state(self.gate.clone(), http::cors))
            .layer(middleware::from_fn(http::host))
            .layer(middleware::from_fn(http::read_past_body))
    }
}

/// Where people reach the server that listens at `address`.
fn public_url(config: &Config, address: SocketAddr) -> String {
    match &config.http.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{address}"),
    }
}

/// Opens the store, and finds out about what was pending.
async fn open_attachments(
    config: &Config,
    data_dir: &Path,
    base_url: &str,
    key: hmac::Key,
    event_log: &EventLog,
    metrics: &Metrics,
) -> Result<Attachments, StartError> {
    let folder = data_dir.join(Attachments::FOLDER);
    let opened = Attachments::open(&folder, &config.attachments, base_url, key, &config.account, metrics);
    let attachments = opened.map_err(|err| StartError::Attachments(folder, err))?;
    if let Err(err) = attachments.recover(event_log).await {
        // They stay pending, and are fetched by their links all the same.
        tracing::warn!(error = %err, "pending attachments not looked up");
    }
    Ok(attachments)
}

/// The settings in which two configurations differ and that are read at the start only.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("data_dir", old.data_dir != new.data_dir),
        ("[http]", old.http != new.http),
        ("[smtp]", old.smtp.at_start() != new.smtp.at_start()),
        ("[dovecot]", old.dovecot != new.dovecot),
        ("[attachments]", old.attachments != new.attachments),
        ("[mail_over_http]", old.mail_over_http != new.mail_over_http),
        ("[hub]", old.hub != new.hub),
        ("[mercure]", old.mercure != new.mercure),
        ("[stream]", old.stream != new.stream),
        ("[event_log]", old.event_log != new.event_log),
        ("[auth]", old.auth != new.auth),
        ("[credentials]", old.credentials != new.credentials),
        ("[shutdown]", old.shutdown != new.shutdown),
        ("log.format", old.log.format != new.log.format),
    ];
    changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
}

/// Where mail goes, with the secrets of addresses as their files have them now.
async fn routing(config: &Config) -> Result<Routing, RoutingError> {
    let (accounts, routes) = (&config.account, &config.smtp.route);
    let secrets = AddressSecrets::read(accounts, routes).await?;
    Routing::with_routes(accounts, routes, config.smtp.local_domains.as_deref(), &secrets)
}

async fn receive_on(listener: &ListenerSettings) -> Result<smtp::Listener, StartError> {
    smtp::Listener::bind(listener).await.map_err(|err| match (err, &listener.listen) {
        (BindError::Socket(source), SocketAddress::Unix(path)) => StartError::UnixSocket { path: path.clone(), source },
        (BindError::Socket(source), &SocketAddress::Tcp(address)) => {
            StartError::Listen { protocol: "SMTP", flag: "smtp", address, source }
        }
        (BindError::Tls(err), _) => err.into(),
    })
}

fn listen(address: SocketAddr, protocol: &'static str, flag: &'static str) -> Result<TcpListener, StartError> {
    bind(address).map_err(|source| StartError::Listen { protocol, flag, address, source })
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whoever connects to a port that is open expects an answer.
    #[tokio::test]
    async fn what_cannot_be_read_is_told_before_a_port_is_open() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("attachments"), "no folder").unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let submission = "[[smtp.listener]]\nrole = 'submission'\nlisten = '127.0.0.1:0'\n";
        let missing = [
            "[dovecot]\nsecret_file = '/no/such'".to_owned(),
            "[mail_over_http]\npostmark_secret_file = '/no/such'".to_owned(),
            "[smtp]\ntls_certificate_file = '/no/such'".to_owned(),
            format!("{submission}[[smtp.user]]\nname = 'a'\npassword_file = '/no/such'"),
            "[[account]]\nname = 'a'\naddress_secret_file = '/no/such'".to_owned(),
            String::new(),
        ];
        for text in missing {
            let mut config: Config = toml::from_str(&text).unwrap();
            config.http.listen = address;
            let refused = Server::open(config, folder.path()).await.unwrap_err();
            assert!(!matches!(refused, StartError::Listen { .. }), "{text}: {refused}");
        }
    }

    /// With a log that is gone nothing more is received or sent: only a new start helps, and whoever starts it must see
    /// the end.
    #[tokio::test]
    async fn a_server_whose_log_is_gone_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.http.listen.set_port(0);
        config.smtp.listen.set_port(0);
        let server = Server::open(config, folder.path()).await.unwrap();
        let event_log = server.event_log.clone();
        let (_reloads, receiver) = watch::channel(None);
        let stop = CancellationToken::new();
        let running = server.run(receiver, stop);
        let gone = async {
            event_log.close().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = timeout(Duration::from_secs(30), running) => ended.expect("the server to end in 30 s"),
            () = gone => {}
        }
    }
}
