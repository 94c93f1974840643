//! The server's side of logging in: what each SASL mechanism asks and is told (RFC 4422). Pure.
//!
//! An [`Exchange`] takes the client's messages, out of their base64, and answers each with a [`Step`]. Whether a password
//! or a token is right is for the caller to find out, who has the time and counts the failures; SCRAM's proof is checked
//! here, since that is a few hashes, and reported all the same.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::users::{Identity, Users};
use crate::scram::{self, Verifier};

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// RFC 7677.
    ScramSha256,
    /// RFC 7628.
    OauthBearer,
    /// RFC 4616.
    Plain,
    /// Never standardised, and all that some clients have.
    Login,
}

impl Mechanism {
    /// All, the best first.
    const ALL: [Self; 4] = [Self::ScramSha256, Self::OauthBearer, Self::Plain, Self::Login];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// In any case.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    /// Those that somebody can log in by.
    pub(super) fn offered(users: &Users) -> impl Iterator<Item = Self> + '_ {
        Self::ALL.into_iter().filter(|mechanism| mechanism.is_offered(users))
    }

    pub(super) fn is_offered(self, users: &Users) -> bool {
        if self == Self::OauthBearer { users.take_tokens() } else { users.take_passwords() }
    }
}

/// Text that proves something: never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Somebody says who they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub mechanism: Mechanism,
    /// As they call themselves; with a token, it may be empty.
    pub name: String,
    pub evidence: Evidence,
}

/// What should show it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    Password(Secret),
    /// One of postrider's own tokens.
    Token(Secret),
    /// SCRAM's; whether it is right.
    Proof(bool),
}

/// What the caller found out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Granted(Arc<Identity>),
    Denied,
    /// There were too many failures: the session ends.
    LockedOut,
    /// It could not be found out.
    Unavailable,
}

/// What comes next in the exchange.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The client is told this, and answers.
    Challenge(String),
    /// The caller finds out, and says so to [`Exchange::judged`].
    Verify(Attempt),
    /// The end: it is them.
    Granted(Arc<Identity>),
    /// The end: it is not.
    Denied,
    /// The end: what the client said is not what the mechanism has.
    Malformed,
    /// The end: there is no randomness.
    Unavailable,
}

/// One login, between its messages.
#[derive(Debug)]
pub(super) enum Exchange {
    Plain,
    LoginName,
    LoginPassword(String),
    ScramFirst,
    ScramFinal(Box<ScramServer>),
    Bearer,
    /// It is them, and the client has been told what shows that we know the password too: it says that it heard.
    Confirmed(Arc<Identity>),
    /// It is not, and the client has been told why.
    Regretted,
}

/// SCRAM, behind the client's first message.
#[derive(Debug)]
pub(super) struct ScramServer {
    name: String,
    /// `n,,` and the like, as the client's last message has to repeat it.
    header: String,
    nonce: String,
    /// Both first messages.
    signed: String,
    verifier: Verifier,
    /// Our last message, once the client's proof was seen.
    last: String,
}

impl Exchange {
    pub(super) fn new(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::ScramSha256 => Self::ScramFirst,
            Mechanism::OauthBearer => Self::Bearer,
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
        }
    }

    /// What the client is asked that said nothing with the command.
    pub(super) fn prompt(&self) -> &'static str {
        if matches!(self, Self::LoginName) { "Username:" } else { "" }
    }

    /// Takes what the client says.
    pub(super) fn take(&mut self, message: &[u8], users: &Users) -> Step {
        let Ok(text) = std::str::from_utf8(message) else { return Step::Malformed };
        match self {
            Self::Plain => plain(text).unwrap_or(Step::Malformed),
            Self::LoginName => {
                *self = Self::LoginPassword(text.to_owned());
                Step::Challenge("Password:".to_owned())
            }
            Self::LoginPassword(name) => password(Mechanism::Login, std::mem::take(name), text),
            Self::ScramFirst => {
                let Some(nonce) = users.nonce() else { return Step::Unavailable };
                let Some(scram) = ScramServer::new(text, &nonce, users) else { return Step::Malformed };
                let challenge = scram.first_message();
                *self = Self::ScramFinal(Box::new(scram));
                Step::Challenge(challenge)
            }
            Self::ScramFinal(scram) => scram.finish(text).unwrap_or(Step::Malformed),
            Self::Bearer => bearer(text).unwrap_or(Step::Malformed),
            Self::Confirmed(identity) if text.is_empty() => Step::Granted(Arc::clone(identity)),
            Self::Confirmed(_) => Step::Malformed,
            Self::Regretted => Step::Denied,
        }
    }

    /// Takes what the caller found out of the [`Attempt`].
    pub(super) fn judged(&mut self, identity: Option<Arc<Identity>>) -> Step {
        match (&*self, identity) {
            (Self::ScramFinal(scram), Some(identity)) => {
                let last = scram.last.clone();
                *self = Self::Confirmed(identity);
                Step::Challenge(last)
            }
            (_, Some(identity)) => Step::Granted(identity),
            (Self::Bearer, None) => {
                *self = Self::Regretted;
                // RFC 7628 §3.2.2.
                Step::Challenge(r#"{"status":"invalid_token","schemes":"bearer"}"#.to_owned())
            }
            (_, None) => Step::Denied,
        }
    }
}

fn password(mechanism: Mechanism, name: String, password: &str) -> Step {
    Step::Verify(Attempt { mechanism, name, evidence: Evidence::Password(Secret::new(password)) })
}

/// RFC 4616 §2. Nobody acts for somebody else here.
fn plain(text: &str) -> Option<Step> {
    let mut fields = text.split('\0');
    let (other, name, secret) = (fields.next()?, fields.next()?, fields.next()?);
    let is_whole = fields.next().is_none() && !name.is_empty();
    let is_own = other.is_empty() || other == name;
    is_whole.then(|| if is_own { password(Mechanism::Plain, name.to_owned(), secret) } else { Step::Denied })
}

/// RFC 7628 §3.1.
fn bearer(text: &str) -> Option<Step> {
    let mut fields = text.strip_suffix("\u{1}\u{1}")?.split('\u{1}');
    let header = fields.next()?.strip_prefix("n,").or_else(|| text.split('\u{1}').next()?.strip_prefix("y,"))?;
    let name = match header.strip_suffix(',')? {
        "" => String::new(),
        name => scram::unescaped(name.strip_prefix("a=")?)?,
    };
    let scheme = fields.find_map(|field| field.strip_prefix("auth="))?;
    let (scheme, token) = scheme.split_once(' ')?;
    let evidence = Evidence::Token(Secret::new(token.trim()));
    scheme.eq_ignore_ascii_case("bearer").then_some(Step::Verify(Attempt {
        mechanism: Mechanism::OauthBearer,
        name,
        evidence,
    }))
}

impl ScramServer {
    /// RFC 5802 §7: `gs2-header client-first-message-bare`.
    fn new(text: &str, fresh: &str, users: &Users) -> Option<Self> {
        // `p=` would be channel binding, which was not offered.
        let (_, rest) = text.split_once(',').filter(|(flag, _)| matches!(*flag, "n" | "y"))?;
        let (other, bare) = rest.split_once(',')?;
        let header = text.get(..text.len() - bare.len())?.to_owned();
        let mut fields = bare.split(',');
        // `m=` in front announces an extension that must be understood: none is.
        let name = scram::unescaped(fields.next()?.strip_prefix("n=")?).filter(|name| !name.is_empty())?;
        let is_own = other.is_empty() || scram::unescaped(other.strip_prefix("a=")?)? == name;
        let theirs = fields.next()?.strip_prefix("r=")?;
        let is_nonce = !theirs.is_empty() && theirs.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_own || !is_nonce {
            return None;
        }
        let (nonce, verifier) = (format!("{theirs}{fresh}"), users.verifier(&name));
        let (salt, iterations) = (BASE64.encode(&verifier.salt), verifier.iterations);
        let signed = format!("{bare},r={nonce},s={salt},i={iterations}");
        Some(Self { name, header, nonce, signed, verifier, last: String::new() })
    }

    fn first_message(&self) -> String {
        let (salt, iterations) = (BASE64.encode(&self.verifier.salt), self.verifier.iterations);
        format!("r={},s={salt},i={iterations}", self.nonce)
    }

    /// RFC 5802 §7: `client-final-message`.
    fn finish(&mut self, text: &str) -> Option<Step> {
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let proof = BASE64.decode(proof).ok()?;
        let mut fields = without_proof.split(',');
        let binding = BASE64.decode(fields.next()?.strip_prefix("c=")?).ok()?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        if binding != self.header.as_bytes() || nonce != self.nonce {
            return None;
        }
        let signed = format!("{},{without_proof}", self.signed);
        self.last = format!("v={}", BASE64.encode(self.verifier.server_signature(&signed)));
        let evidence = Evidence::Proof(self.verifier.is_proof(&proof, &signed));
        Some(Step::Verify(Attempt { mechanism: Mechanism::ScramSha256, name: self.name.clone(), evidence }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn users() -> Users {
        Users::predictable(&[("alice", "pencil", &[]), ("a,b", "x", &[])], true)
    }

    fn attempt(mechanism: Mechanism, message: &str) -> Step {
        Exchange::new(mechanism).take(message.as_bytes(), &users())
    }

    fn verify(mechanism: Mechanism, name: &str, evidence: Evidence) -> Step {
        Step::Verify(Attempt { mechanism, name: name.to_owned(), evidence })
    }

    #[test]
    fn plain_is_three_fields_and_nobody_acts_for_another() {
        let right = || verify(Mechanism::Plain, "alice", Evidence::Password(Secret::new("pencil")));
        assert_eq!(attempt(Mechanism::Plain, "\0alice\0pencil"), right());
        assert_eq!(attempt(Mechanism::Plain, "alice\0alice\0pencil"), right());
        assert_eq!(attempt(Mechanism::Plain, "bob\0alice\0pencil"), Step::Denied);
        for wrong in ["", "alice", "\0alice", "\0\0x", "\0a\0b\0c"] {
            assert_eq!(attempt(Mechanism::Plain, wrong), Step::Malformed, "{wrong:?}");
        }
        assert_eq!(Exchange::Plain.take(b"\0a\0\xff", &users()), Step::Malformed);
    }

    #[test]
    fn login_asks_for_name_and_password() {
        let mut login = Exchange::new(Mechanism::Login);
        assert_eq!(login.prompt(), "Username:");
        assert_eq!(login.take(b"alice", &users()), Step::Challenge("Password:".to_owned()));
        let right = verify(Mechanism::Login, "alice", Evidence::Password(Secret::new("pencil")));
        assert_eq!(login.take(b"pencil", &users()), right);
    }

    #[test]
    fn a_token_comes_with_or_without_a_name_and_a_refusal_is_explained() {
        let token = |name| verify(Mechanism::OauthBearer, name, Evidence::Token(Secret::new("t.o.k")));
        assert_eq!(attempt(Mechanism::OauthBearer, "n,,\u{1}auth=Bearer t.o.k\u{1}\u{1}"), token(""));
        let named = "y,a=a=2Cb,\u{1}host=x\u{1}port=1\u{1}auth=bearer t.o.k\u{1}\u{1}";
        assert_eq!(attempt(Mechanism::OauthBearer, named), token("a,b"));
        for wrong in ["", "n,,\u{1}\u{1}", "n,,\u{1}auth=Basic x\u{1}\u{1}", "p=x,,\u{1}auth=Bearer x\u{1}\u{1}", "n,,"]
        {
            assert_eq!(attempt(Mechanism::OauthBearer, wrong), Step::Malformed, "{wrong:?}");
        }
        let mut refused = Exchange::Bearer;
        assert!(matches!(refused.judged(None), Step::Challenge(json) if json.contains("invalid_token")));
        assert_eq!(refused.take(b"\x01", &users()), Step::Denied);
    }

    /// The client's half of SCRAM: what it says to the server's first message.
    fn proof(bare: &str, header: &str, challenge: &str, password: &str) -> String {
        let fields: Vec<&str> = challenge.split(',').collect();
        let salt = BASE64.decode(fields[1].strip_prefix("s=").unwrap()).unwrap();
        let iterations = fields[2].strip_prefix("i=").unwrap().parse().unwrap();
        let without_proof = format!("c={},{}", BASE64.encode(header), fields[0]);
        let salted = scram::SaltedPassword::derive(password, &salt, iterations);
        let proof = salted.client_key().proof(&format!("{bare},{challenge},{without_proof}"));
        format!("{without_proof},p={}", BASE64.encode(&proof))
    }

    fn scram(name: &str, header: &str, password: &str) -> (Exchange, Step) {
        let (mut exchange, users) = (Exchange::new(Mechanism::ScramSha256), users());
        let bare = format!("n={name},r=client");
        let Step::Challenge(challenge) = exchange.take(format!("{header}{bare}").as_bytes(), &users) else { panic!() };
        assert!(challenge.starts_with("r=clientserver-nonce,s="), "{challenge}");
        let step = exchange.take(proof(&bare, header, &challenge, password).as_bytes(), &users);
        (exchange, step)
    }

    #[test]
    fn scram_knows_who_knows_the_password_and_shows_that_it_does() {
        for (name, plain_name, header) in
            [("alice", "alice", "n,,"), ("a=2Cb", "a,b", "y,,"), ("alice", "alice", "n,a=alice,")]
        {
            let password = if plain_name == "alice" { "pencil" } else { "x" };
            let (mut exchange, step) = scram(name, header, password);
            assert_eq!(step, verify(Mechanism::ScramSha256, plain_name, Evidence::Proof(true)));
            let identity = users().identity(plain_name);
            assert!(
                matches!(exchange.judged(identity), Step::Challenge(last) if last.starts_with("v=") && last.len() == 46)
            );
            assert!(matches!(exchange.take(b"", &users()), Step::Granted(_)));
        }
        for (name, password) in [("alice", "pen"), ("eve", "pencil")] {
            let (mut exchange, step) = scram(name, "n,,", password);
            assert_eq!(step, verify(Mechanism::ScramSha256, name, Evidence::Proof(false)));
            assert_eq!(exchange.judged(None), Step::Denied);
        }
    }

    #[test]
    fn scram_takes_nothing_that_was_changed_on_the_way() {
        for first in [
            "",
            "n,,",
            "n,,n=alice",
            "n,,n=alice,r=",
            "p=tls-unique,,n=alice,r=x",
            "n,a=bob,n=alice,r=x",
            "n,,m=ext,n=alice,r=x",
            "n,,n=,r=x",
            "n,,n=al=ice,r=x",
            "n,,n=alice,r=a b",
        ] {
            assert_eq!(attempt(Mechanism::ScramSha256, first), Step::Malformed, "{first}");
        }
        let users = users();
        for change in [("c=biws", "c=eSws"), ("r=client", "r=clienT"), (",p=", ",p=?"), (",p=", ",x=")] {
            let mut exchange = Exchange::ScramFirst;
            let Step::Challenge(challenge) = exchange.take(b"n,,n=alice,r=client", &users) else { panic!() };
            let last = proof("n=alice,r=client", "n,,", &challenge, "pencil").replace(change.0, change.1);
            assert_eq!(exchange.take(last.as_bytes(), &users), Step::Malformed, "{change:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", attempt(Mechanism::Plain, "\0alice\0pencil"));
        assert!(!shown.contains("pencil"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_message_grants_anything_by_itself(
            mechanism in prop::sample::select(&Mechanism::ALL[..]),
            messages in prop::collection::vec("([ny],,)?(n=alice,r=[a-z]{0,3})?(c=biws,r=[a-z-]{0,9},p=[A-Za-z=]{0,8})?[\0\u{1}-~]{0,12}", 0..4),
        ) {
            let (users, mut exchange) = (users(), Exchange::new(mechanism));
            for message in messages {
                let step = exchange.take(message.as_bytes(), &users);
                prop_assert!(!matches!(step, Step::Granted(_)), "{step:?}");
            }
        }
    }
}
