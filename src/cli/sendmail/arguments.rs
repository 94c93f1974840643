//! sendmail's command line. Pure.
//!
//! Programs have called `sendmail` for forty years, each with the options that its author once saw. They are read as
//! getopt reads them (several letters behind one dash, values attached or apart, options behind addresses), and what
//! only concerns a mail server that postrider is not, is read and left alone: a script must not fail for it.

use std::path::PathBuf;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub mode: Mode,
    /// Recipients as they were given.
    pub recipients: Vec<String>,
    /// `-t`: recipients are in the message too.
    pub read_recipients: bool,
    /// `-i`: a line with a dot alone is text, not the end.
    pub dot_is_text: bool,
    /// `-f`, `-r`: the envelope's sender; `Some("")` is the null sender.
    pub sender: Option<String>,
    /// `-F`: the sender's name.
    pub full_name: Option<String>,
    /// `-v`: the dialogue with the server is shown.
    pub verbose: bool,
    /// `--config`, `--data-dir`: as everywhere.
    pub config: Option<PathBuf>,
    /// As above.
    pub data_dir: Option<PathBuf>,
}

/// What `sendmail` is to do: `-b`, and `-q`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Hand over a message.
    #[default]
    Deliver,
    /// `-bp`, `mailq`: list what waits.
    ListQueue,
    /// `-q`: send what waits.
    FlushQueue,
    /// `-bi`, `-I`, `newaliases`: read the aliases anew.
    Aliases,
    /// `--help`.
    Help,
}

/// Why the command line cannot be used. Exit code 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// There is no such option.
    #[error("unknown option `-{0}`; `postrider sendmail --help` shows what there is")]
    Unknown(String),
    /// A value is missing.
    #[error("option `-{0}` needs a value")]
    NoValue(String),
    /// It is something that a mail server does.
    #[error("`-b{0}` is not offered: {1}")]
    Mode(char, &'static str),
    /// Nobody is to get the message.
    #[error("no recipients: give their addresses, or -t to take them from the message")]
    NoRecipients,
    /// An argument is no text.
    #[error("an argument is not UTF-8")]
    NotText,
}

/// Letters that take a value. What they mean is in [`Options::set`].
const WITH_VALUE: &str = "ABCDFLMNORVXbefhopr";
/// Letters whose value, if there is one, is attached.
const WITH_ATTACHED_VALUE: &str = "dq";
/// Letters without a value that change nothing here: verbosity of queues, gatewaying, expansion of aliases.
const IGNORED: &str = "GUETcmnsxk";

impl Options {
    /// Reads what follows the program's name, which some links of it make an option of its own.
    pub fn parse(name: &str, arguments: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mode = match name {
            "mailq" => Mode::ListQueue,
            "newaliases" => Mode::Aliases,
            _ => Mode::Deliver,
        };
        let mut options = Self { mode, ..Self::default() };
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            match argument.strip_prefix('-') {
                Some("-") => {
                    options.recipients.extend(rest);
                    break;
                }
                Some(long) if long.starts_with('-') => options.long(long, &mut rest)?,
                Some(letters) if !letters.is_empty() => options.cluster(letters, &mut rest)?,
                _ => options.recipients.push(argument),
            }
        }
        if options.mode == Mode::Deliver && options.recipients.is_empty() && !options.read_recipients {
            return Err(UsageError::NoRecipients);
        }
        Ok(options)
    }

    /// `-ti`, `-oi`, `-fada@example.org`, `-f ada@example.org`.
    fn cluster(&mut self, letters: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), UsageError> {
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            if WITH_ATTACHED_VALUE.contains(letter) {
                return self.set(letter, "");
            }
            if WITH_VALUE.contains(letter) {
                let attached = letters.as_str();
                let apart = if attached.is_empty() { rest.next() } else { None };
                let no_value = || UsageError::NoValue(letter.to_string());
                // `-f ''` is the null sender; all others need a value.
                let value = if attached.is_empty() { apart.ok_or_else(no_value)? } else { attached.to_owned() };
                return self.set(letter, &value);
            }
            self.set(letter, "")?;
        }
        Ok(())
    }

    fn set(&mut self, letter: char, value: &str) -> Result<(), UsageError> {
        match letter {
            't' => self.read_recipients = true,
            'i' => self.dot_is_text = true,
            'v' => self.verbose = true,
            'f' | 'r' => self.sender = Some(value.to_owned()),
            'F' => self.full_name = Some(value.to_owned()),
            'o' if value == "i" => self.dot_is_text = true,
            'b' => self.mode = mode(value)?,
            'q' => self.mode = Mode::FlushQueue,
            'I' => self.mode = Mode::Aliases,
            _ if WITH_VALUE.contains(letter) || WITH_ATTACHED_VALUE.contains(letter) || IGNORED.contains(letter) => {}
            _ => return Err(UsageError::Unknown(letter.to_string())),
        }
        Ok(())
    }

    fn long(&mut self, long: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), UsageError> {
        let (name, attached) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let mut value = || attached.clone().or_else(|| rest.next()).ok_or_else(|| UsageError::NoValue(name.to_owned()));
        match name {
            "-config" => self.config = Some(value()?.into()),
            "-data-dir" => self.data_dir = Some(value()?.into()),
            "-verbose" => self.verbose = true,
            "-help" => self.mode = Mode::Help,
            _ => return Err(UsageError::Unknown(long.to_owned())),
        }
        Ok(())
    }
}

fn mode(value: &str) -> Result<Mode, UsageError> {
    match value.chars().next() {
        Some('m') => Ok(Mode::Deliver),
        Some('p') => Ok(Mode::ListQueue),
        Some('i') => Ok(Mode::Aliases),
        Some('s') => Err(UsageError::Mode('s', "send SMTP to where postrider listens, 127.0.0.1:2525 by default")),
        Some('d' | 'D') => Err(UsageError::Mode('d', "`postrider run` is the server")),
        Some(other) => Err(UsageError::Mode(other, "there is -bm (the default), -bp and -bi")),
        None => Err(UsageError::NoValue("b".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, UsageError> {
        Options::parse("sendmail", line.split_whitespace().map(str::to_owned))
    }

    /// As the programs call it whose source was looked at: cron, mail(1), mutt, PHP, git send-email, logwatch, smartd.
    #[test]
    fn the_lines_of_real_programs_are_understood() {
        for line in [
            "-FCronDaemon -i -B8BITMIME -oem root",
            "-i -FCronDaemon -odi -oem -oi -t -f root",
            "-oi -f root@x.example -- ops@x.example",
            "-t -i",
            "-oem -oi -f ada@x.example -- ops@x.example ada@x.example",
            "-i ops@x.example -f ada@x.example",
            "-ti -N success,delay,failure -R hdrs -V id",
            "-bm -O DeliveryMode=b -X /dev/null -d0-99.1 root",
        ] {
            let options = parse(line).unwrap_or_else(|err| panic!("{line}: {err}"));
            assert_eq!(options.mode, Mode::Deliver, "{line}");
            assert!(options.read_recipients || !options.recipients.is_empty(), "{line}");
            assert!(options.recipients.iter().all(|recipient| !recipient.starts_with('-')), "{line}");
        }
        let options = parse("-oem -oi -f ada@x.example -- -ops@x.example").unwrap();
        assert!(options.dot_is_text && !options.read_recipients);
        assert_eq!(
            (options.sender.as_deref(), &*options.recipients),
            (Some("ada@x.example"), &["-ops@x.example".into()][..])
        );
        assert_eq!(parse("-tifada -FAda").unwrap().sender.as_deref(), Some("ada"));
        assert!(!parse("-oem root").unwrap().dot_is_text);
        let null = Options::parse("sendmail", ["-f", "", "root"].map(str::to_owned)).unwrap();
        assert_eq!(null.sender.as_deref(), Some(""));
    }

    #[test]
    fn other_modes_and_names_are_told_apart() {
        assert_eq!(parse("-bp").unwrap().mode, Mode::ListQueue);
        assert_eq!(parse("-q30m").unwrap().mode, Mode::FlushQueue);
        assert_eq!(parse("-bi").unwrap().mode, Mode::Aliases);
        assert_eq!(Options::parse("mailq", []).unwrap().mode, Mode::ListQueue);
        assert_eq!(Options::parse("newaliases", []).unwrap().mode, Mode::Aliases);
        assert_eq!(parse("--config=/a --data-dir /b root").unwrap().config, Some("/a".into()));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        assert_eq!(parse(""), Err(UsageError::NoRecipients));
        assert_eq!(parse("-i"), Err(UsageError::NoRecipients));
        assert_eq!(parse("root -f"), Err(UsageError::NoValue("f".into())));
        assert_eq!(parse("-Z root"), Err(UsageError::Unknown("Z".into())));
        assert!(matches!(parse("-bs"), Err(UsageError::Mode('s', _))));
        assert!(matches!(parse("-bd -q1h"), Err(UsageError::Mode('d', _))));
        assert!(matches!(parse("--smtp root"), Err(UsageError::Unknown(_))));
    }
}
