//! `postrider check`: tries every configured part and says what it found.

mod mailboxes;
mod places;
mod receiver;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use postrider::auth::{Issuer, IssuerConfig};
use postrider::config::Config;
use postrider::event_log::{EventLog, OpenError};
use postrider::registry::{Account, Credentials, ImapEndpoint};
use postrider::source::imap::{self, ImapConfig};
use postrider::source::jmap;

use self::mailboxes::Found;
use super::{CliError, Global, logging, print};

/// Arguments of `postrider check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider check\n  \
    postrider check --config ./postrider.toml\n\n\
    Ends with 0 when everything works, 78 when the configuration is wrong, 69 when a server does not answer.")]
pub struct CheckArgs {}

/// Tries every part; what does not work is told with the others, not instead of them.
pub fn run(global: &Global, _args: &CheckArgs) -> Result<ExitCode, CliError> {
    logging::start_quiet(global.verbose);
    let loaded = global.load()?;
    let config = &loaded.config;
    let data_dir = config.data_dir()?;
    let file = loaded.file.as_ref().map_or("none, all defaults".to_owned(), |file| file.display().to_string());
    let mut findings = Findings::default();
    findings.tell("configuration", Ok(format!("fine ({file})")))?;
    loaded.idle().iter().try_for_each(|idle| findings.note(&idle.to_string()))?;
    findings.tell("data folder", data_folder(&data_dir, config))?;
    super::runtime()?.block_on(async {
        findings.tell("HTTP", places::port(config.http.listen).await)?;
        receiver::check(config, &data_dir, &mut findings).await?;
        for issuer in &config.auth.issuer {
            findings.tell("tokens", issuer_of_tokens(issuer).await)?;
        }
        let credentials = Credentials::new(&data_dir, &config.credentials);
        for account in &config.account {
            if let Some(endpoint) = &account.imap {
                imap_account(account, endpoint, &config.imap, credentials.clone(), &mut findings).await?;
            }
            jmap_account(account, config, &mut findings).await?;
        }
        Ok::<_, CliError>(())
    })?;
    if findings.wrong > 0 { Err(CliError::Check(findings.wrong)) } else { Ok(ExitCode::SUCCESS) }
}

/// Tells each finding as it comes, and counts.
#[derive(Debug, Default)]
struct Findings {
    /// Parts that do not work.
    wrong: usize,
}

impl Findings {
    /// Says how one part is.
    fn tell(&mut self, part: &str, found: Result<String, String>) -> Result<(), CliError> {
        self.wrong += usize::from(found.is_err());
        say(part, &found.unwrap_or_else(|wrong| format!("WRONG: {wrong}")))
    }

    /// Says more of the part that was told last.
    fn detail(&mut self, found: Result<String, String>) -> Result<(), CliError> {
        self.tell("", found)
    }

    /// Says what works and might not be meant.
    #[expect(clippy::unused_self, reason = "all that is told goes through here")]
    fn note(&self, text: &str) -> Result<(), CliError> {
        heading("note", text)
    }
}

/// Whether the event log can be opened: another process that has it is fine, it may be the server itself.
fn data_folder(folder: &Path, config: &Config) -> Result<String, String> {
    match EventLog::open(folder, &config.event_log) {
        Ok(_) => Ok(format!("{} can be used", folder.display())),
        Err(OpenError::InUse(_)) => Ok(format!("{} is in use, postrider is running", folder.display())),
        Err(err) => Err(told(err)),
    }
}

/// Whether there is something to verify an issuer's tokens with.
async fn issuer_of_tokens(config: &IssuerConfig) -> Result<String, String> {
    let issuer = Issuer::load(config).await.map_err(told)?;
    issuer.try_fetch().await.map_err(told)?;
    Ok(format!("the keys of {} were read", config.name()))
}

/// Tries an account's mailboxes, and explains what it found.
async fn imap_account(
    account: &Account,
    endpoint: &ImapEndpoint,
    config: &ImapConfig,
    credentials: Credentials,
    findings: &mut Findings,
) -> Result<(), CliError> {
    let part = format!("account {}", account.name);
    let found = match imap::probe_account(&account.name, endpoint, config, Some(credentials)).await {
        Ok(found) => found,
        Err(err) => return findings.tell(&part, Err(told(err))),
    };
    let found = Found { endpoint, config, report: &found, inotify_instances: mailboxes::inotify_instances() };
    findings.tell(&part, found.summary())?;
    found.details().into_iter().try_for_each(|(name, text)| heading(name, &text))
}

/// The same for one that a JMAP server has.
async fn jmap_account(account: &Account, config: &Config, findings: &mut Findings) -> Result<(), CliError> {
    let found = match jmap::probe(account, &config.jmap).await {
        Ok(None) => return Ok(()),
        Ok(Some(found)) if found.missing.is_empty() => {
            let push = if found.has_event_stream {
                "new mail is known at once (event stream)".to_owned()
            } else {
                format!("no event stream, new mail is asked for every {} s", config.jmap.poll_interval.as_secs())
            };
            Ok(format!("logged in (JMAP), {} mailboxes, {push}", found.mailboxes.len()))
        }
        Ok(Some(found)) => {
            Err(format!("logged in, but there is no mailbox {:?}; there are {:?}", found.missing, found.mailboxes))
        }
        Err(err) => Err(err.reason()),
    };
    findings.tell(&format!("account {}", account.name), found)
}

/// An error with its causes on one line.
fn told(err: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(err))
}

fn heading(name: &str, text: &str) -> Result<(), CliError> {
    say("", &format!("{name:<9}{text}"))
}

fn say(part: &str, text: &str) -> Result<(), CliError> {
    print(format!("{part:<15}{text}\n").as_bytes()).map(drop)
}
