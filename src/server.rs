//! All parts together: opens what the configuration names, runs it, and ends it in order.
//!
//! Sources stop first, so that nothing new comes; then the streams say goodbye; the event log closes last.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::middleware;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api};
use crate::auth::{KeyError, SigningKey};
use crate::event_log::{EventLog, EventLogConfig, OpenError};
use crate::http::{self, Gate, HttpConfig};
use crate::hub::{Hub, HubConfig};
use crate::registry::{Account, Registry};
use crate::transport::{self, StreamConfig, Transports};
use crate::web;

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
}

/// What the server is made of.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// Where the event log and the key are.
    pub data_dir: PathBuf,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[hub]`.
    pub hub: HubConfig,
    /// `[stream]`.
    pub stream: StreamConfig,
    /// `[event_log]`.
    pub event_log: EventLogConfig,
    /// `[[account]]`.
    pub accounts: Vec<Account>,
    /// How long open requests and sessions may take to end.
    pub grace: Duration,
}

/// A server whose ports are open.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    http: TcpListener,
    event_log: EventLog,
    registry: Registry,
    hub: Hub,
    gate: Gate,
}

impl Server {
    /// Opens the event log and the ports.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn open(config: ServerConfig) -> Result<Self, StartError> {
        let event_log = EventLog::open(&config.data_dir, &config.event_log)?;
        let key = Arc::new(SigningKey::load_or_create(&config.data_dir)?);
        let http = listen(config.http.listen, "HTTP", "http").await?;
        let registry = Registry::new(&config.accounts);
        let hub = Hub::new(event_log.clone(), config.hub.clone());
        let gate = Gate::new(key, &config.http.allowed_origins);
        Ok(Self { config, http, event_log, registry, hub, gate })
    }

    /// Where HTTP is served; the port was chosen by the system if 0 was asked for.
    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr().unwrap_or(self.config.http.listen)
    }

    /// The address of the page, with a token that is good for an hour behind `#`.
    pub fn sign_in_link(&self) -> String {
        let token = self.gate.sign(&api::sign_in_claims(Timestamp::now()));
        format!("{}/#token={token}", self.page_url())
    }

    /// The address of the page.
    pub fn page_url(&self) -> String {
        match &self.config.http.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", self.http_address()),
        }
    }

    /// Runs until `stop` is cancelled, then ends everything within the grace period.
    pub async fn run(self, stop: CancellationToken) {
        let grace = self.config.grace;
        let streams = CancellationToken::new();
        let upgraded = TaskTracker::new();
        let router = self.router(&streams, &upgraded);
        let mut parts = JoinSet::new();
        let (hub, tail, hub_stop) = (self.hub.clone(), self.event_log.tail(), CancellationToken::new());
        {
            let hub_stop = hub_stop.clone();
            parts.spawn(async move { hub.run(tail, hub_stop).await });
        }
        let serving = {
            let (streams, http) = (streams.clone(), self.config.http.clone());
            async move { http::serve(self.http, router, &http, &upgraded, grace, streams).await }
        };
        let stopping = async {
            stop.cancelled().await;
            streams.cancel();
        };
        tokio::join!(serving, stopping);
        self.event_log.close().await;
        hub_stop.cancel();
        while parts.join_next().await.is_some() {}
    }

    fn router(&self, streams: &CancellationToken, upgraded: &TaskTracker) -> axum::Router {
        let transports = Transports {
            hub: self.hub.clone(),
            event_log: self.event_log.clone(),
            gate: self.gate.clone(),
            config: self.config.stream.clone(),
            stop: streams.clone(),
            upgraded: upgraded.clone(),
        };
        let api = Api {
            registry: self.registry.clone(),
            event_log: self.event_log.clone(),
            hub: self.hub.clone(),
            gate: self.gate.clone(),
            secure_cookie: self.page_url().starts_with("https://"),
        };
        transport::router(transports)
            .merge(api::router(api))
            .merge(web::router())
            .layer(middleware::from_fn_with_state(self.gate.clone(), http::cors))
    }
}

async fn listen(address: SocketAddr, protocol: &'static str, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { protocol, flag, address, source })
}

/// The path of the file that holds the event log in a data folder, for `check`.
pub fn event_log_file(data_dir: &Path) -> PathBuf {
    data_dir.join(EventLog::FILE)
}
