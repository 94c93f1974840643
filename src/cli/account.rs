//! `postrider account`: passwords and logins that are stored in the data folder, and the key that seals them.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postrider::config::Loaded;
use postrider::event::AccountName;
use postrider::registry::{Account, Credentials, Field};
use postrider::source::imap::oauth::browser::BrowserLogin;
use postrider::source::imap::oauth::{Oauth, OauthError};
use postrider::source::imap::provider::Providers;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{CliError, Global, logging, print};

/// Arguments of `postrider account`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider account password alice\n  \
    pass show mail/alice | postrider account password alice\n  \
    postrider account login alice --open\n  \
    postrider account login alice --device\n\n\
    A server that is running sees what was stored when it tries the account again, or at once on SIGHUP.")]
pub struct AccountArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Lets postrider into a mailbox by OAuth 2.0, in a browser or on another device
    Login {
        /// The account, as the configuration calls it
        #[arg(value_parser = name)]
        account: AccountName,
        /// Shows a code to type on any other device, where the provider can do that
        #[arg(long)]
        device: bool,
        /// Opens the browser too, instead of only showing the address
        #[arg(long, conflicts_with = "device")]
        open: bool,
        /// The port of this machine that the browser comes back to [default: any free one]
        #[arg(long, value_name = "PORT", conflicts_with = "device")]
        port: Option<u16>,
    },
    /// Asks for an account's password, or reads its first line from a pipe, and stores it
    Password {
        /// The account, as the configuration calls it
        #[arg(value_parser = name)]
        account: AccountName,
    },
    /// Removes what is stored for an account
    Forget {
        /// The account; it need not be configured any more
        #[arg(value_parser = name)]
        account: AccountName,
    },
    /// Seals everything that is stored with a new key
    ///
    /// Where the key is postrider's own, a new one is made. Where it is yours (`[credentials] key_file` or
    /// `POSTRIDER_CREDENTIALS_KEY`), put the new one on a line in front of the old one before, and remove the old one
    /// after.
    Rekey,
}

fn name(text: &str) -> Result<AccountName, postrider::event::NameError> {
    AccountName::parse(text)
}

/// Does what is asked.
pub fn run(global: &Global, args: &AccountArgs) -> Result<ExitCode, CliError> {
    logging::start_quiet(global.verbose);
    let loaded = global.load()?;
    let data_dir = loaded.config.data_dir()?;
    let credentials = Credentials::new(&data_dir, &loaded.config.credentials);
    match &args.action {
        Action::Login { account, device, open, port } => {
            let way = if *device { Way::Device } else { Way::Browser { open: *open, port: port.unwrap_or(0) } };
            login(&loaded, &credentials, account, way)
        }
        Action::Password { account } => store_password(&loaded, &credentials, account),
        Action::Forget { account } => {
            let fields = [Field::Password, Field::RefreshToken];
            let removed = fields.map(|field| credentials.remove(account, field));
            let mut any = false;
            for removed in removed {
                any |= removed?;
            }
            print(if any { b"removed\n" } else { b"nothing was stored\n" })
        }
        Action::Rekey => {
            let done = credentials.rekey()?;
            let key = if done.is_new_key { "a new key" } else { "the first key" };
            print(format!("{} secrets are sealed with {key} in {}\n", done.secrets, done.key).as_bytes())
        }
    }
}

fn configured<'a>(loaded: &'a Loaded, name: &AccountName) -> Result<&'a Account, CliError> {
    let found = loaded.config.account.iter().find(|account| account.name == *name);
    found.ok_or_else(|| CliError::NoAccount(name.clone()))
}

fn store_password(loaded: &Loaded, credentials: &Credentials, name: &AccountName) -> Result<ExitCode, CliError> {
    let account = configured(loaded, name)?;
    let imap = account.imap.as_ref().ok_or_else(|| CliError::NoImap(name.clone()))?;
    let prompt = format!("Password of {} at {}: ", imap.username, imap.host);
    let password = if io::stdin().is_terminal() { super::password::ask_terminal(&prompt) } else { first_line() };
    let password = SecretString::from(password.map_err(CliError::Input)?);
    if secrecy::ExposeSecret::expose_secret(&password).is_empty() {
        return Err(CliError::Input(io::Error::new(io::ErrorKind::UnexpectedEof, "there was no password")));
    }
    credentials.write(name, Field::Password, &password)?;
    let mut text = format!("stored for {name}\n");
    let others = [
        ("password_file", imap.password_file.is_some()),
        ("password_env", imap.password_env.is_some()),
        ("password_command", imap.password_command.is_some()),
        ("access_token_command", imap.access_token_command.is_some()),
        ("[account.imap.oauth]", imap.oauth.is_some()),
    ];
    if let Some((key, _)) = others.iter().find(|(_, is_set)| *is_set) {
        text = text + "it is not used as long as the configuration has " + key + " for this account\n";
    }
    print(text.as_bytes())
}

fn first_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// How somebody logs in.
#[derive(Debug, Clone, Copy)]
enum Way {
    Browser { open: bool, port: u16 },
    Device,
}

fn login(loaded: &Loaded, credentials: &Credentials, name: &AccountName, way: Way) -> Result<ExitCode, CliError> {
    let imap = configured(loaded, name)?.imap.as_ref().ok_or_else(|| CliError::NoImap(name.clone()))?;
    let config = imap.oauth.as_ref().ok_or_else(|| CliError::NoOauth(name.clone()))?;
    // It was read when the configuration was checked.
    let providers = Providers::load(loaded.config.imap.providers_file.as_deref()).unwrap_or_default();
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(async {
        let oauth = Oauth::open(config, &providers).await?;
        let token = match way {
            Way::Device => on_device(&oauth).await?,
            Way::Browser { open, port } => in_browser(&oauth, &imap.username, open, port).await?,
        };
        oauth.store(&token, name, credentials).await?;
        print(format!("{name} may be read now; `postrider check` tries it\n").as_bytes())
    });
    // Somebody may still be expected to type an address: that would hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn on_device(oauth: &Oauth) -> Result<SecretString, CliError> {
    let login = oauth.begin_on_device().await?;
    let mut text = format!("Open {}\nand type the code  {}\n", shown(&login.address), shown(&login.user_code));
    if let Some(address) = &login.address_with_code {
        text = text + "or open " + &shown(address) + "\n";
    }
    print(text.as_bytes())?;
    Ok(login.finish().await?)
}

/// What a server said, for a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

async fn in_browser(oauth: &Oauth, username: &str, open: bool, port: u16) -> Result<SecretString, CliError> {
    let login = oauth.begin(port).await?;
    let url = login.url(username)?;
    print(format!("Open this address in a browser and agree:\n\n{url}\n\n").as_bytes())?;
    if open {
        open_browser(&url).await;
    }
    if !io::stdin().is_terminal() {
        return Ok(login.finish().await?);
    }
    print(b"If the browser is on another machine, it ends at a page that cannot be shown: paste its address here.\n")?;
    tokio::select! {
        finished = login.finish() => Ok(finished?),
        pasted = pasted(&login) => pasted,
    }
}

/// Takes addresses from the terminal until one is the right one.
async fn pasted(login: &BrowserLogin<'_>) -> Result<SecretString, CliError> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.map_err(CliError::Input)? {
        if line.trim().is_empty() {
            continue;
        }
        match login.finish_with(&line).await {
            Err(OauthError::Answer(why)) => drop(print(format!("{why}\n").as_bytes())?),
            finished => return Ok(finished?),
        }
    }
    // Nothing more will be typed; the browser may still come.
    std::future::pending().await
}

async fn open_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let opened = tokio::process::Command::new(program).arg(url).stdin(std::process::Stdio::null()).status().await;
    if !opened.is_ok_and(|status| status.success()) {
        tracing::warn!(program, "the browser could not be opened; open the address yourself");
    }
}
