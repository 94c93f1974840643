//! What `[smtp]` may not say.

use std::num::NonZeroUsize;

use super::SocketAddress;
use crate::source::forward::ForwardConfigError;
use crate::source::intake::{MessageAuthenticationConfigError, WHOLE_MAX};

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SmtpConfigError {
    /// The name is not one that may stand in a greeting.
    #[error("`smtp.hostname` is `{0}`, which is neither a domain nor an address in brackets")]
    Hostname(String),
    /// The messages that are read back do not fit the memory.
    #[error(
        "`smtp.memory_bytes_max` is {memory}, less than {WHOLE_MAX} times `smtp.message_bytes_max`, which is {message}"
    )]
    Memory {
        /// The largest message.
        message: NonZeroUsize,
        /// The memory of all.
        memory: NonZeroUsize,
    },
    /// LMTP where only SMTP may be spoken.
    #[error("a `smtp.listener` speaks LMTP on port 25, which is SMTP's (RFC 2033 §5); 24 is usual for LMTP")]
    LmtpPort,
    /// How senders are verified.
    #[error(transparent)]
    MessageAuthentication(#[from] MessageAuthenticationConfigError),
    /// `[smtp.forward]`.
    #[error(transparent)]
    Forward(#[from] ForwardConfigError),
    /// A time limit that nobody could keep, or that no clock reaches.
    #[error("`smtp.{0}` must be more than zero, or no client could ever be in time, and at most 366 days")]
    Timeout(&'static str),
    /// A pause that no clock reaches.
    #[error("`smtp.{0}` must be at most 366 days")]
    Pause(&'static str),
    /// TLS is wanted, and there is nothing to do it with.
    #[error(
        "the mail listener on {0} has `tls`, and no certificate: set `smtp.tls_certificate_file` and `smtp.tls_key_file`, \
         or `tls = \"none\"`"
    )]
    NoCertificate(SocketAddress),
    /// Passwords would cross a network in the clear.
    #[error(
        "the listener for submission on {0} has no TLS, and is not for this machine only: nobody could log in; set \
         `smtp.tls_certificate_file` and `smtp.tls_key_file`"
    )]
    SubmissionInClear(SocketAddress),
    /// A user whose password is nowhere, or at several places.
    #[error(
        "the password of the `smtp.user` `{0}` comes from one of `password_file`, `password_command` and \
             `password_env`; set one of them"
    )]
    Password(String),
    /// Two users of one name, or one without.
    #[error("each `smtp.user` needs a name of its own; `{0}` is none")]
    UserName(String),
    /// A key, and nothing that it belongs to.
    #[error("`smtp.tls_key_file` is set, and `smtp.tls_certificate_file` is not; set both, or remove the key")]
    LonelyKey,
}
