//! `--imap imaps://you@host[:port][/mailbox]`: a mailbox to watch, as RFC 5092 writes it; or `--imap you@domain`, where
//! the domain's provider is known.
//!
//! The URL is never repeated in a message: somebody may have put a password into it.

use percent_encoding::percent_decode_str;
use postrider::event::AccountName;
use postrider::registry::{Account, ImapEndpoint, ImapSecurity};
use postrider::source::imap::provider::Providers;
use url::Url;

/// Why a text does not name a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImapUrlError {
    /// It is no URL, or one of something else.
    #[error(
        "expected imaps://you@host[:port][/mailbox] (or imap:// for STARTTLS, imap+plain:// on this machine without \
         encryption); write a `@` in the user name as it is or as %40"
    )]
    Shape,
    /// A password is in it.
    #[error(
        "leave the password out of the URL, since process lists and the shell's history show it; it is asked for on the \
         terminal, or give POSTRIDER_IMAP_PASSWORD, --imap-password-file or --imap-password-command (and change a \
         password that was shown)"
    )]
    Password,
    /// Nobody is named.
    #[error("name the user, as in imaps://you@host")]
    NoUser,
    /// There is something after the mailbox.
    #[error("only a mailbox may follow the host; write `?`, `#` and `;` in its name as %3F, %23 and %3B")]
    Rest,
    /// An escape is not UTF-8, or the name is not one.
    #[error("the user name or mailbox is empty, too long, or has control characters or bytes that are not UTF-8")]
    Name,
}

/// The account that a URL describes, without a password; its name is the user name.
pub fn parse(text: &str) -> Result<Account, ImapUrlError> {
    if let Some(account) = known(text) {
        return account;
    }
    let url = Url::parse(text).map_err(|_| ImapUrlError::Shape)?;
    let security = match url.scheme() {
        "imaps" => ImapSecurity::Tls,
        "imap" => ImapSecurity::Starttls,
        "imap+plain" => ImapSecurity::None,
        _ => return Err(ImapUrlError::Shape),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(ImapUrlError::Shape)?;
    let host = decode(host.trim_start_matches('[').trim_end_matches(']'))?;
    if url.password().is_some() {
        return Err(ImapUrlError::Password);
    }
    if url.username().is_empty() {
        return Err(ImapUrlError::NoUser);
    }
    if url.query().is_some() || url.fragment().is_some() || url.path().contains(';') {
        return Err(ImapUrlError::Rest);
    }
    let username = decode(url.username())?;
    let mailbox = match url.path().trim_start_matches('/') {
        "" => "INBOX".to_owned(),
        path => decode(path)?,
    };
    let imap = ImapEndpoint {
        port: url.port(),
        security,
        mailboxes: [mailbox].into(),
        ..ImapEndpoint::new(host, username.clone())
    };
    let name = AccountName::parse(&username).map_err(|_| ImapUrlError::Name)?;
    Ok(Account { imap: Some(imap.into()), ..Account::new(name) })
}

/// A bare address whose provider is known: `you@gmail.com`.
fn known(text: &str) -> Option<Result<Account, ImapUrlError>> {
    if text.contains([':', '/']) {
        return None;
    }
    let place = Providers::default().place_of(text)?;
    let imap = ImapEndpoint { port: place.port, security: place.security, ..ImapEndpoint::new(place.host, text) };
    let name = AccountName::parse(text).map_err(|_| ImapUrlError::Name);
    Some(name.map(|name| Account { imap: Some(imap.into()), ..Account::new(name) }))
}

/// The accounts of several URLs; mailboxes of one user at one server make one account.
pub fn parse_all(texts: &[String]) -> Result<Vec<Account>, ImapUrlError> {
    let mut accounts: Vec<Account> = Vec::new();
    for text in texts {
        let account = parse(text)?;
        match accounts.iter_mut().find(|known| is_same_endpoint(known, &account)) {
            Some(known) => {
                if let (Some(known), Some(more)) = (known.imap_mut(), account.imap) {
                    known.mailboxes = known.mailboxes.iter().chain(&*more.mailboxes).cloned().collect();
                }
            }
            None => accounts.push(account),
        }
    }
    Ok(accounts)
}

fn is_same_endpoint(a: &Account, b: &Account) -> bool {
    a.imap.as_ref().zip(b.imap.as_ref()).is_some_and(|(a, b)| {
        (&a.host, a.port(), a.security, &a.username) == (&b.host, b.port(), b.security, &b.username)
    })
}

fn decode(text: &str) -> Result<String, ImapUrlError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| ImapUrlError::Name)?;
    if decoded.is_empty() || decoded.chars().any(char::is_control) {
        return Err(ImapUrlError::Name);
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> ImapEndpoint {
        parse(text).unwrap().imap.unwrap().as_ref().clone()
    }

    #[test]
    fn a_url_says_host_user_mailbox_and_protection() {
        let account = parse("imaps://ada%40example.org@imap.example.org/Lists/r%C3%BCst%3F").unwrap();
        assert_eq!(account.name.as_str(), "ada@example.org");
        let imap = account.imap.unwrap();
        assert_eq!((imap.host.as_str(), imap.port(), imap.security), ("imap.example.org", 993, ImapSecurity::Tls));
        assert_eq!(
            (imap.username.as_str(), imap.mailboxes.to_vec()),
            ("ada@example.org", vec!["Lists/rüst?".to_owned()])
        );

        assert_eq!(endpoint("imaps://ada@example.org@imap.example.org").username, "ada@example.org");
        let starttls = endpoint("imap://ada@imap.example.org:1143/");
        assert_eq!((starttls.port(), starttls.security), (1143, ImapSecurity::Starttls));
        assert_eq!(*starttls.mailboxes, ["INBOX"]);
        let plain = endpoint("imap+plain://ada@[::1]");
        assert_eq!((plain.host.as_str(), plain.security, plain.port()), ("::1", ImapSecurity::None, 143));
    }

    #[test]
    fn an_address_at_a_known_provider_is_enough() {
        let account = parse("ada@web.de").unwrap();
        assert_eq!(account.name.as_str(), "ada@web.de");
        let imap = account.imap.unwrap();
        assert_eq!((imap.host.as_str(), imap.port(), imap.username.as_str()), ("imap.web.de", 993, "ada@web.de"));
        assert_eq!(parse("ada@example.org").err(), Some(ImapUrlError::Shape));
        assert_eq!(parse("ada:hunter2@web.de").err(), Some(ImapUrlError::Shape));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        for (text, error) in [
            ("imaps://ada:hunter2@host", ImapUrlError::Password),
            ("imaps://:hunter2@host", ImapUrlError::Password),
            ("imaps://host/INBOX", ImapUrlError::NoUser),
            ("ada@host", ImapUrlError::Shape),
            ("pop3://ada@host", ImapUrlError::Shape),
            ("imaps:ada@host", ImapUrlError::Shape),
            ("imaps://ada@/INBOX", ImapUrlError::Shape),
            ("imaps://ada@host/INBOX?x", ImapUrlError::Rest),
            ("imaps://ada@host/INBOX;UIDVALIDITY=1", ImapUrlError::Rest),
            ("imaps://a%0Ab@host", ImapUrlError::Name),
            ("imaps://a%FF@host", ImapUrlError::Name),
            ("", ImapUrlError::Shape),
        ] {
            assert_eq!(parse(text).err(), Some(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn mailboxes_of_one_user_share_an_account() {
        let texts = ["imaps://a@h/INBOX", "imaps://b@h", "imaps://a@h/Sent"].map(str::to_owned);
        let accounts = parse_all(&texts).unwrap();
        let mailboxes: Vec<_> =
            accounts.iter().map(|account| account.imap.as_ref().unwrap().mailboxes.to_vec()).collect();
        assert_eq!(mailboxes, [vec!["INBOX", "Sent"], vec!["INBOX"]]);
    }
}
