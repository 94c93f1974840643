//! `postrider run`: the server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use postrider::config::{Config, Loaded};
use postrider::registry::Account;
use postrider::server::Server;

use super::logging::Filter;
use super::password::{self, PasswordArgs};
use super::signals::Signals;
use super::{CliError, Global, imap_url, logging};

/// Arguments of `postrider run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider run\n  \
    postrider run --imap imaps://you@imap.example.org\n  \
    postrider run --imap imaps://you@imap.example.org/Lists \\\n      \
      --imap-password-command 'pass show mail'\n  \
    postrider run --http 0.0.0.0:8025 --smtp off --config ./postrider.toml\n\n\
    Without any account, mail to any local part at localhost is taken from this machine: the account is the \
    local part, the mailbox is INBOX. Ctrl-C or SIGTERM stops, SIGHUP reads the configuration again.")]
pub struct RunArgs {
    /// Where HTTP is served [default: 127.0.0.1:8025]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// Where mail is received, or `off` [default: 127.0.0.1:2525]
    #[arg(long, value_name = "ADDR:PORT|off")]
    pub smtp: Option<SmtpAddress>,
    /// Watches a mailbox, `imaps://you@host[:port][/mailbox]`, or `you@domain` of a known provider; may be given several
    /// times
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

/// Runs the server until it is told to stop.
pub fn run(global: &Global, args: &RunArgs) -> Result<ExitCode, CliError> {
    let loaded = prepare(global, args)?;
    let filter = logging::start(&loaded.config.log, global.verbose);
    let typed = loaded.config.account.iter().filter(|account| account.is_typed()).cloned().collect();
    let reloader = Reloader { global: global.clone(), args: args.clone(), typed, filter };
    super::runtime()?.block_on(async move {
        // Before anything is open: who stops it now must not leave it running.
        let signals = Signals::listen()?;
        let data_dir = loaded.config.data_dir()?;
        let (config, file) = loaded.into_checked();
        let sources = sources(&config);
        let server = Server::open(config, &data_dir).await?;
        super::print(banner(&server, &sources, file.as_deref(), &data_dir).as_bytes())?;
        Ok(signals.run(server, || reloader.load()).await)
    })
}

/// Reads the configuration, puts the command line over it and asks for passwords.
fn prepare(global: &Global, args: &RunArgs) -> Result<Loaded, CliError> {
    let mut loaded = load(global, args)?;
    let mut accounts = imap_url::parse_all(&args.imap)?;
    let passwords = PasswordArgs { file: args.imap_password_file.clone(), command: args.imap_password_command.clone() };
    // Nobody should type a password only to learn that something else is wrong: that was checked before.
    password::provide(&mut accounts, &passwords, password::variable_is_set(), password::ask_terminal)?;
    loaded.config.account.append(&mut accounts);
    loaded.check()?;
    Ok(loaded)
}

/// File and environment, with the command line's addresses over them.
fn load(global: &Global, args: &RunArgs) -> Result<Loaded, CliError> {
    let mut loaded = global.load()?;
    let config = &mut loaded.config;
    config.http.listen = args.http.unwrap_or(config.http.listen);
    match args.smtp {
        Some(SmtpAddress::Off) => config.smtp.enabled = false,
        Some(SmtpAddress::At(address)) => (config.smtp.enabled, config.smtp.listen) = (true, address),
        None => {}
    }
    Ok(loaded)
}

/// Reads the configuration again, without asking for a password again.
struct Reloader {
    global: Global,
    args: RunArgs,
    /// The accounts of `--imap`.
    typed: Vec<Account>,
    filter: Filter,
}

impl Reloader {
    fn load(&self) -> Option<Config> {
        let loaded = load(&self.global, &self.args).and_then(|mut loaded| {
            loaded.config.account.extend(self.typed.iter().cloned());
            loaded.check()?;
            Ok(loaded.config)
        });
        match loaded {
            Ok(config) => {
                self.filter.reload(&config.log);
                Some(config)
            }
            Err(err) => {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::from(err)),
                    "configuration not reloaded, going on as before"
                );
                None
            }
        }
    }
}

/// What is on, for whoever started it.
fn banner(server: &Server, sources: &str, file: Option<&Path>, data_dir: &Path) -> String {
    let smtp = match server.smtp_address() {
        Some(address) => address.to_string(),
        None => "off".to_owned(),
    };
    let file = file.map_or("none; everything has its default".to_owned(), |f| f.display().to_string());
    let mut text = format!(
        "postrider {}\n  HTTP      http://{}\n  SMTP      {smtp}\n  data      {}\n  settings  {file}\n",
        env!("CARGO_PKG_VERSION"),
        server.http_address(),
        data_dir.display(),
    );
    text.extend(server.smtp_listeners().map(|(role, place)| format!("  {:<9} {place}\n", role.name())));
    text.push_str(sources);
    text.push_str("\nSign in, within an hour (`postrider token` makes tokens for programs):\n  ");
    text.push_str(&server.sign_in_link());
    text.push('\n');
    text
}

/// Where mail comes from.
fn sources(config: &Config) -> String {
    let mut text = String::new();
    for account in &config.account {
        let name = &account.name;
        let way = match (&account.imap, &account.jmap) {
            (Some(imap), _) => format!("{} at {} ({})", imap.mailboxes.join(", "), imap.host, imap.security),
            (None, Some(jmap)) => format!("JMAP at {}", jmap.url),
            (None, None) => "mail that is sent to postrider".to_owned(),
        };
        text.extend(["  account   ", name.as_str(), ": ", &way, "\n"]);
    }
    if config.account.is_empty() {
        text.push_str("  accounts  none; mail to anyone@localhost is taken from this machine\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use postrider::registry::{ImapEndpoint, JmapEndpoint};

    use super::*;

    #[test]
    fn each_account_is_told_with_its_way() {
        let account = |name: &str| Account::new(name.parse().unwrap());
        let imap = Account { imap: Some(ImapEndpoint::new("i.example", "u").into()), ..account("a") };
        let jmap = Account { jmap: Some(JmapEndpoint::new("j.example").into()), ..account("b") };
        let told = sources(&Config { account: vec![imap, jmap, account("c")], ..Config::default() });
        let lines: Vec<_> = told.lines().map(str::trim).collect();
        assert_eq!(lines[0], "account   a: INBOX at i.example (TLS)");
        assert_eq!(lines[1..], ["account   b: JMAP at j.example", "account   c: mail that is sent to postrider"]);
    }
}
