//! Where the password of an `--imap` account comes from: a file, a command, the environment, or the person at the
//! terminal. Never from the command line itself.

use std::io;
use std::path::PathBuf;

use postrider::registry::{Account, ImapEndpoint};
use secrecy::SecretString;

use super::CliError;

/// The variable that holds the password of the one `--imap` account.
const VARIABLE: &str = "POSTRIDER_IMAP_PASSWORD";

/// What the command line says of passwords.
#[derive(Debug, Clone, Default)]
pub struct PasswordArgs {
    /// `--imap-password-file`.
    pub file: Option<PathBuf>,
    /// `--imap-password-command`, for the shell.
    pub command: Option<String>,
}

/// Gives each account a source for its password; asks with `ask` where there is none.
pub fn provide(
    accounts: &mut [Account],
    args: &PasswordArgs,
    variable_is_set: bool,
    ask: impl Fn(&str) -> io::Result<String>,
) -> Result<(), CliError> {
    let is_given = args.file.is_some() || args.command.is_some() || variable_is_set;
    if is_given && accounts.len() > 1 {
        return Err(CliError::SharedPassword);
    }
    for imap in accounts.iter_mut().filter_map(Account::imap_mut) {
        imap.password_file.clone_from(&args.file);
        // The shell splits the words, as it would where the person tried the command.
        imap.password_command = args.command.as_ref().map(|line| ["sh".into(), "-c".into(), line.clone()].into());
        if !is_given {
            imap.password_typed = Some(typed(imap, &ask)?);
        } else if args.file.is_none() && args.command.is_none() {
            imap.password_env = Some(VARIABLE.to_owned());
        }
    }
    Ok(())
}

/// Whether the environment has a password.
pub fn variable_is_set() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}

/// Asks at the terminal, without showing what is typed.
pub fn ask_terminal(prompt: &str) -> io::Result<String> {
    rpassword::prompt_password(prompt)
}

fn typed(imap: &ImapEndpoint, ask: impl Fn(&str) -> io::Result<String>) -> Result<SecretString, CliError> {
    let failed = |source| CliError::NoPassword { user: imap.username.clone(), host: imap.host.clone(), source };
    let password = ask(&format!("Password of {} at {}: ", imap.username, imap.host)).map_err(failed)?;
    if password.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed")));
    }
    Ok(SecretString::from(password))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::cli::imap_url;

    fn provided(urls: &[&str], args: &PasswordArgs, variable: bool, typed: &str) -> Result<Vec<Account>, CliError> {
        let urls: Vec<String> = urls.iter().map(|&url| url.to_owned()).collect();
        let mut accounts = imap_url::parse_all(&urls)?;
        provide(&mut accounts, args, variable, |prompt| {
            assert!(prompt.starts_with("Password of "));
            if typed == "no terminal" { Err(io::Error::other(typed)) } else { Ok(typed.to_owned()) }
        })?;
        Ok(accounts)
    }

    #[test]
    fn the_strongest_source_counts_and_a_person_is_asked_last() {
        let one = ["imaps://a@h"];
        let file = PasswordArgs { file: Some("f".into()), command: None };
        let imap = provided(&one, &file, true, "").unwrap().remove(0).imap.unwrap().as_ref().clone();
        assert_eq!((imap.password_file, imap.password_env), (Some("f".into()), None));
        let imap = provided(&one, &PasswordArgs::default(), true, "").unwrap().remove(0).imap.unwrap().as_ref().clone();
        assert_eq!(imap.password_env.as_deref(), Some("POSTRIDER_IMAP_PASSWORD"));
        let imap =
            provided(&one, &PasswordArgs::default(), false, "x").unwrap().remove(0).imap.unwrap().as_ref().clone();
        assert_eq!(imap.password_typed.unwrap().expose_secret(), "x");
    }

    #[test]
    fn one_password_is_not_sent_to_two_servers() {
        let two = ["imaps://a@h", "imaps://a@evil"];
        let error = provided(&two, &PasswordArgs::default(), true, "").unwrap_err();
        assert!(matches!(error, CliError::SharedPassword));
        assert_eq!(provided(&two, &PasswordArgs::default(), false, "x").unwrap().len(), 2);
    }

    #[test]
    fn nobody_to_ask_is_an_error_that_says_what_to_set() {
        for typed in ["no terminal", ""] {
            let error = provided(&["imaps://a@h"], &PasswordArgs::default(), false, typed).unwrap_err();
            assert!(error.to_string().contains("POSTRIDER_IMAP_PASSWORD"), "{error}");
        }
    }
}
