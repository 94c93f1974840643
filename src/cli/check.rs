//! `postrider check`: tries every configured part and says what it found.

mod mailboxes;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use postrider::config::Config;
use postrider::event::AccountName;
use postrider::event_log::{EventLog, OpenError};
use postrider::registry::{Account, Credentials, ImapEndpoint};
use postrider::source::forward;
use postrider::source::imap::{self, ImapConfig};
use postrider::source::smtp::SocketAddress;
use tokio::net::TcpListener;

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
    let data_dir = loaded.config.data_dir()?;
    let file = loaded.file.as_ref().map_or("none, all defaults".to_owned(), |file| file.display().to_string());
    say("configuration", &format!("fine ({file})"))?;
    let mut failed = 0;
    failed += usize::from(!report("data folder", data_folder(&data_dir, &loaded.config))?);
    super::runtime()?.block_on(async {
        failed += usize::from(!report("HTTP", port(loaded.config.http.listen).await)?);
        for listener in loaded.config.smtp.listeners() {
            let found = match &listener.listen {
                SocketAddress::Tcp(address) => port(*address).await,
                SocketAddress::Unix(path) => unix_socket(path),
            };
            failed += usize::from(!report(listener.role.name(), found)?);
            if let Some(files) = &listener.tls_files {
                failed += usize::from(!report("", files.explain(&loaded.config.smtp.announced_name()))?);
            }
        }
        if let Some(config) = &loaded.config.smtp.forward {
            let found = forward::probe(config, &loaded.config.smtp.announced_name()).await.map_err(told);
            failed += usize::from(!report("smart host", found)?);
        }
        let credentials = Credentials::new(&data_dir, &loaded.config.credentials);
        for Account { name, imap, .. } in &loaded.config.account {
            if let Some(endpoint) = imap {
                failed += usize::from(!account(name, endpoint, &loaded.config.imap, credentials.clone()).await?);
            }
        }
        Ok::<_, CliError>(())
    })?;
    if failed > 0 { Err(CliError::Check(failed)) } else { Ok(ExitCode::SUCCESS) }
}

/// Whether the event log can be opened: another process that has it is fine, it may be the server itself.
fn data_folder(folder: &Path, config: &Config) -> Result<String, String> {
    match EventLog::open(folder, &config.event_log) {
        Ok(_) => Ok(format!("{} can be used", folder.display())),
        Err(OpenError::InUse(_)) => Ok(format!("{} is in use, postrider is running", folder.display())),
        Err(err) => Err(told(err)),
    }
}

async fn port(address: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} is free")),
        Err(err) if err.kind() == ErrorKind::AddrInUse => {
            Ok(format!("{address} is in use: fine if postrider is running, else choose another"))
        }
        Err(err) => Err(format!("cannot listen on {address}: {err}")),
    }
}

fn unix_socket(path: &Path) -> Result<String, String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Whether postrider may write there is known for sure only when it tries.
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() && !found.permissions().readonly() => Ok(format!("{} can be made", path.display())),
        Ok(_) => Err(format!("{} is no folder in which {} could be made", folder.display(), path.display())),
        Err(err) => Err(format!("there is no folder {} for the socket: {err}", folder.display())),
    }
}

/// Tries an account's mailboxes, and explains what it found; false if they cannot be watched.
async fn account(
    name: &AccountName,
    endpoint: &ImapEndpoint,
    config: &ImapConfig,
    credentials: Credentials,
) -> Result<bool, CliError> {
    let part = format!("account {name}");
    let found = match imap::probe_account(name, endpoint, config, Some(credentials)).await {
        Ok(found) => found,
        Err(err) => return report(&part, Err(told(err))),
    };
    let found = Found { endpoint, config, report: &found, inotify_instances: mailboxes::inotify_instances() };
    let works = report(&part, found.summary())?;
    for (heading, text) in found.details() {
        say("", &format!("{heading:<9}{text}"))?;
    }
    Ok(works)
}

/// An error with its causes on one line.
fn told(err: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(err))
}

/// Says how one part is; false if it does not work.
fn report(part: &str, found: Result<String, String>) -> Result<bool, CliError> {
    let works = found.is_ok();
    let text = found.unwrap_or_else(|wrong| format!("WRONG: {wrong}"));
    say(part, &text)?;
    Ok(works)
}

fn say(part: &str, text: &str) -> Result<(), CliError> {
    print(format!("{part:<15}{text}\n").as_bytes()).map(drop)
}
