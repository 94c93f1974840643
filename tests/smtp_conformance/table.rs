//! The table of cases: text that reads like a transcript, parsed into steps. What can be written is said in `README.md`
//! beside the tables.

use std::time::Duration;

/// What a listener speaks, and how one gets to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Smtp,
    Lmtp,
    /// LMTP over a Unix socket.
    LmtpUnix,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
            Self::LmtpUnix => "lmtp-unix",
        }
    }

    /// Whether a table's `smtp`, `lmtp` or `lmtp-tcp` means it.
    fn is_meant_by(self, word: &str) -> bool {
        match self {
            Self::Smtp => word == "smtp",
            Self::Lmtp => word == "lmtp" || word == "lmtp-tcp",
            Self::LmtpUnix => word == "lmtp",
        }
    }
}

/// One case, as it stands in the table.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// The file that it stands in.
    pub group: String,
    pub name: String,
    /// The section, the CVE, or who has tried it.
    pub source: String,
    /// `smtp`, `lmtp`, `lmtp-tcp`; the first two where nothing is said.
    pub protocols: Vec<String>,
    /// The program that it runs against, by name; `default` where nothing is said.
    pub server: String,
    /// It begins before the greeting is read.
    pub early: bool,
    /// How long all of it may take.
    pub within: Option<Duration>,
    pub log: Expected,
    pub steps: Vec<Step>,
    /// Names and texts: the case is played for each, with the text in the place of `{row}`.
    pub rows: Vec<(String, String)>,
}

/// What the event log must hold afterwards of what the case has sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub events: usize,
    /// Of each event, where it is said.
    pub subject: Option<String>,
    pub sender: Option<String>,
    pub size: Option<u64>,
    /// What the readable text holds somewhere.
    pub text: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These octets in one write; `{…}` is not filled in yet.
    Send(String),
    /// The same, octet by octet with this pause.
    Drip(Duration, String),
    /// The same, until the server says something.
    Trickle(Duration, String),
    Expect(Reply),
    /// The client begins TLS; what follows is within it.
    Tls,
    /// The client sends no more, but listens.
    HalfClose,
    /// The server closes, without another word.
    End,
}

/// What a reply must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Any of these.
    pub codes: Vec<String>,
    /// The enhanced status code, where it matters which; that there is one is looked for in any case.
    pub enhanced: Option<String>,
    /// The reply to a greeting, which has no enhanced code (RFC 2034 §4).
    pub to_hello: bool,
    /// What stands somewhere in it.
    pub contains: Option<String>,
    /// What must not.
    pub lacks: Option<String>,
    /// So many times by SMTP.
    pub times: usize,
    /// So many times by LMTP: once for each recipient.
    pub times_by_lmtp: usize,
}

impl Case {
    pub fn is_for(&self, way: Way) -> bool {
        self.protocols.is_empty() || self.protocols.iter().any(|word| way.is_meant_by(word))
    }

    /// One case for each row; itself where it has none.
    fn for_each_row(self) -> Vec<Self> {
        if self.rows.is_empty() {
            return vec![self];
        }
        let of_row = |(name, text): &(String, String)| {
            let filled_in = self.steps.iter().map(|step| match step {
                Step::Send(octets) => Step::Send(octets.replace("{row}", text)),
                Step::Drip(pause, octets) => Step::Drip(*pause, octets.replace("{row}", text)),
                Step::Trickle(pause, octets) => Step::Trickle(*pause, octets.replace("{row}", text)),
                step => step.clone(),
            });
            let steps = filled_in.collect();
            Self { name: format!("{}.{name}", self.name), steps, rows: Vec::new(), ..self.clone() }
        };
        self.rows.iter().map(of_row).collect()
    }

    /// Whether the session must be in step afterwards, rather than over.
    pub fn goes_on(&self) -> bool {
        !matches!(self.steps.last(), Some(Step::End | Step::HalfClose))
    }
}

/// The cases of one file.
///
/// # Errors
/// The line that cannot be read.
pub fn parse(group: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = |what: &str| format!("{group}:{}: {what}: {line}", number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "case" {
            let (name, server) = (rest.trim().to_owned(), "default".to_owned());
            let is_new = !name.is_empty() && cases.iter().all(|case| case.name != name);
            is_new.then_some(()).ok_or_else(|| at("a case needs a name of its own"))?;
            cases.push(Case { group: group.to_owned(), name, server, ..Case::default() });
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| at("no case has begun"))?;
        if !head(case, word, rest.trim()).ok_or_else(|| at("not a value"))? {
            case.steps.extend(steps(word, rest).ok_or_else(|| at("not a step"))?);
        }
    }
    match cases.iter().find(|case| case.source.is_empty() || case.steps.is_empty()) {
        Some(case) => Err(format!("{group}: {} has no source or no steps", case.name)),
        None => Ok(cases.into_iter().flat_map(Case::for_each_row).collect()),
    }
}

/// Takes a line that is about the whole case; false if it is not such a line.
fn head(case: &mut Case, word: &str, rest: &str) -> Option<bool> {
    match word {
        "source" => rest.clone_into(&mut case.source),
        "for" => case.protocols = rest.split_whitespace().map(str::to_owned).collect(),
        "server" => rest.clone_into(&mut case.server),
        "early" => case.early = true,
        "within" => case.within = Some(duration(rest)?),
        "log" => case.log.events = rest.parse().ok()?,
        "subject" => case.log.subject = Some(rest.to_owned()),
        "sender" => case.log.sender = Some(rest.to_owned()),
        "size" => case.log.size = Some(rest.parse().ok()?),
        "text" => case.log.text.push(rest.to_owned()),
        "row" => {
            let (name, text) = rest.split_once(' ')?;
            case.rows.push((name.to_owned(), text.trim_start().to_owned()));
        }
        _ => return Some(false),
    }
    Some(true)
}

fn steps(word: &str, rest: &str) -> Option<Vec<Step>> {
    let say = |text: &str| Step::Send(format!("{text}\\r\\n"));
    let hear = |text: &str| reply(text).map(Step::Expect);
    Some(match word {
        "C:" => vec![say(rest)],
        "send:" => vec![Step::Send(rest.to_owned())],
        "drip" | "trickle" => {
            let (pause, text) = rest.split_once(": ")?;
            let step = if word == "drip" { Step::Drip } else { Step::Trickle };
            vec![step(duration(pause)?, text.to_owned())]
        }
        "S:" if rest == "end" => vec![Step::End],
        "S:" => vec![hear(rest)?],
        "tls" => vec![Step::Tls],
        "half-close" => vec![Step::HalfClose],
        "hello" => vec![say("{hello} client.example"), hear("250 hello")?],
        "envelope" => {
            let mut steps = self::steps("hello", "")?;
            steps.extend([say("MAIL FROM:<sender@x.example>"), hear("250 2.1.0")?]);
            steps.extend([say("RCPT TO:<{to}>"), hear("250 2.1.5")?]);
            steps
        }
        "data" => {
            let mut steps = self::steps("envelope", "")?;
            steps.extend([say("DATA"), hear("354")?]);
            steps
        }
        _ => return None,
    })
}

/// `250 2.1.0 x100`, `501|553`, `250 hello`, `250 2.0.0 each 2`, `250 "queued as"`, `250 hello !"STARTTLS"`.
fn reply(text: &str) -> Option<Reply> {
    let (text, quoted) = match text.split_once('"') {
        Some((text, quoted)) => (text, Some(quoted.strip_suffix('"')?.to_owned())),
        None => (text, None),
    };
    let (text, contains, lacks) = match text.strip_suffix('!') {
        Some(text) => (text, None, Some(quoted?)),
        None => (text, quoted, None),
    };
    let mut words = text.split_whitespace();
    let codes: Vec<String> = words.next()?.split('|').map(str::to_owned).collect();
    codes.iter().all(|code| code.len() == 3 && code.parse::<u16>().is_ok()).then_some(())?;
    let mut reply = Reply { codes, contains, lacks, times: 1, times_by_lmtp: 1, ..Reply::default() };
    while let Some(word) = words.next() {
        if word == "hello" {
            reply.to_hello = true;
        } else if word == "each" {
            reply.times_by_lmtp = words.next()?.parse().ok()?;
        } else if let Some(times) = word.strip_prefix('x') {
            reply.times = times.parse().ok()?;
            reply.times_by_lmtp = reply.times;
        } else {
            (word.split('.').count() == 3).then(|| reply.enhanced = Some(word.to_owned()))?;
        }
    }
    Some(reply)
}

fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => Some(Duration::from_millis(number.parse().ok()?)),
        None => Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?)),
    }
}

/// What stands for itself in a text, and what is filled in: `{to}` and the like by `names`, `{100*text}` repeats, and
/// `\r \n \t \0 \\ \xHH` are octets.
///
/// # Errors
/// What cannot be read.
pub fn octets(text: &str, names: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '{' => {
                let (inner, after) = rest.split_once('}').ok_or_else(|| format!("no }} in {text}"))?;
                rest = after;
                octets.extend(filled_in(inner, names)?);
            }
            '\\' => {
                let (octet, len) = escape(rest).ok_or_else(|| format!("no such escape in {text}"))?;
                octets.push(octet);
                rest = &rest[len..];
            }
            _ => octets.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(octets)
}

fn filled_in(inner: &str, names: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    if let Some((_, value)) = names.iter().find(|(name, _)| *name == inner) {
        return Ok(value.as_bytes().to_vec());
    }
    let (times, what) = inner.split_once('*').ok_or_else(|| format!("nothing is named {{{inner}}}"))?;
    let times = times.parse::<usize>().map_err(|_| format!("{{{inner}}} has no number"))?;
    // A name within a repetition stands without its braces, behind a $.
    let what = names.iter().fold(what.to_owned(), |what, (name, value)| what.replace(&format!("${name}"), value));
    Ok(octets(&what, &[])?.repeat(times))
}

fn escape(rest: &str) -> Option<(u8, usize)> {
    Some(match rest.as_bytes().first()? {
        b'r' => (b'\r', 1),
        b'n' => (b'\n', 1),
        b't' => (b'\t', 1),
        b'0' => (0, 1),
        b'\\' => (b'\\', 1),
        b'x' => (u8::from_str_radix(rest.get(1..3)?, 16).ok()?, 3),
        _ => return None,
    })
}
