//! Commands as they go over the wire: each string in the form that it needs, in as few writes as the server allows.
//!
//! One write matters: as several small segments a command waits for the peer's delayed acknowledgement. What is written
//! may be a password, so that its memory is wiped, also where a buffer grows.

use zeroize::Zeroizing;

use super::response::Capabilities;

/// Octets that are sent together. Wiped when they were.
pub type Line = Zeroizing<Vec<u8>>;

/// Longest quoted string: some servers have buffers of 1,024 octets for a token.
const QUOTED_BYTES_MAX: usize = 1000;
/// Longest literal that LITERAL- lets go unannounced (RFC 7888 §5).
const LITERAL_MINUS_BYTES_MAX: usize = 4096;

/// A command without its tag.
#[derive(Clone)]
pub struct Command {
    /// All but the last end in the announcement of a literal, after which the server's `+` is waited for.
    pieces: Vec<Line>,
    unannounced_bytes_max: usize,
}

impl Command {
    /// Of the command's name, and of what follows it where that is known to need no care.
    pub fn new(text: &str) -> Self {
        Self { pieces: vec![line(text.as_bytes())], unannounced_bytes_max: 0 }
    }

    /// For a server that may take literals without being asked (RFC 7888).
    #[must_use]
    pub fn for_server(mut self, capabilities: &Capabilities) -> Self {
        self.unannounced_bytes_max = if capabilities.has("LITERAL+") {
            usize::MAX
        } else if capabilities.has("LITERAL-") || capabilities.has("IMAP4REV2") {
            LITERAL_MINUS_BYTES_MAX
        } else {
            0
        };
        self
    }

    /// Adds a space and any text as a string: quoted where it may be (RFC 3501 §9: ASCII without line ends), else as a
    /// literal. No form can carry NUL; callers check what comes from outside.
    #[must_use]
    pub fn string(mut self, text: &str) -> Self {
        let is_quotable = text.bytes().all(|octet| octet.is_ascii() && !matches!(octet, b'\r' | b'\n' | 0));
        self.extend(b" ");
        if is_quotable && text.len() <= QUOTED_BYTES_MAX {
            self.extend(&Zeroizing::new(quoted(text).into_bytes()));
        } else if text.len() <= self.unannounced_bytes_max {
            self.extend(format!("{{{}+}}\r\n", text.len()).as_bytes());
            self.extend(text.as_bytes());
        } else {
            self.extend(format!("{{{}}}\r\n", text.len()).as_bytes());
            self.pieces.push(line(text.as_bytes()));
        }
        self
    }

    /// What is sent first, and then what follows each `+` of the server.
    pub fn into_lines(mut self, tag: &str) -> (Line, std::vec::IntoIter<Line>) {
        self.extend(b"\r\n");
        let mut pieces = self.pieces.into_iter();
        let mut first = line(tag.as_bytes());
        extend(&mut first, b" ");
        extend(&mut first, &pieces.next().unwrap_or_default());
        (first, pieces)
    }

    fn extend(&mut self, octets: &[u8]) {
        if let Some(last) = self.pieces.last_mut() {
            extend(last, octets);
        }
    }
}

impl From<&str> for Command {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&String> for Command {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

/// `text` as a quoted string. It holds no CR, LF or NUL: callers check what comes from outside.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() * 2 + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// A line of these octets, without a line end.
pub fn line(octets: &[u8]) -> Line {
    let mut line = Line::default();
    extend(&mut line, octets);
    line
}

/// Adds to a line. A vector that grows by itself would leave a copy of the password behind.
pub fn extend(line: &mut Line, octets: &[u8]) {
    let len = line.len() + octets.len();
    if len > line.capacity() {
        let mut grown = Zeroizing::new(Vec::with_capacity(len.next_power_of_two().max(64)));
        grown.extend_from_slice(line);
        *line = grown;
    }
    line.extend_from_slice(octets);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(command: Command) -> Vec<String> {
        let (first, rest) = command.into_lines("p1");
        std::iter::once(first).chain(rest).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    fn with(capability: &str) -> Capabilities {
        Capabilities(vec![capability.to_owned()])
    }

    #[test]
    fn strings_are_quoted_where_they_may_be() {
        let login = Command::new("LOGIN").string("ada").string("a\"b\\c ");
        assert_eq!(lines(login), ["p1 LOGIN \"ada\" \"a\\\"b\\\\c \"\r\n"]);
        assert_eq!(lines(Command::new("UID FETCH 4:* (UID)")), ["p1 UID FETCH 4:* (UID)\r\n"]);
    }

    #[test]
    fn other_strings_are_literals_that_wait_for_the_server_unless_it_needs_no_asking() {
        let login = |server: &str| lines(Command::new("LOGIN").for_server(&with(server)).string("ä").string("b\nc"));
        assert_eq!(login("IDLE"), ["p1 LOGIN {2}\r\n", "ä {3}\r\n", "b\nc\r\n"]);
        assert_eq!(login("LITERAL+"), ["p1 LOGIN {2+}\r\nä {3+}\r\nb\nc\r\n"]);
        let long = "x".repeat(5000);
        let long = |server: &str| lines(Command::new("X").for_server(&with(server)).string(&long)).len();
        assert_eq!((long("LITERAL+"), long("LITERAL-")), (1, 2));
    }

    #[test]
    fn a_line_that_grows_stays_what_it_is() {
        let mut text = line(b"");
        for octet in 0..=255_u8 {
            extend(&mut text, &[octet]);
        }
        assert_eq!(*text, (0..=255).collect::<Vec<u8>>());
    }
}
