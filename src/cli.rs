//! The commands: what they take, what they print and how they end. The only place that knows everything.
//!
//! Each command's module has its arguments and what it does; what several need (configuration, logging, the client)
//! lies beside them.

mod account;
mod check;
mod client;
mod demo;
mod error;
mod imap_url;
mod logging;
mod password;
mod publish;
mod run;
mod sendmail;
mod settings;
mod signals;
mod token;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub use error::CliError;

/// Turns new mail into push: watches IMAP mailboxes or receives mail by SMTP, and tells browsers, scripts and programs
/// within milliseconds, over SSE, WebSocket, streams and polling.
#[derive(Debug, Parser)]
#[command(
    name = "postrider",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    after_help = "EXAMPLES\n  \
        postrider demo                  look at it with mail that it sends itself\n  \
        postrider run                   HTTP on 127.0.0.1:8025, SMTP on 127.0.0.1:2525\n  \
        postrider run --imap imaps://you@imap.example.org\n  \
        postrider watch                 what happens, one line per event\n\n\
        EXIT CODES\n  \
        0 fine; 78 wrong configuration or arguments; 69 a needed service is unavailable;\n  \
        130 interrupted; 1 other"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The heading of the options that every command takes, so that a command's own come first.
const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// The configuration file [default: /etc/postrider/postrider.toml if it is there]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE", env = "POSTRIDER_CONFIG")]
    config: Option<PathBuf>,
    /// The folder for the event log, the token key and all else that must last [default: postrider in the platform's
    /// state folder]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FOLDER", env = "POSTRIDER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Says more on standard error; twice says everything
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server
    Run(run::RunArgs),
    /// Tries every configured part and says what it found
    Check(check::CheckArgs),
    /// Stores passwords and logs in by OAuth 2.0
    Account(account::AccountArgs),
    /// Prints what happens: a line per event in a terminal, JSON lines into a pipe
    Watch(watch::WatchArgs),
    /// Publishes an event
    Publish(publish::PublishArgs),
    /// Takes a message on standard input, as /usr/sbin/sendmail does
    Sendmail(sendmail::SendmailArgs),
    /// Prints a token, signed with the data folder's key
    Token(token::TokenArgs),
    /// Runs with a throw-away data folder and sends itself a few mails
    Demo(demo::DemoArgs),
    /// Prints a completion script for a shell
    #[command(after_help = "EXAMPLES\n  \
        postrider completions bash > ~/.local/share/bash-completion/completions/postrider\n  \
        postrider completions zsh > ~/.zfunc/_postrider\n  \
        postrider completions fish > ~/.config/fish/completions/postrider.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Reads the command line and does what it says.
pub fn main() -> Result<ExitCode, CliError> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(ended) = sendmail::of_process(&arguments) {
        return ended;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            // Where even this cannot be written, there is nobody to tell.
            drop(err.print());
            let code = if err.use_stderr() { error::EX_CONFIG } else { 0 };
            return Ok(ExitCode::from(code));
        }
    };
    let global = &cli.global;
    match cli.command {
        Command::Run(args) => run::run(global, &args),
        Command::Check(args) => check::run(global, &args),
        Command::Account(args) => account::run(global, &args),
        Command::Watch(args) => watch::run(global, &args),
        Command::Publish(args) => publish::run(global, &args),
        Command::Sendmail(args) => sendmail::without_arguments(global, &args),
        Command::Token(args) => token::run(global, &args),
        Command::Demo(args) => demo::run(global, &args),
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: Shell) -> Result<ExitCode, CliError> {
    // Into memory first: the generator panics where its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "postrider", &mut script);
    print(&script)
}

/// The runtime that a command's parts run on.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)
}

/// Writes a command's result. A reader that has seen enough and closed its pipe is not an error.
fn print(bytes: &[u8]) -> Result<ExitCode, CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(err)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
