//! The client side of the HTTP interface, for `watch` and `publish`: where the server is, and with which token.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use postrider::auth::{Claims, MercureClaims, SigningKey};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Response, StatusCode, redirect};
use serde_json::Value;
use url::Url;

use super::{CliError, Global};

/// Longest wait for a connection, and then for the head of an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A token that is made on the spot only has to outlive a connection; the next one gets another.
const MINTED_SECONDS: u64 = 60 * 60;
/// Longest error answer that is looked at.
const DETAIL_BYTES_MAX: usize = 64 * 1024;

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "POSTRIDER_URL",
        default_value = "http://127.0.0.1:8025",
        hide_env_values = true
    )]
    url: String,
    /// A file with the token [default: the environment's `POSTRIDER_TOKEN`, else one made with the data folder's key]
    #[arg(long, value_name = "FILE", env = "POSTRIDER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// A server and the right to talk to it.
pub struct Server {
    http: reqwest::Client,
    base: Url,
    token: Token,
    claims: MercureClaims,
}

/// Where the token comes from.
enum Token {
    /// It was given.
    Given(HeaderValue),
    /// It is made for each request.
    Minted(Box<SigningKey>),
}

impl Server {
    /// The server of the arguments; `claims` is what a token that is made on the spot allows.
    pub fn new(global: &Global, args: &ServerArgs, claims: MercureClaims) -> Result<Self, CliError> {
        let base = base_url(&args.url)?;
        let token = match given_token(args)? {
            Some(token) => Token::Given(token),
            // A token of ours must not reach a server that is not ours.
            None if !is_loopback(&base) => return Err(CliError::NoToken(shown(&base))),
            None => Token::Minted(Box::new(SigningKey::load(&global.data_dir()?).map_err(CliError::NoKey)?)),
        };
        if base.scheme() == "http" && !is_loopback(&base) {
            tracing::warn!("the token crosses the network unencrypted; use an https:// URL");
        }
        // A redirect would carry the request to where nobody sent it.
        let mut builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(redirect::Policy::none());
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|err| CliError::Unreachable(shown(&base), err))?;
        Ok(Self { http, base, token, claims })
    }

    /// A request to `{url}/events`.
    pub fn events(&self, method: reqwest::Method) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/events", self.base.path().trim_end_matches('/')));
        self.http.request(method, url).header(AUTHORIZATION, self.authorization())
    }

    fn authorization(&self) -> HeaderValue {
        match &self.token {
            Token::Given(value) => value.clone(),
            Token::Minted(key) => {
                let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
                let exp = Some(now.saturating_add(MINTED_SECONDS));
                let token = key.sign(&Claims { mercure: self.claims.clone(), exp, ..Claims::default() });
                bearer(&token).unwrap_or_else(|_| unreachable!("a JWT is base64 and dots"))
            }
        }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the server may have done what was asked.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, CliError> {
        // reqwest's own timeout would end a stream as well.
        let response = match tokio::time::timeout(2 * CONNECT_TIMEOUT, request.send()).await {
            Ok(sent) => sent.map_err(|err| CliError::Unreachable(self.to_string(), err.without_url()))?,
            Err(_) => return Err(self.refused(StatusCode::GATEWAY_TIMEOUT, "no answer in time".to_owned())),
        };
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.refused(status, detail(response).await)),
        }
    }

    fn refused(&self, status: StatusCode, detail: String) -> CliError {
        CliError::Refused { url: self.to_string(), status, detail }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shown(&self.base))
    }
}

fn shown(base: &Url) -> String {
    base.as_str().trim_end_matches('/').to_owned()
}

fn base_url(text: &str) -> Result<Url, CliError> {
    let url = Url::parse(text).map_err(|_| CliError::Url("expected http://host:port or https://host"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(CliError::Url("expected http://host:port or https://host"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(CliError::Url("leave out user, password and everything after the path; a token goes into a file"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The token that the person gave, if any: the file before the variable.
fn given_token(args: &ServerArgs) -> Result<Option<HeaderValue>, CliError> {
    let text = match &args.token_file {
        Some(path) => std::fs::read_to_string(path).map_err(|err| CliError::TokenFile(path.clone(), err))?,
        None => match std::env::var_os("POSTRIDER_TOKEN") {
            Some(token) => token.into_string().map_err(|_| CliError::NotAToken)?,
            None => return Ok(None),
        },
    };
    bearer(text.trim()).map(Some)
}

fn bearer(token: &str) -> Result<HeaderValue, CliError> {
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(CliError::NotAToken);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| CliError::NotAToken)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What an error answer says: the `detail` or `title` of `application/problem+json` (RFC 9457), else its text.
async fn detail(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && body.len() < DETAIL_BYTES_MAX
    {
        body.extend_from_slice(&chunk);
    }
    let problem: Option<Value> = serde_json::from_slice(&body).ok();
    let said =
        problem.as_ref().and_then(|problem| ["detail", "title"].iter().find_map(|key| problem.get(key)?.as_str()));
    let text = said.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
    let text = super::watch::printable(&text, 500);
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_bare_url() {
        assert!(base_url("https://push.example.org/base/").is_ok());
        for wrong in ["push.example.org", "ftp://a", "http://u:p@a", "http://a?token=x", "http://a#x"] {
            let error = base_url(wrong).unwrap_err();
            assert!(matches!(error, CliError::Url(_)), "{wrong}");
            assert!(!error.to_string().contains("token=x"));
        }
    }

    #[test]
    fn only_this_machine_gets_a_minted_token() {
        let is_own = |text: &str| is_loopback(&base_url(text).unwrap());
        assert!(is_own("http://127.0.0.1:8025") && is_own("http://[::1]:1") && is_own("http://localhost"));
        assert!(
            !is_own("https://push.example.org") && !is_own("http://127.0.0.1.evil.test") && !is_own("http://10.0.0.1")
        );
    }

    #[test]
    fn what_cannot_be_a_header_is_no_token() {
        for wrong in ["", "a b", "a\nb", "gr\u{fc}n\u{0}"] {
            assert!(bearer(wrong).is_err(), "{wrong:?}");
        }
        assert!(!format!("{:?}", bearer("s3cret").unwrap()).contains("s3cret"));
    }
}
