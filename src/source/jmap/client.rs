//! Requests to one JMAP server: the session, method calls, the event stream. Every wait has a deadline, and every
//! answer a length.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Response, StatusCode};
use secrecy::ExposeSecret;
use tokio::time::timeout;
use url::Url;

use super::config::JmapConfig;
use super::error::JmapError;
use super::event_stream::{EventStream, StreamEvent};
use super::object::SessionResource;
use super::request::{Answers, MAIL, Request};
use crate::registry::JmapEndpoint;

/// Longest answer: a hundred messages with 64 KiB of text each.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Objects that are asked for at once where the server does not say; the least that RFC 8620 §2 recommends.
const OBJECTS_IN_GET: usize = 500;

/// A server, and the right to speak to it.
pub(super) struct Client {
    http: reqwest::Client,
    authorization: HeaderValue,
    answer_timeout: Duration,
}

/// Where an account's mail is.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub api_url: Url,
    /// With its variables (RFC 6570) filled in; none where the server has no event stream.
    pub event_source_url: Option<Url>,
    pub account: String,
    pub objects_in_get: usize,
}

impl Client {
    /// Fetches the password, and gets ready to connect.
    pub(super) async fn new(endpoint: &JmapEndpoint, config: &JmapConfig) -> Result<Self, JmapError> {
        let password = endpoint.password().await?;
        let password = password.expose_secret();
        let credentials = match &endpoint.username {
            Some(user) => format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            None => format!("Bearer {password}"),
        };
        let mut authorization = HeaderValue::try_from(credentials).map_err(|_| JmapError::Unsendable)?;
        authorization.set_sensitive(true);
        let url = endpoint.session_url()?;
        let plaintext = url.scheme() == "http";
        // reqwest takes credentials away from redirects to other hosts.
        let mut builder =
            reqwest::Client::builder().connect_timeout(config.connect_timeout).https_only(!plaintext).tcp_nodelay(true);
        if plaintext {
            builder = builder.no_proxy();
        }
        if let Some(path) = &endpoint.ca_file {
            let unusable = |err: &dyn std::fmt::Display| JmapError::CaFile(path.clone(), err.to_string());
            let pem = tokio::fs::read(path).await.map_err(|err| unusable(&err))?;
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(|err| unusable(&err))?);
        }
        let http = builder.build().map_err(|err| JmapError::Network(shown(&url), err))?;
        Ok(Self { http, authorization, answer_timeout: config.answer_timeout })
    }

    /// Asks for the session resource.
    pub(super) async fn session(&self, endpoint: &JmapEndpoint, ping: Duration) -> Result<Session, JmapError> {
        let response = self.answered(&endpoint.session_url()?, self.http.get(endpoint.session_url()?)).await?;
        let url = response.url().clone();
        let body = self.body(response).await?;
        let resource: SessionResource =
            serde_json::from_slice(&body).map_err(|err| JmapError::NotJmap(err.to_string()))?;
        let account = resource.primary_accounts.get(MAIL).cloned().ok_or(JmapError::NoMail(MAIL))?;
        let api_url = server_url(endpoint, &url, "apiUrl", &resource.api_url)?;
        let event_source_url = match resource.event_source_url.as_deref().filter(|url| !url.is_empty()) {
            Some(template) => Some(server_url(endpoint, &url, "eventSourceUrl", &expanded(template, ping))?),
            None => None,
        };
        let core = resource.capabilities.core.unwrap_or_default();
        let objects_in_get = core.max_objects_in_get.unwrap_or(OBJECTS_IN_GET).max(1);
        Ok(Session { api_url, event_source_url, account, objects_in_get })
    }

    /// Calls methods.
    pub(super) async fn call(&self, session: &Session, request: &Request) -> Result<Answers, JmapError> {
        let post = self.http.post(session.api_url.clone()).header(CONTENT_TYPE, "application/json");
        let response = self.answered(&session.api_url, post.body(request.to_json().to_string())).await?;
        Answers::parse(&self.body(response).await?)
    }

    /// Opens the event stream; none where the server has none, whatever it announced: Cyrus without WebSocket support
    /// answers 204.
    pub(super) async fn events(&self, session: &Session, silence_max: Duration) -> Result<Option<Events>, JmapError> {
        let Some(url) = &session.event_source_url else { return Ok(None) };
        let response = self.sent(url, self.http.get(url.clone()).header(ACCEPT, "text/event-stream")).await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_stream = content_type.is_some_and(|value| value.trim_start().starts_with("text/event-stream"));
        match response.status() {
            StatusCode::OK if is_stream => {
                let stream = EventStream::default();
                Ok(Some(Events { response, stream, waiting: Vec::new(), silence_max }))
            }
            StatusCode::OK
            | StatusCode::NO_CONTENT
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(None),
            _ => Err(refusal(url, &response)),
        }
    }

    async fn sent(&self, url: &Url, request: reqwest::RequestBuilder) -> Result<Response, JmapError> {
        let request = request.header(AUTHORIZATION, self.authorization.clone());
        match timeout(self.answer_timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            // Without the URL, which may have a query.
            Ok(Err(err)) => Err(JmapError::Network(shown(url), err.without_url())),
            Err(_) => Err(JmapError::Silent(shown(url), self.answer_timeout)),
        }
    }

    async fn answered(&self, url: &Url, request: reqwest::RequestBuilder) -> Result<Response, JmapError> {
        let response = self.sent(url, request).await?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(refusal(url, &response)) }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, JmapError> {
        let mut body = Vec::new();
        while let Some(piece) = piece(&mut response, self.answer_timeout).await? {
            if body.len().saturating_add(piece.len()) > ANSWER_BYTES_MAX {
                return Err(JmapError::TooLong(ANSWER_BYTES_MAX));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// An open event stream.
pub(super) struct Events {
    response: Response,
    stream: EventStream,
    /// In the order of their coming, the first at the end.
    waiting: Vec<StreamEvent>,
    silence_max: Duration,
}

impl Events {
    /// The next event.
    ///
    /// # Errors
    /// When the stream ended, was silent for too long, or cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<StreamEvent, JmapError> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Ok(event);
            }
            let lost = |err: JmapError| JmapError::StreamLost(err.reason());
            let piece = piece(&mut self.response, self.silence_max).await.map_err(lost)?;
            let Some(piece) = piece else { return Err(JmapError::StreamLost("the server ended it".to_owned())) };
            let too_long = |_| JmapError::StreamLost("a line is longer than is sensible".to_owned());
            self.waiting = self.stream.read(&piece).map_err(too_long)?;
            self.waiting.reverse();
        }
    }
}

async fn piece(response: &mut Response, silence_max: Duration) -> Result<Option<bytes::Bytes>, JmapError> {
    let url = shown(response.url());
    match timeout(silence_max, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(err)) => Err(JmapError::Network(url, err.without_url())),
        Err(_) => Err(JmapError::Silent(url, silence_max)),
    }
}

/// A URL of the server's, which may be relative. The server is trusted to name another host, since only it could send
/// this, but not to take encryption away.
fn server_url(endpoint: &JmapEndpoint, base: &Url, what: &'static str, text: &str) -> Result<Url, JmapError> {
    let url = base.join(text).map_err(|err| JmapError::ServerUrl(what, err.to_string()))?;
    if endpoint.may_send_to(&url) {
        Ok(url)
    } else {
        Err(JmapError::ServerUrl(what, format!("its scheme is {}, without encryption", url.scheme())))
    }
}

fn refusal(url: &Url, response: &Response) -> JmapError {
    let status = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match status {
        401 | 403 => JmapError::Refused(status),
        429 => JmapError::Throttled { status, after: after.map(Duration::from_secs) },
        // Without a time it is a server that is not there yet.
        503 if after.is_some() => JmapError::Throttled { status, after: after.map(Duration::from_secs) },
        _ => JmapError::Status(shown(url), status),
    }
}

/// A URL without what may be private in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

/// Fills in the variables of `eventSourceUrl`, a URI template of level 1 (RFC 8620 §2).
fn expanded(template: &str, ping: Duration) -> String {
    let ping = ping.as_secs().max(1).to_string();
    template.replace("{types}", "Email,Mailbox").replace("{closeafter}", "no").replace("{ping}", &ping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_filled_in() {
        let url = expanded("/es/?types={types}&closeafter={closeafter}&ping={ping}", Duration::from_mins(1));
        assert_eq!(url, "/es/?types=Email,Mailbox&closeafter=no&ping=60");
    }

    #[test]
    fn a_server_cannot_take_encryption_away() {
        let endpoint = JmapEndpoint::new("jmap.example.org");
        let base = endpoint.session_url().unwrap();
        let url = |text| server_url(&endpoint, &base, "apiUrl", text).map(String::from);
        assert_eq!(url("/jmap/").unwrap(), "https://jmap.example.org/jmap/");
        assert_eq!(url("https://api.example.org/").unwrap(), "https://api.example.org/");
        for wrong in ["http://jmap.example.org/", "file:///etc/passwd", "https://"] {
            assert!(matches!(url(wrong), Err(JmapError::ServerUrl("apiUrl", _))), "{wrong}");
        }
        let here = JmapEndpoint::new("http://127.0.0.1:1/jmap");
        let base = here.session_url().unwrap();
        assert!(server_url(&here, &base, "apiUrl", "/api/").is_ok());
        assert!(server_url(&here, &base, "apiUrl", "http://192.0.2.1/").is_err(), "another machine");
    }
}
