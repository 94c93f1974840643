//! `postrider run`: the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use postrider::config::Loaded;

use super::password::{self, PasswordArgs};
use super::{CliError, Global, imap_url, logging};

/// Arguments of `postrider run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider run\n  \
    postrider run --imap imaps://you@imap.example.org\n  \
    postrider run --imap imaps://you@imap.example.org/Lists \\\n      \
      --imap-password-command 'pass show mail'\n  \
    postrider run --http 0.0.0.0:8025 --smtp off --config ./postrider.toml\n\n\
    Without any account, mail to any local part at localhost is taken by SMTP from this machine: the account is the \
    local part, the mailbox is INBOX. Ctrl-C or SIGTERM stops, SIGHUP reads the configuration again.")]
pub struct RunArgs {
    /// Where HTTP is served [default: 127.0.0.1:8025]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// Where mail is received, or `off` [default: 127.0.0.1:2525]
    #[arg(long, value_name = "ADDR:PORT|off")]
    pub smtp: Option<SmtpAddress>,
    /// Watches a mailbox, `imaps://you@host[:port][/mailbox]`; may be given several times
    ///
    /// `imaps` is TLS from the first byte, `imap` is STARTTLS, `imap+plain` is no encryption and for servers on this
    /// machine only. The account is called as the user. The password is asked for on the terminal unless the
    /// environment variable `POSTRIDER_IMAP_PASSWORD` or one of the options below gives it; it must not be in the URL.
    #[arg(long, value_name = "URL")]
    pub imap: Vec<String>,
    /// A file whose first line is the password for --imap
    #[arg(long, value_name = "FILE", requires = "imap", conflicts_with = "imap_password_command")]
    pub imap_password_file: Option<PathBuf>,
    /// A shell command that prints the password for --imap on its first line
    #[arg(long, value_name = "COMMAND", requires = "imap")]
    pub imap_password_command: Option<String>,
}

/// What `--smtp` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpAddress {
    /// No mail is received.
    Off,
    /// Mail is received here.
    At(SocketAddr),
}

impl FromStr for SmtpAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| "expected an address and a port, as 127.0.0.1:2525, or `off`")
    }
}

/// Everything that the server needs to start, checked.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration with the command line's accounts and data folder in it.
    pub loaded: Loaded,
    /// The data folder; it may not be there yet.
    pub data_dir: PathBuf,
}

/// Runs the server until it is told to stop.
pub fn run(global: &Global, args: &RunArgs) -> Result<ExitCode, CliError> {
    let prepared = prepare(global, args)?;
    logging::start(&prepared.loaded.config.log, global.verbose);
    serve(&prepared)
}

/// Reads the configuration, puts the command line over it and asks for passwords.
pub fn prepare(global: &Global, args: &RunArgs) -> Result<Prepared, CliError> {
    let mut loaded = global.load()?;
    let mut accounts = imap_url::parse_all(&args.imap)?;
    let passwords = PasswordArgs { file: args.imap_password_file.clone(), command: args.imap_password_command.clone() };
    // Nobody should type a password only to learn that something else is wrong: that was checked before.
    password::provide(&mut accounts, &passwords, password::variable_is_set(), password::ask_terminal)?;
    loaded.config.account.append(&mut accounts);
    loaded.check()?;
    let data_dir = loaded.config.data_dir()?;
    Ok(Prepared { loaded, data_dir })
}

/// Starts all parts and waits for the end.
fn serve(prepared: &Prepared) -> Result<ExitCode, CliError> {
    tracing::debug!(data_dir = %prepared.data_dir.display(), accounts = prepared.loaded.config.account.len(), "prepared");
    Err(CliError::Unwired("run"))
}
