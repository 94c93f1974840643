//! Why a command failed, and with which exit code.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use postrider::auth::KeyError;
use postrider::config::ConfigError;
use postrider::event::AccountName;
use postrider::event_log::OpenError;
use postrider::registry::CredentialsError;
use postrider::server::StartError;
use postrider::source::imap::oauth::OauthError;

use super::imap_url::ImapUrlError;
use super::sendmail::SendmailError;

/// `EX_CONFIG` of sysexits.h: what the operator wrote must change; starting again will not help.
pub const EX_CONFIG: u8 = 78;
/// `EX_UNAVAILABLE`: something else must come up first.
const EX_UNAVAILABLE: u8 = 69;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--imap` is not a mailbox.
    #[error("--imap: {0}")]
    ImapUrl(#[from] ImapUrlError),
    /// Several accounts, one password.
    #[error(
        "several --imap accounts would share one password, and each server would learn that of the others; give each \
         account its own `[account.imap]` in a configuration file, or leave the password out to be asked for each"
    )]
    SharedPassword,
    /// There is nobody to ask for a password.
    #[error(
        "no password for {user} at {host}, and no terminal to ask on; set POSTRIDER_IMAP_PASSWORD, --imap-password-file \
         or --imap-password-command"
    )]
    NoPassword {
        /// The user name at the server.
        user: String,
        /// The server.
        host: String,
        /// Why the terminal gave none.
        source: io::Error,
    },
    /// The account is not there.
    #[error("there is no account `{0}` in the configuration; check its name, or give the file with --config")]
    NoAccount(AccountName),
    /// The account has no IMAP server.
    #[error("account `{0}` has no [account.imap], so that there is nothing to log in to")]
    NoImap(AccountName),
    /// The account has no OAuth.
    #[error("account `{0}` has no [account.imap.oauth] with `provider` and `client_id`; see config/postrider.toml")]
    NoOauth(AccountName),
    /// There was no login.
    #[error(transparent)]
    Oauth(#[from] OauthError),
    /// Nothing could be stored.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The token key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A token that would allow nothing.
    #[error("the token would allow nothing; give --subscribe, --publish, --account or --admin")]
    NoRights,
    /// The token's file cannot be read.
    #[error("cannot read the token file {0}")]
    TokenFile(PathBuf, #[source] io::Error),
    /// The token cannot be sent.
    #[error("the token given is not a token; give it as `postrider token` printed it")]
    NotAToken,
    /// There is no token for a server that is not this machine's.
    #[error(
        "no token for {0}: give --token-file or POSTRIDER_TOKEN; the data folder's key is used for servers on this \
         machine only"
    )]
    NoToken(String),
    /// There is no token, since the key cannot be used.
    #[error("no token: give --token-file or POSTRIDER_TOKEN, or let the data folder's key be used")]
    NoKey(#[source] KeyError),
    /// `--url` is not the address of a server.
    #[error("--url: {0}")]
    Url(&'static str),
    /// `--json` is not JSON.
    #[error("--json: not JSON")]
    Json(#[source] serde_json::Error),
    /// Standard input could not be read.
    #[error("cannot read the data from standard input")]
    Input(#[source] io::Error),
    /// The server did not answer.
    #[error("no answer from {0}; is `postrider run` running there?")]
    Unreachable(String, #[source] reqwest::Error),
    /// The server said no.
    #[error("{url} answered {status}: {detail}")]
    Refused {
        /// The server.
        url: String,
        /// The HTTP status.
        status: reqwest::StatusCode,
        /// What it said, without control characters.
        detail: String,
    },
    /// The server answered with something else than was asked for.
    #[error("{0} gave an answer that is not postrider's; is that the right --url?")]
    Answer(String),
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The runtime could not start.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// Signals could not be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The server could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A message was not handed over, or not to all.
    #[error(transparent)]
    Sendmail(#[from] SendmailError),
    /// What was checked does not all work.
    #[error("{0} of the configured parts do not work, see above")]
    Check(usize),
    /// The demo could not send its mail.
    #[error("the demo could not send itself a mail")]
    DemoMail(#[source] lettre::transport::smtp::Error),
    /// The demo could not make its folder or its mail.
    #[error("the demo could not be set up: {0}")]
    Demo(String),
}

impl CliError {
    /// The exit code that stands for it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Sendmail(err) => err.exit_code(),
            Self::Config(_)
            | Self::ImapUrl(_)
            | Self::SharedPassword
            | Self::NoPassword { .. }
            | Self::NoAccount(_)
            | Self::NoImap(_)
            | Self::NoOauth(_)
            | Self::Credentials(CredentialsError::Key(..))
            | Self::Key(_)
            | Self::NoRights
            | Self::TokenFile(..)
            | Self::NotAToken
            | Self::NoToken(_)
            | Self::NoKey(_)
            | Self::Url(_)
            | Self::Json(_)
            | Self::Start(
                StartError::Key(_)
                | StartError::Routing(_)
                | StartError::Tls(_)
                | StartError::User(_)
                | StartError::Resolver(_)
                | StartError::DovecotSecret(_)
                | StartError::MailOverHttp(_)
                | StartError::Attachments(..)
                | StartError::EventLog(OpenError::Folder(..)),
            ) => EX_CONFIG,
            // What is taken may be free later, once the other process has ended.
            Self::Start(
                StartError::Listen { .. } | StartError::UnixSocket { .. } | StartError::EventLog(OpenError::InUse(_)),
            )
            | Self::Unreachable(..)
            | Self::Oauth(OauthError::Temporary(_))
            | Self::Check(_) => EX_UNAVAILABLE,
            Self::Refused { status, .. } if status.is_server_error() => EX_UNAVAILABLE,
            _ => 1,
        })
    }
}
