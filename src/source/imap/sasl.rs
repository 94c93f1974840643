//! How to log in: which mechanism, and what each side says. Pure; `login` carries it to the server and back.

use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::protocol::Capabilities;
use super::scram::{self, Scram, ScramError};
use crate::registry::LoginMechanism;

/// Why an exchange failed on our side of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// SCRAM found something wrong.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// The server asks for more than the mechanism has.
    #[error("the server asks for more than {0} has to say")]
    TooManySteps(&'static str),
    /// The process is ending, or the system has no randomness.
    #[error("it was abandoned")]
    Abandoned,
    /// The server's challenge is not base64.
    #[error("the server's challenge is not base64")]
    NotBase64,
}

/// What proves who we are.
#[derive(Debug, Clone)]
pub(super) enum Secret {
    Password(SecretString),
    /// An OAuth 2.0 access token.
    Token(SecretString),
}

impl Secret {
    /// Whether it is the same text.
    pub(super) fn is(&self, other: &Self) -> bool {
        let (Self::Password(own) | Self::Token(own), Self::Password(other) | Self::Token(other)) = (self, other);
        own.expose_secret() == other.expose_secret()
    }
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// The command LOGIN (RFC 9051 §6.2.3).
    LoginCommand,
    /// The command AUTHENTICATE with this mechanism.
    Sasl(Mechanism),
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    ScramSha256,
    Plain,
    /// Never standardised, and all that some old servers have.
    Login,
    OauthBearer,
    Xoauth2,
}

impl Mechanism {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Xoauth2 => "XOAUTH2",
        }
    }

    fn is_offered(self, offered: &Capabilities) -> bool {
        offered.has(&format!("AUTH={}", self.name()))
    }
}

impl Method {
    /// For people and errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LoginCommand => "LOGIN",
            Self::Sasl(mechanism) => mechanism.name(),
        }
    }

    /// The best way in that the server offers and the secret fits; a configured one has to be there.
    pub(super) fn choose(
        offered: &Capabilities,
        username: &str,
        secret: &Secret,
        wanted: Option<LoginMechanism>,
    ) -> Option<Self> {
        match secret {
            Secret::Token(_) => {
                let fits = |mechanism: Mechanism| match wanted {
                    Some(LoginMechanism::Xoauth2) => mechanism == Mechanism::Xoauth2,
                    Some(LoginMechanism::Oauthbearer) => mechanism == Mechanism::OauthBearer,
                    _ => true,
                };
                let mut known = [Mechanism::OauthBearer, Mechanism::Xoauth2].into_iter();
                known.find(|mechanism| fits(*mechanism) && mechanism.is_offered(offered)).map(Self::Sasl)
            }
            Secret::Password(password) => Self::for_password(offered, username, password.expose_secret(), wanted),
        }
    }

    fn for_password(
        offered: &Capabilities,
        username: &str,
        password: &str,
        wanted: Option<LoginMechanism>,
    ) -> Option<Self> {
        let has = |mechanism: Mechanism| mechanism.is_offered(offered);
        let is_enabled = !offered.has("LOGINDISABLED");
        // A quoted string of LOGIN is ASCII (RFC 3501 §9).
        let is_ascii = username.is_ascii() && password.is_ascii();
        let scram = || {
            let fits = has(Mechanism::ScramSha256) && scram::can_carry(username, password);
            fits.then_some(Self::Sasl(Mechanism::ScramSha256))
        };
        // Some servers do PLAIN and do not say so.
        let plain = |unsaid| (has(Mechanism::Plain) || unsaid).then_some(Self::Sasl(Mechanism::Plain));
        let login = || {
            let by_command = (is_enabled && is_ascii).then_some(Self::LoginCommand);
            by_command.or_else(|| has(Mechanism::Login).then_some(Self::Sasl(Mechanism::Login)))
        };
        match wanted {
            None => scram().or_else(|| plain(false)).or_else(login).or_else(|| plain(is_enabled)),
            Some(LoginMechanism::ScramSha256) => scram(),
            Some(LoginMechanism::Plain) => plain(is_enabled),
            Some(LoginMechanism::Login) => login(),
            Some(LoginMechanism::Oauthbearer | LoginMechanism::Xoauth2) => None,
        }
    }
}

/// Who logs in, and where: some mechanisms repeat the server's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    pub username: &'a str,
    pub host: &'a str,
    pub port: u16,
}

/// One side's messages, in the clear; on the wire they are base64.
pub(super) type Message = Zeroizing<String>;

/// One AUTHENTICATE, between its messages.
pub(super) enum Exchange {
    /// All is said in the first message.
    Plain(Message),
    Scram(Box<Scram>),
    /// What is still to be said, the next one last.
    Login(Vec<Message>),
    /// The first message, and the answer to the server's reasons for a refusal.
    Bearer {
        first: Message,
        regret: &'static str,
        is_refused: bool,
    },
}

impl Exchange {
    /// Begins; `nonce` is fresh for each.
    ///
    /// # Errors
    /// When the mechanism cannot carry the name or the password.
    pub(super) fn new(
        mechanism: Mechanism,
        identity: Identity<'_>,
        secret: &str,
        nonce: String,
    ) -> Result<Self, SaslError> {
        let Identity { username, host, port } = identity;
        Ok(match mechanism {
            // RFC 4616 §2, without an authorization identity.
            Mechanism::Plain => Self::Plain(joined(&["\0", username, "\0", secret])),
            Mechanism::ScramSha256 => Self::Scram(Box::new(Scram::new(username, secret, nonce)?)),
            Mechanism::Login => Self::Login(vec![joined(&[secret]), joined(&[username])]),
            // RFC 7628 §3.1. The name is escaped as in SCRAM.
            Mechanism::OauthBearer => {
                let name = crate::scram::escaped(username);
                let place = format!("\u{1}host={host}\u{1}port={port}\u{1}auth=Bearer ");
                let first = joined(&["n,a=", &name, ",", &place, secret, "\u{1}\u{1}"]);
                // RFC 7628 §3.2.3: the refusal is to be answered with this one octet.
                Self::Bearer { first, regret: "\u{1}", is_refused: false }
            }
            Mechanism::Xoauth2 => {
                let first = joined(&["user=", username, "\u{1}auth=Bearer ", secret, "\u{1}\u{1}"]);
                Self::Bearer { first, regret: "", is_refused: false }
            }
        })
    }

    /// What the client says unasked: with the command (RFC 4959) or after the server's first, empty, challenge.
    pub(super) fn initial(&self) -> Option<Message> {
        match self {
            Self::Plain(message) | Self::Bearer { first: message, .. } => Some(message.clone()),
            Self::Scram(scram) => Some(Zeroizing::new(scram.first())),
            Self::Login(_) => None,
        }
    }

    /// Answers a challenge; `None` is one that was not base64, which matters to some only.
    ///
    /// # Errors
    /// See [`SaslError`]: the login is over then.
    pub(super) fn answer(&mut self, challenge: Option<&str>) -> Result<Message, SaslError> {
        match self {
            Self::Plain(_) => Err(SaslError::TooManySteps("PLAIN")),
            Self::Scram(scram) => Ok(scram.answer(challenge.ok_or(SaslError::NotBase64)?)?),
            // What the server asks in which words differs; the order does not.
            Self::Login(unsaid) => unsaid.pop().ok_or(SaslError::TooManySteps("LOGIN")),
            Self::Bearer { regret, is_refused, .. } => {
                if std::mem::replace(is_refused, true) {
                    return Err(SaslError::TooManySteps("OAuth"));
                }
                Ok(Zeroizing::new((*regret).to_owned()))
            }
        }
    }

    /// Whether the server's OK can be believed.
    ///
    /// # Errors
    /// [`ScramError::NotProven`].
    pub(super) fn accepted(&self) -> Result<(), SaslError> {
        match self {
            Self::Scram(scram) if !scram.is_proven() => Err(ScramError::NotProven.into()),
            _ => Ok(()),
        }
    }

    /// Whether an answer takes so much work that it belongs on a thread of its own.
    pub(super) fn is_costly(&self) -> bool {
        matches!(self, Self::Scram(_))
    }
}

/// Joins without leaving copies behind: the string does not grow.
fn joined(pieces: &[&str]) -> Message {
    let mut text = Zeroizing::new(String::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
    for piece in pieces {
        // Writing to a string does not fail.
        let _written = text.write_str(piece).is_ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &str) -> Capabilities {
        Capabilities(names.split(' ').map(str::to_owned).collect())
    }

    fn method(names: &str, password: &str, wanted: Option<LoginMechanism>) -> Option<&'static str> {
        let chosen = Method::choose(&offered(names), "alice", &Secret::Password(password.into()), wanted);
        chosen.map(|method| match method {
            Method::LoginCommand => "the command LOGIN",
            Method::Sasl(mechanism) => mechanism.name(),
        })
    }

    #[test]
    fn the_best_that_is_offered_is_chosen() {
        let all = "IMAP4REV1 AUTH=PLAIN AUTH=LOGIN AUTH=SCRAM-SHA-256 AUTH=XOAUTH2";
        assert_eq!(method(all, "x", None), Some("SCRAM-SHA-256"));
        assert_eq!(method(all, "\u{1f512}", None), Some("PLAIN"), "SASLprep does not know the character");
        assert_eq!(method("AUTH=LOGIN AUTH=PLAIN", "x", None), Some("PLAIN"));
        assert_eq!(method("IMAP4REV1", "x", None), Some("the command LOGIN"));
        assert_eq!(method("IMAP4REV1", "ü", None), Some("PLAIN"), "LOGIN is ASCII");
        assert_eq!(method("AUTH=LOGIN LOGINDISABLED", "x", None), Some("LOGIN"));
        assert_eq!(method("LOGINDISABLED", "x", None), None);
        assert_eq!(method("LOGINDISABLED", "ü", None), None);
        assert_eq!(method("AUTH=XOAUTH2 LOGINDISABLED", "x", None), None, "a password is no token");
    }

    #[test]
    fn a_configured_mechanism_is_used_or_nothing() {
        let all = "AUTH=PLAIN AUTH=LOGIN AUTH=SCRAM-SHA-256";
        assert_eq!(method(all, "x", Some(LoginMechanism::Plain)), Some("PLAIN"));
        assert_eq!(method(all, "x", Some(LoginMechanism::Login)), Some("the command LOGIN"));
        assert_eq!(method("AUTH=PLAIN", "x", Some(LoginMechanism::ScramSha256)), None, "no way down from SCRAM");
        assert_eq!(method(all, "x", Some(LoginMechanism::Xoauth2)), None);
    }

    #[test]
    fn a_token_takes_the_standard_first() {
        let method = |names, wanted| Method::choose(&offered(names), "a", &Secret::Token("t".into()), wanted);
        assert_eq!(method("AUTH=XOAUTH2 AUTH=OAUTHBEARER", None), Some(Method::Sasl(Mechanism::OauthBearer)));
        assert_eq!(method("AUTH=XOAUTH2 AUTH=PLAIN", None), Some(Method::Sasl(Mechanism::Xoauth2)));
        let wanted = Some(LoginMechanism::Xoauth2);
        assert_eq!(method("AUTH=XOAUTH2 AUTH=OAUTHBEARER", wanted), Some(Method::Sasl(Mechanism::Xoauth2)));
        assert_eq!(method("AUTH=PLAIN", None), None, "a token is no password");
    }

    fn exchange(mechanism: Mechanism) -> Exchange {
        let identity = Identity { username: "a,b@x.org", host: "imap.x.org", port: 993 };
        Exchange::new(mechanism, identity, "s3cret", "nonce".to_owned()).unwrap()
    }

    #[test]
    fn messages_are_those_of_the_standards() {
        let first = |mechanism| exchange(mechanism).initial().unwrap().to_string();
        assert_eq!(first(Mechanism::Plain), "\0a,b@x.org\0s3cret");
        assert_eq!(
            first(Mechanism::OauthBearer),
            "n,a=a=2Cb@x.org,\u{1}host=imap.x.org\u{1}port=993\u{1}auth=Bearer s3cret\u{1}\u{1}"
        );
        assert_eq!(first(Mechanism::Xoauth2), "user=a,b@x.org\u{1}auth=Bearer s3cret\u{1}\u{1}");

        let mut login = exchange(Mechanism::Login);
        assert!(login.initial().is_none());
        assert_eq!(login.answer(Some("Username:")).unwrap().as_str(), "a,b@x.org");
        assert_eq!(login.answer(None).unwrap().as_str(), "s3cret");
        assert!(matches!(login.answer(Some("More:")), Err(SaslError::TooManySteps(_))));
    }

    #[test]
    fn a_refused_token_is_answered_once_so_that_the_server_can_say_no() {
        for (mechanism, answer) in [(Mechanism::OauthBearer, "\u{1}"), (Mechanism::Xoauth2, "")] {
            let mut exchange = exchange(mechanism);
            assert_eq!(exchange.answer(Some("{\"status\":\"401\"}")).unwrap().as_str(), answer);
            assert!(exchange.answer(Some("{}")).is_err());
        }
    }

    #[test]
    fn an_ok_without_the_servers_proof_is_not_believed() {
        let mut scram = exchange(Mechanism::ScramSha256);
        assert!(scram.accepted().is_err());
        assert!(matches!(scram.answer(None), Err(SaslError::NotBase64)));
        scram.answer(Some("r=noncex,s=c2FsdA==,i=1")).unwrap();
        assert!(scram.accepted().is_err());
        assert!(exchange(Mechanism::Plain).accepted().is_ok());
    }
}
