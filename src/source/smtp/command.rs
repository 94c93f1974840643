//! SMTP commands: one line without its CRLF becomes a [`Command`], or the reason why it is none.
//!
//! Nothing here knows in which order commands may come (that is `session`) or which recipients exist (`routing`).

use super::parameter::{self, MailParameters};
use super::sasl::{Mechanism, Secret};
use super::xclient::{self, Told};
use crate::source::intake::{Path, bracketed};

/// A command that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The client named itself and knows no extensions.
    Helo(String),
    /// The client named itself and wants to hear the extensions.
    Ehlo(String),
    /// A transaction begins.
    Mail(Mail),
    /// The client named itself, and speaks LMTP (RFC 2033 §4.1).
    Lhlo(String),
    /// One more recipient.
    Rcpt(Path),
    /// The message follows.
    Data,
    /// A part of the message follows, so many octets (RFC 3030 §2).
    Bdat {
        /// Its octets.
        octets: u64,
        /// Whether the message ends with it.
        last: bool,
    },
    /// The transaction is given up.
    Rset,
    /// Nothing is asked.
    Noop,
    /// Does this address exist?
    Vrfy,
    /// What can be said here?
    Help,
    /// Somebody else's client is to be taken for ours (Postfix's XCLIENT).
    XClient(Told),
    /// TLS is wanted (RFC 3207).
    StartTls,
    /// The client wants to log in (RFC 4954).
    Auth(Auth),
    /// The session is over.
    Quit,
}

/// `AUTH mechanism [initial-response]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Auth {
    /// None where nobody knows it.
    pub mechanism: Option<Mechanism>,
    /// In its base64.
    pub initial: Option<Secret>,
}

/// `MAIL FROM`, with the parameters of the extensions that are announced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mail {
    /// The reverse-path; none for `<>`.
    pub from: Option<Path>,
    /// What was said besides.
    pub parameters: MailParameters,
}

/// Why a line is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommandError {
    /// No verb that anybody knows.
    Unknown,
    /// A verb of SMTP that is not offered here.
    NotImplemented,
    /// The argument is missing, or there is one where none may be.
    Argument(&'static str),
    /// MAIL without a reverse-path.
    ReversePath,
    /// RCPT without a forward-path.
    ForwardPath,
    /// A parameter of an extension that was not announced.
    UnknownParameter,
    /// A known parameter with a value that it cannot have, or twice.
    Parameter,
    /// XCLIENT and XFORWARD: not everybody may say for another who he is.
    NotAuthorized,
    /// Somebody speaks HTTP, TLS or the PROXY protocol: the session cannot come in step, and a browser that was made
    /// to post a form must not get to send mail (cross-protocol attack).
    OtherProtocol,
}

impl CommandError {
    /// The reply without its CRLF.
    pub(super) fn reply(self) -> &'static str {
        match self {
            Self::Unknown => "500 5.5.1 Command not recognized",
            Self::NotImplemented => "502 5.5.1 Command not implemented",
            Self::Argument(usage) => usage,
            Self::ReversePath => "501 5.1.7 Syntax: MAIL FROM:<address>",
            Self::ForwardPath => "501 5.1.3 Syntax: RCPT TO:<address>",
            Self::UnknownParameter => "555 5.5.4 Parameter not recognized",
            Self::Parameter => "501 5.5.4 Bad parameter value",
            Self::NotAuthorized => "550 5.7.0 Not authorized",
            Self::OtherProtocol => "554 5.5.1 This is an SMTP server",
        }
    }
}

const NO_ARGUMENT: CommandError = CommandError::Argument("501 5.5.4 No argument allowed");

/// Verbs of other protocols. `Host:` and the like never come first, so that the request line is enough.
const FOREIGN: [&[u8]; 11] =
    [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"CONNECT", b"PATCH", b"TRACE", b"PRI", b"PROXY"];

/// Parses a line that holds no CR, LF or NUL.
///
/// # Errors
/// See [`CommandError`], each with its reply.
pub(super) fn parse(line: &[u8]) -> Result<Command, CommandError> {
    // RFC 5321 §4.1.1: trailing white space should be tolerated.
    let line = line.trim_ascii_end();
    let (verb, argument) = match memchr::memchr(b' ', line) {
        Some(at) => line.split_at(at),
        None => (line, &b""[..]),
    };
    let argument = argument.trim_ascii_start();
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    let alone = |command| if argument.is_empty() { Ok(command) } else { Err(NO_ARGUMENT) };
    let named = |usage| name(argument).ok_or(CommandError::Argument(usage));
    match verb {
        _ if is("MAIL") => parse_mail(argument).map(Command::Mail),
        _ if is("RCPT") => parse_rcpt(argument).map(Command::Rcpt),
        _ if is("DATA") => alone(Command::Data),
        _ if is("EHLO") => named("501 5.5.4 Syntax: EHLO hostname").map(Command::Ehlo),
        _ if is("HELO") => named("501 5.5.4 Syntax: HELO hostname").map(Command::Helo),
        _ if is("LHLO") => named("501 5.5.4 Syntax: LHLO hostname").map(Command::Lhlo),
        _ if is("BDAT") => parse_bdat(argument),
        _ if is("RSET") => alone(Command::Rset),
        _ if is("NOOP") => Ok(Command::Noop),
        _ if is("QUIT") => alone(Command::Quit),
        _ if is("STARTTLS") => alone(Command::StartTls),
        _ if is("AUTH") => parse_auth(argument),
        _ if is("HELP") => Ok(Command::Help),
        _ if is("VRFY") => named("501 5.5.4 Syntax: VRFY address").map(|_| Command::Vrfy),
        _ if ["EXPN", "ETRN"].into_iter().any(is) => Err(CommandError::NotImplemented),
        _ if is("XCLIENT") => xclient::parse(argument).map(Command::XClient),
        _ if is("XFORWARD") => Err(CommandError::NotAuthorized),
        _ if FOREIGN.iter().any(|name| verb.eq_ignore_ascii_case(name)) => Err(CommandError::OtherProtocol),
        _ => Err(CommandError::Unknown),
    }
}

/// What a client calls itself is not checked against anything (RFC 5321 §4.1.4), but it is printable text.
fn name(argument: &[u8]) -> Option<String> {
    let is_name = !argument.is_empty() && argument.iter().all(|byte| !byte.is_ascii_control());
    is_name.then(|| String::from_utf8_lossy(argument).into_owned())
}

fn parse_mail(argument: &[u8]) -> Result<Mail, CommandError> {
    let argument = after_keyword(argument, "FROM:").ok_or(CommandError::ReversePath)?;
    let (from, parameters) = bracketed(argument).ok_or(CommandError::ReversePath)?;
    Ok(Mail { from, parameters: parameter::of_mail(parameters)? })
}

fn parse_auth(argument: &[u8]) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Argument("501 5.5.4 Syntax: AUTH mechanism [initial-response]");
    let mut words = std::str::from_utf8(argument).map_err(|_| USAGE)?.split_ascii_whitespace();
    let mechanism = Mechanism::parse(words.next().ok_or(USAGE)?.as_bytes());
    let initial = words.next().map(Secret::new);
    if words.next().is_some() { Err(USAGE) } else { Ok(Command::Auth(Auth { mechanism, initial })) }
}

/// RFC 3030 §2.
fn parse_bdat(argument: &[u8]) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Argument("501 5.5.4 Syntax: BDAT octets [LAST]");
    let mut words = std::str::from_utf8(argument).map_err(|_| USAGE)?.split_ascii_whitespace();
    let octets = words.next().filter(|octets| octets.bytes().all(|byte| byte.is_ascii_digit())).ok_or(USAGE)?;
    // What does not fit is more than any limit.
    let octets = octets.parse().unwrap_or(u64::MAX);
    match (words.next(), words.next()) {
        (None, _) => Ok(Command::Bdat { octets, last: false }),
        (Some(word), None) if word.eq_ignore_ascii_case("LAST") => Ok(Command::Bdat { octets, last: true }),
        _ => Err(USAGE),
    }
}

fn parse_rcpt(argument: &[u8]) -> Result<Path, CommandError> {
    let argument = after_keyword(argument, "TO:").ok_or(CommandError::ForwardPath)?;
    let (path, parameters) = bracketed(argument).ok_or(CommandError::ForwardPath)?;
    // The null path is for senders only (RFC 5321 §4.1.1.3).
    let path = path.ok_or(CommandError::ForwardPath)?;
    parameter::of_rcpt(parameters)?;
    Ok(path)
}

/// What follows `FROM:` or `TO:`. A space behind the colon is wrong and common.
fn after_keyword<'a>(argument: &'a [u8], keyword: &str) -> Option<&'a str> {
    let (start, rest) = argument.split_at_checked(keyword.len())?;
    let rest = std::str::from_utf8(rest).ok()?;
    start.eq_ignore_ascii_case(keyword.as_bytes()).then(|| rest.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(line: &str) -> CommandError {
        parse(line.as_bytes()).expect_err(line)
    }

    #[test]
    fn verbs_are_known_in_any_case_and_with_trailing_blanks() {
        assert_eq!(parse(b"ehlo client.example"), Ok(Command::Ehlo("client.example".into())));
        assert_eq!(parse(b"HELO [192.0.2.1]  "), Ok(Command::Helo("[192.0.2.1]".into())));
        assert_eq!(parse(b"Data "), Ok(Command::Data));
        assert_eq!(parse(b"noop whatever"), Ok(Command::Noop));
        assert_eq!(parse(b"VRFY alice"), Ok(Command::Vrfy));
        assert_eq!(parse(b"QUIT"), Ok(Command::Quit));
        let (mechanism, initial) = (Some(Mechanism::ScramSha256), Some(Secret::new("eA==")));
        assert_eq!(parse(b"AUTH scram-sha-256 eA=="), Ok(Command::Auth(Auth { mechanism, initial })));
        assert_eq!(parse(b"AUTH GSSAPI"), Ok(Command::Auth(Auth { mechanism: None, initial: None })));
        assert_eq!(parse(b"BDAT 86 last"), Ok(Command::Bdat { octets: 86, last: true }));
        assert_eq!(parse(b"bdat 0"), Ok(Command::Bdat { octets: 0, last: false }));
        let far_too_many = parse(format!("BDAT {}", "9".repeat(30)).as_bytes());
        assert_eq!(far_too_many, Ok(Command::Bdat { octets: u64::MAX, last: false }));
    }

    #[test]
    fn mail_takes_the_parameters_of_the_announced_extensions() {
        let mail = |size, smtputf8| {
            Command::Mail(Mail { from: Path::parse("a@b"), parameters: MailParameters { size, smtputf8 } })
        };
        assert_eq!(parse(b"MAIL FROM:<a@b>"), Ok(mail(0, false)));
        assert_eq!(parse(b"mail from: <a@b> size=12 body=8bitmime SMTPUTF8"), Ok(mail(12, true)));
        assert_eq!(parse(b"MAIL FROM:<a@b> SIZE=99999999999999999999"), Ok(mail(u64::MAX, false)));
        assert_eq!(parse(b"MAIL FROM:<>"), Ok(Command::Mail(Mail::default())));
        for wrong in ["SIZE=abc", "SIZE=", "SIZE", "SIZE=1 SIZE=1", "BODY=x", "SMTPUTF8=1", "SIZE=-1"] {
            assert_eq!(error(&format!("MAIL FROM:<a@b> {wrong}")), CommandError::Parameter, "{wrong}");
        }
        assert_eq!(error(&format!("MAIL FROM:<a@b> SIZE={}", "9".repeat(23))), CommandError::Parameter);
        assert_eq!(error("MAIL FROM:<a@b> X-UNKNOWN=1"), CommandError::UnknownParameter);
        assert_eq!(error("RCPT TO:<a@b> X-UNKNOWN=1"), CommandError::UnknownParameter);
    }

    #[test]
    fn mistakes_get_the_reply_that_names_them() {
        for (line, code) in [
            ("", "500 5.5.1"),
            ("BOGUS", "500 5.5.1"),
            ("EHLO", "501 5.5.4"),
            ("DATA now", "501 5.5.4"),
            ("QUIT now", "501 5.5.4"),
            ("STARTTLS now", "501 5.5.4"),
            ("VRFY", "501 5.5.4"),
            ("LHLO", "501 5.5.4"),
            ("AUTH", "501 5.5.4"),
            ("AUTH PLAIN a b", "501 5.5.4"),
            ("BDAT", "501 5.5.4"),
            ("BDAT -1", "501 5.5.4"),
            ("BDAT x LAST", "501 5.5.4"),
            ("BDAT 1 FIRST", "501 5.5.4"),
            ("BDAT 1 LAST x", "501 5.5.4"),
            ("EXPN list", "502 5.5.1"),
            ("MAIL", "501 5.1.7"),
            ("MAIL FROM:a@b", "501 5.1.7"),
            ("MAIL FROM:<a@b", "501 5.1.7"),
            ("RCPT TO:<>", "501 5.1.3"),
            ("RCPT TO:<a b@c>", "501 5.1.3"),
            ("XCLIENT ADDR=localhost", "501 5.5.4"),
            ("XFORWARD ADDR=127.0.0.1", "550 5.7.0"),
            ("GET / HTTP/1.1", "554 5.5.1"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 25", "554 5.5.1"),
        ] {
            assert!(error(line).reply().starts_with(code), "{line}: {}", error(line).reply());
        }
        assert_eq!(parse(b"RCPT TO:<\xff@b>"), Err(CommandError::ForwardPath), "not UTF-8");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..80), verb in "(MAIL FROM:|RCPT TO:|EHLO )?<?") {
            drop(parse(&[verb.as_bytes(), &line].concat()));
        }
    }
}
