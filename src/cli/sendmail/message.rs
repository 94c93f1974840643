//! The message as `sendmail` finds it on its standard input, and as it leaves. Pure.
//!
//! What comes may be a whole message, a few fields and a text, or the text alone. What leaves has the fields that a
//! message must have, lines that end in CRLF, and nothing that only its sender may know (Bcc).

use jiff::Zoned;
use lettre::message::header::{From, Headers};
use lettre::message::{Mailbox, Mailboxes};
use postrider::message::{addresses, lines};
use uuid::Uuid;

/// Fields that are not for the recipients, or are not true any more once a message was handed over.
const DROPPED: [&str; 4] = ["Bcc", "Resent-Bcc", "Content-Length", "Return-Path"];
/// Where recipients are found, in a message and in one that was sent on.
const RECIPIENT_FIELDS: [[&str; 3]; 2] = [["To", "Cc", "Bcc"], ["Resent-To", "Resent-Cc", "Resent-Bcc"]];
/// Recipients that are taken from one field. The server has a limit for each message, which is lower.
const RECIPIENTS_MAX: usize = 10_000;

/// A message in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    fields: Vec<Field>,
    /// Without its line ends.
    body: Vec<Vec<u8>>,
}

/// One field, as it came, without the last line end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    /// The whole field; its lines are joined by CRLF.
    text: Vec<u8>,
}

/// Who sends, for a message that does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender<'a> {
    /// `root@localhost`.
    pub address: &'a str,
    /// `Cron Daemon`.
    pub name: Option<&'a str>,
    /// What stands behind the `@` of a Message-ID.
    pub domain: &'a str,
}

impl Message {
    /// Reads what came. Lines end with LF, CRLF or, as a progress bar has it, CR alone.
    pub fn read(input: &[u8]) -> Self {
        let mut lines = lines(input).map(<[u8]>::to_vec).peekable();
        // The line that separates messages in a mailbox file.
        while lines.next_if(|line| line.starts_with(b"From ") || line.starts_with(b">From ")).is_some() {}
        let mut fields: Vec<Field> = Vec::new();
        while let Some(line) = lines.peek() {
            match (field_name(line), fields.last_mut()) {
                (Some(name), _) => fields.push(Field { name, text: line.clone() }),
                (None, Some(field)) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    field.text.extend_from_slice(b"\r\n");
                    field.text.extend_from_slice(line);
                }
                _ => break,
            }
            lines.next();
        }
        lines.next_if(Vec::is_empty);
        Self { fields, body: lines.collect() }
    }

    /// The recipients that the message names: those of the last sending where it was sent on.
    pub fn recipients(&self) -> Vec<String> {
        let is_resent = RECIPIENT_FIELDS[1].iter().any(|name| self.has(name));
        let [first, resent] = RECIPIENT_FIELDS;
        let fields = if is_resent { resent } else { first };
        fields.iter().flat_map(|name| self.values(name)).flat_map(addresses_of).collect()
    }

    /// The message as it is handed over. `to` is named where it has no recipients at all: if they are several, none may
    /// know of the others.
    pub fn complete(mut self, sender: &Sender<'_>, to: &[String], now: &Zoned) -> Vec<u8> {
        if !self.has("From") {
            self.add(from(sender));
        }
        if !self.has("Date") {
            let date = jiff::fmt::rfc2822::to_string(now);
            self.add(format!("Date: {}", date.unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 -0000".to_owned())));
        }
        if !self.has("Message-ID") {
            self.add(format!("Message-ID: <{}@{}>", Uuid::now_v7().simple(), sender.domain));
        }
        self.fields.retain(|field| !DROPPED.iter().any(|dropped| field.is(dropped)));
        if !self.has("To") && !self.has("Cc") {
            self.add(match to {
                [only] => format!("To: {only}"),
                _ => "To: undisclosed-recipients:;".to_owned(),
            });
        }
        let fields = self.fields.into_iter().map(|field| field.text);
        let lines: Vec<_> = fields.chain([Vec::new()]).chain(self.body).collect();
        let mut message = lines.join(&b"\r\n"[..]);
        message.extend_from_slice(b"\r\n");
        message
    }

    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.is(name))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = self.fields.iter().filter(move |field| field.is(name));
        named.filter_map(|field| field.text.splitn(2, |&byte| byte == b':').nth(1))
    }

    fn add(&mut self, text: String) {
        let name = text.split(':').next().unwrap_or_default().to_owned();
        self.fields.push(Field { name, text: text.into_bytes() });
    }
}

impl Field {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The addresses in a list, as a field or the command line has it.
pub fn addresses_of(list: &[u8]) -> Vec<String> {
    let found = addresses(list, RECIPIENTS_MAX).into_iter();
    found.map(|found| found.address).filter(|address| !address.is_empty()).collect()
}

/// The address with a domain: the local one where it has none. None where there is no local one.
pub fn qualified(address: &str, local_domain: Option<&str>) -> Option<String> {
    if address.contains('@') {
        return Some(address.to_owned());
    }
    local_domain.map(|domain| format!("{address}@{domain}"))
}

/// Names are encoded where they are not ASCII (RFC 2047); an address that lettre does not take goes without.
fn from(sender: &Sender<'_>) -> String {
    match sender.address.parse() {
        Ok(address) => {
            let mut headers = Headers::new();
            let mailbox = Mailbox::new(sender.name.map(str::to_owned), address);
            headers.set(From::from(Mailboxes::from(mailbox)));
            headers.to_string().trim_end().to_owned()
        }
        Err(_) => format!("From: {}", sender.address),
    }
}

/// The name of the field that a line begins: printable characters up to a colon (RFC 5322 §2.2).
fn field_name(line: &[u8]) -> Option<String> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(input: &str, to: &[&str]) -> String {
        let sender = Sender { address: "root@localhost", name: Some("Grüne Cron"), domain: "localhost" };
        let to: Vec<String> = to.iter().map(|&to| to.to_owned()).collect();
        let now = "2026-11-21T10:00:00+01:00[+01:00]".parse().unwrap();
        String::from_utf8(Message::read(input.as_bytes()).complete(&sender, &to, &now)).unwrap()
    }

    #[test]
    fn a_bare_text_becomes_a_message() {
        let message = complete("disk full\n", &["ops@localhost"]);
        let (header, body) = message.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "disk full\r\n");
        assert!(header.contains("From: =?utf-8?b?R3LDvG5lIENyb24=?= <root@localhost>\r\n"), "{header}");
        assert!(header.contains("Date: Sat, 21 Nov 2026 10:00:00 +0100\r\n"), "{header}");
        assert!(header.contains("\r\nMessage-ID: <") && header.contains("@localhost>\r\n"), "{header}");
        assert!(header.ends_with("To: ops@localhost"), "{header}");
        assert!(complete("x", &["a@b", "c@d"]).contains("To: undisclosed-recipients:;\r\n"));
    }

    #[test]
    fn what_is_there_stays_and_what_is_secret_goes() {
        let message = complete(
            "From root Sat Nov 21\nsubject: one\n two\nBcc: secret@x\n , more@x\nDate: now\nFROM: a@b\nTo: c@d\n\
             Message-Id: <1@x>\ncontent-length: 3\n\nFrom the body: x\r\n\r\n.\r50%\r100%\n",
            &["secret@x"],
        );
        assert_eq!(
            message,
            "subject: one\r\n two\r\nDate: now\r\nFROM: a@b\r\nTo: c@d\r\nMessage-Id: <1@x>\r\n\r\n\
             From the body: x\r\n\r\n.\r\n50%\r\n100%\r\n"
        );
    }

    #[test]
    fn a_header_without_an_empty_line_behind_it_gets_one() {
        let message = complete("Subject: s\nFrom: a@b\nDate: d\nTo: x\nMessage-ID: <i>\ntext begins: here\n", &[]);
        assert!(message.ends_with("\r\n\r\ntext begins: here\r\n"), "{message}");
        assert!(complete("", &["a@b"]).ends_with("\r\n\r\n"));
        assert!(complete("\nTo: in the text\n", &["a@b"]).ends_with("\r\n\r\nTo: in the text\r\n"));
    }

    #[test]
    fn recipients_are_those_of_the_last_sending() {
        let of = |input: &str| Message::read(input.as_bytes()).recipients();
        let header = "To: Ada <ada@x>, root\nCc: Group: b@y, c@y;\nBcc: d@z\n";
        assert_eq!(of(header), ["ada@x", "root", "b@y", "c@y", "d@z"]);
        assert_eq!(of(&format!("{header}Resent-To: e@z\n\nTo: f@z")), ["e@z"]);
        assert_eq!(of("Subject: x\n\nTo: f@z"), [""; 0]);
    }

    #[test]
    fn names_belong_to_the_local_domain() {
        assert_eq!(qualified("root", Some("localhost")).as_deref(), Some("root@localhost"));
        assert_eq!(qualified("root", None), None);
        assert_eq!(qualified("root@x", None).as_deref(), Some("root@x"));
    }
}
