//! `postrider sendmail`: what `/usr/sbin/sendmail` is to cron, monitoring and shell scripts.
//!
//! It hands its message to the `postrider run` of this machine, whose reply it waits for, so that an exit code of 0 means
//! that the event is on disk. There is no queue: who calls it hears at once what did not work, in the codes of
//! sysexits.h that sendmail's callers know.

mod arguments;
mod handover;
mod message;

use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use jiff::Zoned;
use postrider::config::Config;

use self::arguments::{Mode, Options, UsageError};
use self::handover::{HandoverError, Letter, Refusal, Why};
use self::message::{Message, Sender, addresses_of, qualified};
use super::{Cli, CliError, Global, print};

/// `EX_USAGE` of sysexits.h: the command line.
const EX_USAGE: u8 = 64;
/// `EX_DATAERR`: the message.
const EX_DATAERR: u8 = 65;
/// `EX_NOUSER`: a recipient.
const EX_NOUSER: u8 = 67;
/// `EX_UNAVAILABLE`: the server does not want the message.
const EX_UNAVAILABLE: u8 = 69;
/// `EX_IOERR`: standard input.
const EX_IOERR: u8 = 74;
/// `EX_TEMPFAIL`: the same may work later.
const EX_TEMPFAIL: u8 = 75;
/// `EX_CONFIG`: nobody listens, by configuration.
const EX_CONFIG: u8 = 78;

/// The domain of users while the configuration names none.
const LOCALHOST: &str = "localhost";

/// Arguments of `postrider sendmail`; read by [`Options`], as sendmail reads them.
#[derive(Debug, Clone, Args)]
#[command(after_help = "OPTIONS OF SENDMAIL\n  \
    -t             takes the recipients from To, Cc and Bcc, too; Bcc is removed in any case\n  \
    -i, -oi        a line with a dot alone is text; without it, the message ends there\n  \
    -f, -r ADDR    the envelope's sender ['' is the null sender; default: who runs it]\n  \
    -F NAME        the sender's name, for a message without From\n  \
    -v             shows the dialogue with the server\n  \
    -bp, -q, -bi   say that there is no queue, and no aliases file\n  \
    -B -N -R -V -O -o… -e… -X … are understood and change nothing; -bs and -bd are refused\n\n\
    EXAMPLES\n  \
    echo 'disk full' | postrider sendmail -F 'RAID monitor' ops\n  \
    postrider sendmail -t -i < message.eml\n  \
    ln -s \"$(command -v postrider)\" /usr/sbin/sendmail    # and cron, mail(1), mutt and git use it\n\n\
    The message goes to `postrider run` on this machine, to where the configuration has it listen. Addresses without a\n  \
    domain get the first of `smtp.local_domains`. Exit codes: 0 stored; 64 command line; 65 message; 67 a recipient was\n  \
    refused, or not reached, and the others have it; 69 refused; 75 nobody has it, try again; 78 configuration.")]
pub struct SendmailArgs {
    /// sendmail's options, and recipients
    #[arg(value_name = "OPTIONS AND RECIPIENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Why a message was not, or not to all, handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendmailError {
    /// The command line.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Standard input.
    #[error("cannot read the message from standard input")]
    Input(#[source] io::Error),
    /// The message is too large.
    #[error("the message has more than {0} bytes, the limit that `smtp.message_bytes_max` sets")]
    TooLarge(usize),
    /// An address cannot be one.
    #[error("`{0}` is not an address")]
    Address(String),
    /// The message names no recipients.
    #[error("the message names no recipients in To, Cc or Bcc, and none were given")]
    NoRecipients,
    /// Nothing listens.
    #[error("the configuration has nothing listen for mail: set `smtp.enabled = true`, or add a `[[smtp.listener]]`")]
    NoListener,
    /// The server.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// All recipients.
    #[error("{}", told(.0))]
    Refused(Vec<Refused>),
    /// Some of them.
    #[error("{}\npostrider: the others have it: {}", told(.refused), .delivered.join(", "))]
    RefusedForSome {
        /// Those who do not have it.
        refused: Vec<Refused>,
        /// Those who have it.
        delivered: Vec<String>,
    },
}

/// A recipient who does not get the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The server said so.
    ByServer(Refusal),
    /// It is a user's name, and there is no domain to add.
    NoDomain(String),
}

fn told(refused: &[Refused]) -> String {
    let lines: Vec<String> = refused
        .iter()
        .map(|refused| match refused {
            Refused::ByServer(refusal) => format!("{}: {}", refusal.recipient, refusal.why),
            Refused::NoDomain(name) => {
                format!("{name}: no domain; give one, or set `smtp.local_domains = [\"{LOCALHOST}\"]`")
            }
        })
        .collect();
    lines.join("\npostrider: ")
}

impl SendmailError {
    /// The code of sysexits.h that callers of sendmail know.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::NoRecipients => EX_USAGE,
            Self::Input(_) => EX_IOERR,
            Self::TooLarge(_) | Self::Address(_) => EX_DATAERR,
            Self::NoListener => EX_CONFIG,
            Self::Handover(HandoverError::Refused(reply)) if !reply.is_temporary() => EX_UNAVAILABLE,
            Self::Handover(_) => EX_TEMPFAIL,
            // Never that of a failure that is worth trying again: the caller would do so for all of them.
            Self::RefusedForSome { .. } => EX_NOUSER,
            Self::Refused(refused) => {
                let by_server = |is: fn(&Refusal) -> bool| {
                    refused.iter().any(|refused| matches!(refused, Refused::ByServer(refusal) if is(refusal)))
                };
                if by_server(|refusal| refusal.why.is_temporary()) {
                    EX_TEMPFAIL
                } else if by_server(|refusal| matches!(refusal.why, Why::Message(_))) {
                    EX_UNAVAILABLE
                } else {
                    EX_NOUSER
                }
            }
        }
    }
}

/// Finds out whether this process was called as sendmail, by a link of that name or as the command, and runs it. The
/// options behind that are not clap's: it knows neither `-oem` nor `-fada`.
pub(super) fn of_process(arguments: &[OsString]) -> Option<Result<ExitCode, CliError>> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name)?.to_str().unwrap_or_default();
    if matches!(name, "sendmail" | "mailq" | "newaliases" | "send-mail") {
        let global = Global { config: None, data_dir: None, verbose: 0 };
        return Some(run(&global, name, arguments.get(1..).unwrap_or_default()));
    }
    let at = arguments.iter().position(|argument| argument == "sendmail")?;
    let (own, rest) = arguments.split_at_checked(at.checked_add(1)?)?;
    let cli = <Cli as clap::Parser>::try_parse_from(own).ok()?;
    matches!(cli.command, super::Command::Sendmail(_)).then(|| run(&cli.global, "sendmail", rest))
}

/// The same where clap has read it all, which is to say with no arguments at all.
pub fn without_arguments(global: &Global, args: &SendmailArgs) -> Result<ExitCode, CliError> {
    let arguments: Vec<OsString> = args.arguments.iter().map(OsString::from).collect();
    run(global, "sendmail", &arguments)
}

fn run(global: &Global, name: &str, arguments: &[OsString]) -> Result<ExitCode, CliError> {
    let arguments: Option<Vec<String>> = arguments.iter().map(|one| one.to_str().map(str::to_owned)).collect();
    let arguments = arguments.ok_or(SendmailError::Usage(UsageError::NotText))?;
    let options = Options::parse(name, arguments).map_err(SendmailError::Usage)?;
    match options.mode {
        Mode::Deliver => {}
        Mode::ListQueue => return print(b"Mail queue is empty: postrider takes mail at once, or refuses it\n"),
        Mode::FlushQueue => return Ok(ExitCode::SUCCESS),
        Mode::Aliases => return print(b"There is no aliases file: accounts and addresses are in the configuration\n"),
        Mode::Help => return help(),
    }
    let global = Global {
        config: options.config.clone().or_else(|| global.config.clone()),
        data_dir: options.data_dir.clone().or_else(|| global.data_dir.clone()),
        verbose: global.verbose,
    };
    let config = global.load_for_sendmail()?;
    deliver(&config, &options, global.verbose > 0)?;
    Ok(ExitCode::SUCCESS)
}

fn help() -> Result<ExitCode, CliError> {
    let mut command = Cli::command();
    command.build();
    let help = command.find_subcommand_mut("sendmail").map(clap::Command::render_long_help);
    print(help.map(|help| help.to_string()).unwrap_or_default().as_bytes())
}

impl Global {
    /// The configuration; who is called as `sendmail` has no arguments of ours, but may have our variables.
    fn load_for_sendmail(&self) -> Result<Config, CliError> {
        let config = self.config.clone().or_else(|| std::env::var_os("POSTRIDER_CONFIG").map(Into::into));
        let global = Self { config, ..self.clone() };
        Ok(global.load()?.into_checked().0)
    }
}

fn deliver(config: &Config, options: &Options, verbose: bool) -> Result<(), CliError> {
    let doors = handover::doors(&config.smtp);
    if doors.is_empty() {
        return Err(SendmailError::NoListener.into());
    }
    let domain = local_domain(config);
    let input = read_input(options.dot_is_text, config.smtp.message_bytes_max.get())?;
    let message = Message::read(&input);
    let (recipients, mut refused) = recipients(&message, options, domain)?;
    let mut delivered = Vec::new();
    let own = format!("{}@{}", user_name(), domain.unwrap_or(LOCALHOST));
    let sender = match options.sender.as_deref() {
        None => own.clone(),
        Some("" | "<>") => String::new(),
        Some(given) => {
            let first = addresses_of(given.as_bytes()).into_iter().next();
            let first = first.and_then(|address| qualified(&address, domain.or(Some(LOCALHOST))));
            usable(first.ok_or_else(|| SendmailError::Address(given.to_owned()))?)?
        }
    };
    if !recipients.is_empty() {
        let from = if sender.is_empty() { &own } else { &sender };
        let domain = domain.unwrap_or(LOCALHOST);
        let from = Sender { address: from, name: options.full_name.as_deref(), domain };
        let message = message.complete(&from, &recipients, &Zoned::now());
        let letter = Letter { sender: &sender, recipients: &recipients, message: &message };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
        let handed_over = runtime.block_on(handover::hand_over(&doors, letter, verbose || options.verbose));
        let handed_over = handed_over.map_err(SendmailError::Handover)?;
        refused.extend(handed_over.refused.into_iter().map(Refused::ByServer));
        delivered = handed_over.delivered;
    }
    match (refused.is_empty(), delivered.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => Err(SendmailError::Refused(refused).into()),
        (false, false) => Err(SendmailError::RefusedForSome { refused, delivered }.into()),
    }
}

/// Those of the command line and, with `-t`, of the message, each once; and those that cannot be reached.
fn recipients(
    message: &Message,
    options: &Options,
    domain: Option<&str>,
) -> Result<(Vec<String>, Vec<Refused>), SendmailError> {
    let mut wanted = Vec::new();
    for given in &options.recipients {
        let found = addresses_of(given.as_bytes());
        if found.is_empty() {
            return Err(SendmailError::Address(given.clone()));
        }
        wanted.extend(found);
    }
    if options.read_recipients {
        wanted.extend(message.recipients());
    }
    if wanted.is_empty() {
        return Err(SendmailError::NoRecipients);
    }
    let (mut recipients, mut refused) = (Vec::new(), Vec::new());
    for address in wanted {
        match qualified(&address, domain) {
            Some(address) if recipients.contains(&address) => {}
            Some(address) => recipients.push(usable(address)?),
            None => refused.push(Refused::NoDomain(address)),
        }
    }
    Ok((recipients, refused))
}

/// Nothing that would end the command that the address stands in.
fn usable(address: String) -> Result<String, SendmailError> {
    let ends = |c: char| c.is_control() || matches!(c, '<' | '>');
    if address.contains(ends) { Err(SendmailError::Address(address.escape_debug().to_string())) } else { Ok(address) }
}

/// The domain in which users of this machine are accounts.
fn local_domain(config: &Config) -> Option<&str> {
    match &config.smtp.local_domains {
        Some(domains) => domains.first().map(String::as_str),
        None if config.account.is_empty() => Some(LOCALHOST),
        None => None,
    }
}

/// Reads up to the end, or to the line with a dot alone.
fn read_input(dot_is_text: bool, bytes_max: usize) -> Result<Vec<u8>, SendmailError> {
    let mut input = Vec::new();
    let mut stdin = io::stdin().lock().take(u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1));
    loop {
        let start = input.len();
        if stdin.read_until(b'\n', &mut input).map_err(SendmailError::Input)? == 0 {
            break;
        }
        if !dot_is_text && matches!(input.get(start..), Some(b"." | b".\n" | b".\r\n")) {
            input.truncate(start);
            break;
        }
    }
    if input.len() > bytes_max { Err(SendmailError::TooLarge(bytes_max)) } else { Ok(input) }
}

/// Who runs this: as cron and su say, else the owner of the process.
fn user_name() -> String {
    let variable = |name| std::env::var(name).ok().filter(|user| is_user_name(user));
    let by_id = || {
        let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let user = users.lines().find(|user| user.split(':').nth(2) == Some(&id))?;
        user.split(':').next().filter(|user| is_user_name(user)).map(str::to_owned)
    };
    variable("LOGNAME").or_else(|| variable("USER")).or_else(by_id).unwrap_or_else(|| "nobody".to_owned())
}

/// What can stand before an `@` as it is.
fn is_user_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !text.starts_with('.')
}
