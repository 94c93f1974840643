//! The configuration: one file, overridden by environment variables, checked as a whole before anything starts.
//!
//! Each module owns its section; this one gathers them and knows nothing of what they mean. What keys there are is
//! found by serialising [`Config::example`], so that a new section needs one line in [`Config`] and, if it has
//! contradictions to find, one in [`Config::check`]. Everything that is wrong is reported at once, each with its
//! place. By convention, keys that end in `_file` or `_dir` hold paths, which in the file are relative to the file.

mod check;
mod document;
mod environment;
mod idle;
mod log;
mod places;
mod schema;
mod shutdown;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::attachments::AttachmentsConfig;
use crate::auth::{AuthConfig, IssuerConfig};
use crate::event_log::EventLogConfig;
use crate::http::HttpConfig;
use crate::hub::HubConfig;
use crate::registry::{Account, CredentialsConfig, ImapEndpoint, JmapEndpoint, OauthConfig};
use crate::source::dovecot_push::DovecotConfig;
use crate::source::forward::ForwardConfig;
use crate::source::imap::ImapConfig;
use crate::source::intake::RouteConfig;
use crate::source::jmap::JmapConfig;
use crate::source::mail_over_http::MailOverHttpConfig;
use crate::source::smtp::{ListenerConfig, SmtpConfig, UserConfig};
use crate::transport::{MercureConfig, StreamConfig};

pub(crate) use check::{DURATION_MAX, is_loopback};
pub use log::{LogConfig, LogFormat};
pub use places::{Place, Places, Problem, Problems};
pub use shutdown::ShutdownConfig;

/// Everything that can be configured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder for the event log, the token key and all else that must last. Default: `postrider` in the
    /// platform's state folder; see [`Config::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The SMTP receiver.
    pub smtp: SmtpConfig,
    /// How mailboxes are watched.
    pub imap: ImapConfig,
    /// How JMAP accounts are watched.
    pub jmap: JmapConfig,
    /// What Dovecot pushes.
    pub dovecot: DovecotConfig,
    /// Attachments that are kept.
    pub attachments: AttachmentsConfig,
    /// Mail that comes by HTTP.
    pub mail_over_http: MailOverHttpConfig,
    /// What passwords and tokens in the data folder are sealed with.
    pub credentials: CredentialsConfig,
    /// Tokens and where they may come from.
    pub auth: AuthConfig,
    /// Subscribers.
    pub hub: HubConfig,
    /// The hub under the Mercure protocol.
    pub mercure: MercureConfig,
    /// Streams and polls.
    pub stream: StreamConfig,
    /// How long events are kept.
    pub event_log: EventLogConfig,
    /// Diagnostics.
    pub log: LogConfig,
    /// Stopping.
    pub shutdown: ShutdownConfig,
    /// Whose mail it is, one `[[account]]` each. Default: none.
    pub account: Vec<Account>,
}

/// Why there is no configuration to start with. Exit code 78.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {0}")]
    Read(PathBuf, #[source] io::Error),
    /// It says something wrong, or what it and the environment say does not fit together.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// Nobody says where data goes, and the platform does not either.
    #[error("no folder for data: set `data_dir`, --data-dir or POSTRIDER_DATA_DIR (there is no home folder either)")]
    NoDataDir,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file; without one, [`Source::SYSTEM_FILE`] if it is there.
    pub file: Option<PathBuf>,
    /// The environment; only variables that begin with `POSTRIDER_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
}

/// A configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is configured.
    pub config: Config,
    /// The file that it came from, if any.
    pub file: Option<PathBuf>,
    places: Places,
}

impl Source {
    /// What is read when no file was named.
    pub const SYSTEM_FILE: &'static str = "/etc/postrider/postrider.toml";

    /// The named file and this process's environment.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self { file, environment: std::env::vars_os().collect() }
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`ConfigError::Read`] and [`ConfigError::Invalid`], which tells everything that is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let system = || Some(PathBuf::from(Self::SYSTEM_FILE)).filter(|path| path.exists());
        let file = self.file.clone().or_else(system);
        let text = match &file {
            Some(path) => std::fs::read_to_string(path).map_err(|err| ConfigError::Read(path.clone(), err))?,
            None => String::new(),
        };
        let (config, places) = document::read(file.as_deref(), &text, &self.environment)?;
        let loaded = Loaded { config, file, places };
        loaded.check()?;
        Ok(loaded)
    }
}

impl Loaded {
    /// The configuration and its file, once nothing is to be found in it any more: where each key was written takes
    /// more memory than what it says.
    pub fn into_checked(self) -> (Config, Option<PathBuf>) {
        (self.config, self.file)
    }

    /// Checks what the types cannot say; to be asked again after the command line has changed the configuration.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], which tells everything that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        Ok(Problems::none_or(check::check(&self.config, &self.places))?)
    }

    /// Settings that were made and do nothing, each with what to do. They refuse no start.
    pub fn idle(&self) -> Vec<Problem> {
        idle::idle(&self.config, &self.places)
    }
}

impl Config {
    /// The folder for everything that must last: the configured one, else `postrider` in the platform's state folder.
    ///
    /// # Errors
    /// [`ConfigError::NoDataDir`].
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let platform = || Some(dirs::state_dir().or_else(dirs::data_local_dir)?.join("postrider"));
        self.data_dir.clone().or_else(platform).ok_or(ConfigError::NoDataDir)
    }

    /// The default with one of everything that there may be several of, so that it has all keys.
    fn example() -> Self {
        #[expect(clippy::expect_used, reason = "a constant that a test reads")]
        let name: crate::event::AccountName = "alice".parse().expect("`alice` is a name");
        let oauth = Some(OauthConfig::new("google", "123.apps.googleusercontent.com").into());
        let imap = ImapEndpoint { oauth, ..ImapEndpoint::new("imap.example.org", "alice") };
        let jmap = JmapEndpoint::new("jmap.example.org");
        let account = Account { imap: Some(imap.into()), jmap: Some(jmap.into()), ..Account::new(name.clone()) };
        let forward = Some(ForwardConfig::new("smtp.example.org"));
        let listener = vec![ListenerConfig::lmtp("/run/postrider/lmtp")];
        let route = vec![RouteConfig::matching("alerts-*@example.org", name)];
        let user = vec![UserConfig { name: "printer".to_owned(), ..UserConfig::default() }];
        let smtp = SmtpConfig { user, route, listener, forward, ..SmtpConfig::default() };
        let auth = AuthConfig { issuer: vec![IssuerConfig::default()], ..AuthConfig::default() };
        Self { account: vec![account], smtp, auth, ..Self::default() }
    }
}

/// Makes a path of the file absolute: relative ones start at the file's folder, `~/` at the home folder.
fn from_folder(folder: &Path, path: &str) -> PathBuf {
    match path.strip_prefix("~/").zip(dirs::home_dir()) {
        Some((rest, home)) => home.join(rest),
        None => folder.join(path),
    }
}

#[cfg(test)]
mod tests;
