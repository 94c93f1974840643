//! Where an account's password comes from. It is fetched when a connection needs it and is kept no longer.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{CredentialsError, ImapEndpoint};

/// Longest that a password command may take: it may ask a key ring, not a person.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest output that is read; a password is one line.
const BYTES_MAX: u64 = 64 * 1024;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Nothing says where it comes from.
    #[error(
        "no password: store one with `postrider account password`, or set `password_file`, `password_command` or \
         `password_env` for this account"
    )]
    NotConfigured,
    /// What is stored cannot be read.
    #[error(transparent)]
    Stored(#[from] CredentialsError),
    /// The file could not be read.
    #[error("cannot read the password file {0}")]
    File(PathBuf, #[source] io::Error),
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    Env(String),
    /// The program could not be run.
    #[error("cannot run the password command `{0}`")]
    Command(String, #[source] io::Error),
    /// The program failed.
    #[error("the password command `{0}` failed: {1}")]
    CommandFailed(String, String),
    /// There was no text.
    #[error("the password is empty: {0} gave no text on its first line")]
    Empty(&'static str),
}

/// Where a password is found, as a section of the configuration says. The first that is there counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct PasswordSource<'a> {
    /// The password itself, as it was typed.
    pub typed: Option<&'a SecretString>,
    /// A file whose first line it is.
    pub file: Option<&'a Path>,
    /// The environment variable that holds it.
    pub env: Option<&'a str>,
    /// A program and its arguments; the first line that it prints is the password.
    pub command: Option<&'a [String]>,
}

impl ImapEndpoint {
    /// The password, fetched now from where the configuration says it is; stored ones are in [`super::Credentials`].
    ///
    /// # Errors
    /// See [`PasswordError`]; a file or a key ring may be there the next time.
    ///
    /// # Cancel safety
    /// Dropping the future ends a command that is running.
    pub async fn password(&self) -> Result<SecretString, PasswordError> {
        let source = PasswordSource {
            typed: self.password_typed.as_ref(),
            file: self.password_file.as_deref(),
            env: self.password_env.as_deref(),
            command: self.password_command.as_deref(),
        };
        source.password().await
    }
}

impl PasswordSource<'_> {
    /// How many of the keys `password_file`, `password_command` and `password_env` say where the password is. A command
    /// without a program says nothing.
    pub(crate) fn given(&self) -> usize {
        let has_command = self.command.is_some_and(|command| !command.is_empty());
        [self.file.is_some(), has_command, self.env.is_some()].into_iter().filter(|&is_set| is_set).count()
    }

    /// The password, fetched now.
    ///
    /// # Errors
    /// See [`PasswordError`]; a file or a key ring may be there the next time.
    ///
    /// # Cancel safety
    /// Dropping the future ends a command that is running.
    pub async fn password(&self) -> Result<SecretString, PasswordError> {
        if let Some(typed) = self.typed {
            return Ok(typed.clone());
        }
        if let Some(path) = self.file {
            return first_line_of(path).await;
        }
        if let Some(variable) = self.env {
            let text = std::env::var(variable).map_err(|_| PasswordError::Env(variable.to_owned()))?;
            return first_line(text, "the environment variable");
        }
        match self.command {
            Some(command) => printed_by(command).await,
            None => Err(PasswordError::NotConfigured),
        }
    }
}

/// A secret that is the first line of a file.
pub(crate) async fn first_line_of(path: &Path) -> Result<SecretString, PasswordError> {
    let file = |err| PasswordError::File(path.to_owned(), err);
    let mut text = String::new();
    let opened = tokio::fs::File::open(path).await.map_err(file)?;
    opened.take(BYTES_MAX).read_to_string(&mut text).await.map_err(file)?;
    first_line(text, "the password file")
}

/// A secret that is the first line of what a program prints.
pub(crate) async fn printed_by(command: &[String]) -> Result<SecretString, PasswordError> {
    match command {
        [program, arguments @ ..] => first_line(run(program, arguments).await?, "the password command"),
        [] => Err(PasswordError::NotConfigured),
    }
}

async fn run(program: &str, arguments: &[String]) -> Result<String, PasswordError> {
    let failed = |err| PasswordError::Command(program.to_owned(), err);
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut text = String::new();
    let finished = timeout(COMMAND_TIMEOUT, async {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(BYTES_MAX).read_to_string(&mut text).await?;
        }
        child.wait().await
    })
    .await
    .map_err(|_| PasswordError::CommandFailed(program.to_owned(), format!("no end after {COMMAND_TIMEOUT:?}")))?;
    match finished.map_err(failed)? {
        status if status.success() => Ok(text),
        status => Err(PasswordError::CommandFailed(program.to_owned(), status.to_string())),
    }
}

fn first_line(text: String, what: &'static str) -> Result<SecretString, PasswordError> {
    // The whole output becomes a secret first, so that it is wiped when it is dropped.
    let text = SecretString::from(text);
    match text.expose_secret().lines().next() {
        None | Some("") => Err(PasswordError::Empty(what)),
        Some(line) => Ok(SecretString::from(line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> ImapEndpoint {
        ImapEndpoint::new("localhost", "alice")
    }

    fn command(line: &[&str]) -> ImapEndpoint {
        ImapEndpoint { password_command: Some(line.iter().map(|&word| word.into()).collect()), ..endpoint() }
    }

    #[tokio::test]
    async fn a_command_gives_its_first_line() {
        let password = command(&["printf", "%s\\n%s\\n", "s3cret", "note"]).password().await.unwrap();
        assert_eq!(password.expose_secret(), "s3cret");
    }

    #[tokio::test]
    async fn failures_say_which_source_failed() {
        assert!(matches!(endpoint().password().await, Err(PasswordError::NotConfigured)));
        assert!(matches!(command(&["false"]).password().await, Err(PasswordError::CommandFailed(..))));
        assert!(matches!(command(&["true"]).password().await, Err(PasswordError::Empty(_))));
        assert!(matches!(command(&["/no/such/program"]).password().await, Err(PasswordError::Command(..))));
        let missing = ImapEndpoint { password_file: Some("/no/such/file".into()), ..endpoint() };
        assert!(matches!(missing.password().await, Err(PasswordError::File(..))));
    }
}
