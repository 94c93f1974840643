//! Why a JMAP account is not watched, in words that say what to do. These texts are the `reason` of account events.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use crate::event_log::{AppendError, ReadError};
use crate::registry::{JmapUrlError, PasswordError};

/// Why an account could not be watched, or is no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JmapError {
    /// The configured URL.
    #[error(transparent)]
    Url(#[from] JmapUrlError),
    /// A URL that the server gave.
    #[error("the server's `{0}` is no URL that credentials may be sent to: {1}")]
    ServerUrl(&'static str, String),
    /// There is no password to log in with.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// User name or password cannot be sent.
    #[error("user name and password must not contain line breaks; check where the password comes from")]
    Unsendable,
    /// The file with certificate authorities is not usable.
    #[error("cannot use `ca_file` {0}: {1}")]
    CaFile(PathBuf, String),
    /// The connection, or TLS on it.
    #[error("cannot reach {0}; check `url` and that the server is running")]
    Network(String, #[source] reqwest::Error),
    /// Nothing came for too long.
    #[error("{0} said nothing for {1:?}")]
    Silent(String, Duration),
    /// The credentials were refused.
    #[error("the server refused the user name and password, or token, with status {0}; check them")]
    Refused(u16),
    /// The server asks for patience.
    #[error("the server asks to come back later (status {status})")]
    Throttled {
        /// The HTTP status.
        status: u16,
        /// How long, where it says.
        after: Option<Duration>,
    },
    /// Any other refusal.
    #[error("{0} answered with status {1}; check `url`")]
    Status(String, u16),
    /// What came is not JMAP.
    #[error("the server's answer is not JMAP: {0}")]
    NotJmap(String),
    /// An answer, or a line of the event stream, is longer than is sensible.
    #[error("the server's answer is longer than {0} bytes")]
    TooLong(usize),
    /// The account has no mail.
    #[error("the server has no mail for this account: no `{0}` among its primary accounts")]
    NoMail(&'static str),
    /// A method failed.
    #[error("the server refused {call} with {error}{}", description.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Method {
        /// Which of ours.
        call: String,
        /// The error's type (RFC 8620 §3.6.2).
        error: String,
        /// What the server says of it.
        description: Option<String>,
    },
    /// The server does not know any more what changed since our state.
    #[error("the server no longer knows what changed")]
    CannotCalculateChanges,
    /// The event stream ended, fell silent or could not be read. What happens is found when it is opened again.
    #[error("lost the event stream: {0}")]
    StreamLost(String),
    /// The event log did not take the events.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The position could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A bug of ours.
    #[error("the watcher failed; please report this as a bug")]
    Panicked,
}

impl JmapError {
    /// Whether the credentials are what is wrong.
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Password(_))
    }

    /// All that is known, on one line.
    pub fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(err) = source {
            let cause = err.to_string();
            // Some errors repeat their cause.
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = err.source();
        }
        // What a server says may be long and may try to look like something else.
        text.chars().filter(|c| !c.is_control()).take(500).collect()
    }
}
