//! What kind of "no" a server said. Pure.
//!
//! The response code decides (RFC 5530); text only where there is none, since servers reword it and translate it.

use std::fmt;
use std::time::Duration;

use super::protocol::{Code, Condition, Reply};

/// Text of a server that is repeated to people, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// A server cannot ask for a longer pause.
const ASKED_PAUSE_MAX: Duration = Duration::from_hours(1);

/// What a refusal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// User name or password are wrong.
    Credentials,
    /// The account exists and must not come in like this; a person has to change something at the provider.
    NeedsPerson,
    /// Too many connections. Dead ones hold their places until the server notices.
    Capacity,
    /// Too much was asked in too short a time.
    Throttled,
    /// The mailbox does not exist.
    NoMailbox,
    /// The mailbox exists and this user may not open it.
    NoPermission,
    /// The session is over, as it was bound to be: its time or its token's is up.
    SessionOver,
    /// It may work later, or nobody can tell.
    Temporary,
}

/// What the server answered, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerText {
    code: Option<String>,
    text: String,
}

impl ServerText {
    pub(super) fn of(reply: &Reply) -> Self {
        let code = match &reply.code {
            Some(Code::Named(name)) => Some(printable(name)),
            _ => None,
        };
        Self { code, text: printable(&reply.text) }
    }
}

impl ServerText {
    /// The pause that it asks for: `Suggested Backoff Time: 5000 milliseconds` (Exchange Online).
    pub(super) fn asked_pause(&self) -> Option<Duration> {
        let text = self.text.to_ascii_lowercase();
        let (_, rest) = text.split_once("backoff time:")?;
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        Some(Duration::from_millis(digits.parse().ok()?).min(ASKED_PAUSE_MAX))
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(TEXT_CHARS_MAX).collect()
}

impl fmt::Display for ServerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.code, self.text.is_empty()) {
            (Some(code), false) => write!(f, "[{code}] {}", self.text),
            (Some(code), true) => write!(f, "[{code}]"),
            (None, false) => f.write_str(&self.text),
            (None, true) => f.write_str("(no text)"),
        }
    }
}

/// Where in a session the refusal came: the same words mean different things there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum During {
    Login,
    Open,
    Other,
}

pub(super) fn classify(reply: &Reply, during: During) -> Refusal {
    if let Some(Code::Named(code)) = &reply.code
        && let Some(refusal) = by_code(code, reply)
    {
        return refusal;
    }
    by_text(reply, during)
}

fn by_code(code: &str, reply: &Reply) -> Option<Refusal> {
    Some(match code {
        "AUTHENTICATIONFAILED" | "EXPIRED" => Refusal::Credentials,
        "AUTHORIZATIONFAILED" | "CONTACTADMIN" | "PRIVACYREQUIRED" | "WEBALERT" => Refusal::NeedsPerson,
        "LIMIT" if says(reply, &["rate limit"]) => Refusal::Throttled,
        "LIMIT" => Refusal::Capacity,
        "UNAVAILABLE" | "INUSE" if says(reply, TOO_MANY) => Refusal::Capacity,
        "UNAVAILABLE" | "INUSE" | "SERVERBUG" | "CORRUPTION" => Refusal::Temporary,
        "THROTTLED" => Refusal::Throttled,
        "NONEXISTENT" | "TRYCREATE" => Refusal::NoMailbox,
        "NOPERM" => Refusal::NoPermission,
        _ => return None,
    })
}

const TOO_MANY: &[&str] = &["maximum number of connections", "too many simultaneous", "too many connections"];
const NEEDS_PERSON: &[&str] =
    &["web login required", "application-specific password", "app password", "unsafe login", "imap is disabled"];
const THROTTLED: &[&str] = &["throttled", "rate limit", "limit for logins", "too many login", "not connected"];
const SESSION_OVER: &[&str] = &["session expired", "session invalidated", "accesstokenexpired"];
const NO_MAILBOX: &[&str] = &["doesn't exist", "does not exist", "nonexistent", "unknown mailbox", "not found"];

fn by_text(reply: &Reply, during: During) -> Refusal {
    if reply.condition == Condition::Bye && says(reply, SESSION_OVER) {
        return Refusal::SessionOver;
    }
    if says(reply, TOO_MANY) {
        return Refusal::Capacity;
    }
    if says(reply, THROTTLED) {
        return Refusal::Throttled;
    }
    match during {
        During::Login if says(reply, NEEDS_PERSON) => Refusal::NeedsPerson,
        During::Login if says(reply, &["temporar", "try again", "internal error", "unavailable"]) => Refusal::Temporary,
        // NO is what LOGIN answers to wrong credentials (RFC 9051 §6.2.3); BAD or BYE are not about them.
        During::Login if reply.condition == Condition::No => Refusal::Credentials,
        During::Open if says(reply, NO_MAILBOX) => Refusal::NoMailbox,
        _ => Refusal::Temporary,
    }
}

fn says(reply: &Reply, words: &[&str]) -> bool {
    let text = reply.text.to_ascii_lowercase();
    words.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(condition: Condition, code: Option<&str>, text: &str) -> Reply {
        Reply { condition, code: code.map(|name| Code::Named(name.into())), text: text.into() }
    }

    #[test]
    fn the_code_decides_and_then_the_text() {
        let login = |code, text| classify(&reply(Condition::No, code, text), During::Login);
        assert_eq!(login(Some("AUTHENTICATIONFAILED"), "Authentication failed."), Refusal::Credentials);
        assert_eq!(login(None, "LOGIN failed"), Refusal::Credentials);
        assert_eq!(login(Some("ALERT"), "Application-specific password required"), Refusal::NeedsPerson);
        assert_eq!(login(Some("UNAVAILABLE"), "Temporary authentication failure."), Refusal::Temporary);
        assert_eq!(
            login(Some("UNAVAILABLE"), "Maximum number of connections from user+IP exceeded"),
            Refusal::Capacity
        );
        assert_eq!(login(Some("ALERT"), "Too many simultaneous connections. (Failure)"), Refusal::Capacity);
        assert_eq!(login(Some("LIMIT"), "Rate limit hit."), Refusal::Throttled);
        assert_eq!(login(None, "Internal error occurred. Refer to server log"), Refusal::Temporary);
    }

    #[test]
    fn a_pause_that_is_asked_for_is_made() {
        let text = |text: &str| ServerText::of(&reply(Condition::Bad, None, text)).asked_pause();
        let throttled = "Request is throttled. Suggested Backoff Time: 299962 milliseconds";
        assert_eq!(text(throttled), Some(Duration::from_millis(299_962)));
        assert_eq!(text("Suggested Backoff Time: 99999999999 milliseconds"), Some(ASKED_PAUSE_MAX));
        assert_eq!(text("Request is throttled."), None);
        let over = reply(Condition::Bye, None, "Session expired, please login again.");
        assert_eq!(classify(&over, During::Other), Refusal::SessionOver);
    }

    #[test]
    fn only_login_can_refuse_credentials() {
        assert_eq!(classify(&reply(Condition::No, None, "no"), During::Other), Refusal::Temporary);
        assert_eq!(classify(&reply(Condition::Bad, None, "what?"), During::Login), Refusal::Temporary);
        let gone = reply(Condition::No, None, "Mailbox doesn't exist: Lists");
        assert_eq!(classify(&gone, During::Open), Refusal::NoMailbox);
        let throttled = reply(Condition::Bad, None, "User is authenticated but not connected.");
        assert_eq!(classify(&throttled, During::Open), Refusal::Throttled);
    }

    #[test]
    fn what_the_server_wrote_is_shown_on_one_line() {
        let text = ServerText::of(&reply(Condition::No, Some("LIMIT"), &format!("a\u{1b}[2J{}", "b".repeat(500))));
        let shown = text.to_string();
        assert!(shown.starts_with("[LIMIT] a[2Jb") && shown.chars().count() <= 208, "{shown}");
    }
}
