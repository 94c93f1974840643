//! A login in the browser of this machine (RFC 8252): the authorization code comes back to a port on loopback, and is
//! of use only to who began (PKCE, RFC 7636).

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::token::Refusal;
use super::{Oauth, OauthError};

/// For a person to log in and agree.
pub const PATIENCE: Duration = Duration::from_mins(10);
/// For a browser to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_BYTES_MAX: u64 = 16 * 1024;

/// A login that has begun.
#[derive(Debug)]
pub struct BrowserLogin<'a> {
    oauth: &'a Oauth,
    listener: TcpListener,
    redirect: Url,
    state: String,
    verifier: SecretString,
}

impl Oauth {
    /// Begins a login; the browser will come back to `port` of this machine, or to a free one.
    ///
    /// # Errors
    /// When there is nowhere to agree, or the port is not free.
    pub async fn begin(&self, port: u16) -> Result<BrowserLogin<'_>, OauthError> {
        self.endpoints.authorization()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(OauthError::Listen)?;
        let port = listener.local_addr().map_err(OauthError::Listen)?.port();
        let redirect = Url::parse(&format!("http://{}:{port}/", self.endpoints.redirect_host));
        let redirect = redirect.map_err(|_| OauthError::NoEndpoint("redirect_host"))?;
        Ok(BrowserLogin {
            oauth: self,
            listener,
            redirect,
            state: random()?.expose_secret().to_owned(),
            verifier: random()?,
        })
    }
}

impl BrowserLogin<'_> {
    /// The address to open in a browser.
    ///
    /// # Errors
    /// When there is nowhere to agree.
    pub fn url(&self, username: &str) -> Result<String, OauthError> {
        let mut url = self.oauth.endpoints.authorization()?.clone();
        let hash = digest::digest(&digest::SHA256, self.verifier.expose_secret().as_bytes());
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.oauth.config.client_id)
            .append_pair("redirect_uri", self.redirect.as_str())
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &BASE64URL.encode(hash))
            .append_pair("code_challenge_method", "S256")
            .append_pair("login_hint", username);
        if let Some(scope) = &self.oauth.endpoints.scope {
            query.append_pair("scope", scope);
        }
        query.extend_pairs(&self.oauth.endpoints.parameters);
        drop(query);
        Ok(url.into())
    }

    /// Waits for the browser to come back, and returns the refresh token.
    ///
    /// # Errors
    /// See [`OauthError`].
    pub async fn finish(&self) -> Result<SecretString, OauthError> {
        let code = timeout(PATIENCE, self.code()).await.map_err(|_| OauthError::Expired)??;
        self.redeem(&code).await
    }

    /// The same with the address that the browser ended at, where it is on another machine.
    ///
    /// # Errors
    /// See [`OauthError`]; [`OauthError::Answer`] if it is not the address that is waited for.
    pub async fn finish_with(&self, address: &str) -> Result<SecretString, OauthError> {
        let url = Url::parse(address.trim()).map_err(|_| OauthError::Answer("that is not an address"))?;
        let foreign = OauthError::Answer("that address is not the one of this login");
        let code = self.returned(&url).ok_or(foreign)??;
        self.redeem(&code).await
    }

    async fn code(&self) -> Result<SecretString, OauthError> {
        loop {
            let (stream, _) = self.listener.accept().await.map_err(OauthError::Listen)?;
            // Whoever connects and says nothing must not keep the browser out for long.
            if let Ok(Some(outcome)) = timeout(REQUEST_TIMEOUT, self.serve(stream)).await {
                return outcome;
            }
        }
    }

    /// Answers one request; nothing if it was not the one that is waited for.
    async fn serve(&self, stream: TcpStream) -> Option<Result<SecretString, OauthError>> {
        let mut stream = BufReader::new(stream.take(REQUEST_BYTES_MAX));
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let outcome = self.requested(&line);
        // To the end of the head: a browser that is answered before it has finished shows an error instead.
        let mut rest = String::new();
        while stream.read_line(&mut rest).await.ok()? > 2 {
            rest.clear();
        }
        let (status, text) = match &outcome {
            None => ("404 Not Found", "This is not what postrider waits for."),
            Some(Ok(_)) => ("200 OK", "postrider may read this mailbox now. You can close this page."),
            Some(Err(_)) => ("200 OK", "postrider was not let in; see the terminal. You can close this page."),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let mut stream = stream.into_inner().into_inner();
        // What the browser shows is not worth an error.
        let _shown = stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok();
        outcome
    }

    /// `GET /?code=… HTTP/1.1`
    fn requested(&self, line: &str) -> Option<Result<SecretString, OauthError>> {
        let target = line.strip_prefix("GET ")?.split(' ').next()?;
        let url = self.redirect.join(target).ok()?;
        self.returned(&url)
    }

    /// What the provider answered; nothing if it was not asked by us: anybody on this machine, and any page in its
    /// browser, can call our port.
    fn returned(&self, url: &Url) -> Option<Result<SecretString, OauthError>> {
        let value = |name| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        if url.path() != "/" || value("state")? != self.state {
            return None;
        }
        // RFC 9207: another provider's answer must not be redeemed at this one.
        let is_foreign = value("iss").zip(self.oauth.endpoints.issuer.as_ref()).is_some_and(|(iss, own)| iss != *own);
        Some(match (value("error"), value("code")) {
            _ if is_foreign => Err(OauthError::Answer("it is of another issuer")),
            (Some(error), _) => {
                let text = value("error_description").map_or(error.clone(), |text| format!("{error}: {text}"));
                Err(OauthError::Denied(text.chars().filter(|c| !c.is_control()).take(200).collect()))
            }
            (None, Some(code)) if !code.is_empty() => Ok(SecretString::from(code)),
            (None, _) => Err(OauthError::Answer("there is no code in it")),
        })
    }

    async fn redeem(&self, code: &SecretString) -> Result<SecretString, OauthError> {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", self.redirect.as_str()),
            ("code_verifier", self.verifier.expose_secret()),
        ];
        let (status, answer) = self.oauth.ask(&fields).await?;
        let granted = answer.granted(status, tokio::time::Instant::now()).map_err(|err| match err {
            Refusal::Grant(text) => OauthError::Denied(text),
            Refusal::Other(err) => err,
        })?;
        granted.refresh_token.ok_or(OauthError::NoRefreshToken)
    }
}

/// 256 bits in characters that need no escape, as RFC 7636 §4.1 wants them.
fn random() -> Result<SecretString, OauthError> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| OauthError::Answer("the system gave no random bytes"))?;
    Ok(SecretString::from(BASE64URL.encode(bytes.as_slice())))
}
