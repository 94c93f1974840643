//! OK, NO, BAD, PREAUTH and BYE with their codes, and what else is words and text (RFC 9051 §7.1, §7.2).

use super::response::{Capabilities, Code, Condition, Reply, Response};
use super::tokenizer::{Tokens, bounded, nonzero, number};

/// Text for people. More than that nobody reads.
const TEXT_CHARS_MAX: usize = 500;
/// A challenge of SASL is as long as its mechanism needs; 12,288 octets is the most that RFC 4422's programs take.
const CHALLENGE_CHARS_MAX: usize = 12_288;
/// Characters of a code's name, or of one capability.
const NAME_CHARS_MAX: usize = 100;
/// Servers have about 50.
const CAPABILITIES_MAX: usize = 500;

/// Reads a condition with what follows; nothing if it is something else.
pub fn parse(data: &[u8]) -> Option<Reply> {
    let data = data.trim_ascii_start();
    let word = data.iter().position(|octet| octet.is_ascii_whitespace() || *octet == b'[').unwrap_or(data.len());
    let (word, rest) = data.split_at(word);
    let condition = match word.to_ascii_uppercase().as_slice() {
        b"OK" => Condition::Ok,
        b"NO" => Condition::No,
        b"BAD" => Condition::Bad,
        b"PREAUTH" => Condition::PreAuth,
        b"BYE" => Condition::Bye,
        _ => return None,
    };
    let rest = rest.trim_ascii_start();
    let bracketed = rest.strip_prefix(b"[").and_then(|inside| Some((inside, code_len(inside)?)));
    let (code, text) = match bracketed {
        Some((inside, len)) => {
            let (inside, after) = inside.split_at(len);
            (code(inside), after.get(1..).unwrap_or_default().trim_ascii_start())
        }
        None => (None, rest),
    };
    Some(Reply { condition, code, text: bounded(text, TEXT_CHARS_MAX) })
}

/// `+` with its text.
pub fn continuation(line: &[u8]) -> Response {
    let text = line.strip_prefix(b"+").unwrap_or(line).trim_ascii_start();
    Response::Continue(bounded(text, CHALLENGE_CHARS_MAX))
}

/// Words in upper case.
pub fn capabilities(words: &[u8]) -> Capabilities {
    let words = words.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let upper = |word: &[u8]| bounded(word, NAME_CHARS_MAX).to_ascii_uppercase();
    Capabilities(words.take(CAPABILITIES_MAX).map(upper).collect())
}

/// Where the bracket closes. Flags in PERMANENTFLAGS may hold brackets themselves, so that one in a list or a string
/// does not count; if there is no other, it does.
fn code_len(inside: &[u8]) -> Option<usize> {
    let (mut depth, mut is_quoted) = (0_usize, false);
    let closing = inside.iter().position(|octet| {
        match octet {
            b'"' => is_quoted = !is_quoted,
            b'(' if !is_quoted => depth += 1,
            b')' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        *octet == b']' && depth == 0 && !is_quoted
    });
    closing.or_else(|| memchr::memchr(b']', inside))
}

fn code(inside: &[u8]) -> Option<Code> {
    let inside = inside.trim_ascii();
    let name = inside.iter().position(|octet| octet.is_ascii_whitespace() || *octet == b'(').unwrap_or(inside.len());
    let (name, argument) = inside.split_at(name);
    if name.is_empty() {
        return None;
    }
    let name = bounded(name, NAME_CHARS_MAX).to_ascii_uppercase();
    let argument = argument.trim_ascii();
    let known = match name.as_str() {
        "CAPABILITY" => Some(Code::Capability(capabilities(argument))),
        "UIDNEXT" => nonzero(argument).map(Code::UidNext),
        "UIDVALIDITY" => nonzero(argument).map(Code::UidValidity),
        "HIGHESTMODSEQ" => number(argument).map(Code::HighestModSeq),
        "MAILBOXID" => mailbox_id(argument).map(Code::MailboxId),
        _ => None,
    };
    Some(known.unwrap_or(Code::Named(name)))
}

/// `(F2212ea87-6097-4256-9d51-71338625)`, also without its parentheses.
pub(super) fn mailbox_id(argument: &[u8]) -> Option<String> {
    let mut tokens = Tokens::new(argument);
    if tokens.is_at_open() { tokens.texts(1).ok()?.pop() } else { tokens.text().ok()? }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn reply(line: &str) -> (Condition, Option<Code>, String) {
        match parse(line.as_bytes()) {
            Response::Status(reply) | Response::Tagged(_, reply) => (reply.condition, reply.code, reply.text),
            other => panic!("{other:?}"),
        }
    }

    fn named(name: &str) -> Code {
        Code::Named(name.into())
    }

    #[test]
    fn codes_are_read_with_their_arguments() {
        let code = |code: &str| reply(&format!("* OK [{code}] text\r\n")).1;
        assert_eq!(code("UIDNEXT 7"), Some(Code::UidNext(7)));
        assert_eq!(code("uidvalidity 3857529045"), Some(Code::UidValidity(3_857_529_045)));
        assert_eq!(code("HIGHESTMODSEQ 9223372036854775807"), Some(Code::HighestModSeq(9_223_372_036_854_775_807)));
        assert_eq!(code("MAILBOXID (F2212ea87)"), Some(Code::MailboxId("F2212ea87".into())));
        assert_eq!(code("MAILBOXID F2212ea87"), Some(Code::MailboxId("F2212ea87".into())));
        assert_eq!(code("UIDNEXT 0"), Some(named("UIDNEXT")), "no UID");
        assert_eq!(code("UIDNEXT"), Some(named("UIDNEXT")));
        for name in ["AUTHENTICATIONFAILED", "UNAVAILABLE", "LIMIT", "CLOSED", "NOMODSEQ", "NOTIFICATIONOVERFLOW"] {
            assert_eq!(code(name), Some(named(name)));
        }
        assert_eq!(code("WEBALERT https://accounts.example.com/?a=[b"), Some(named("WEBALERT")));
    }

    #[test]
    fn brackets_in_lists_and_strings_do_not_end_a_code() {
        let text = "* OK [PERMANENTFLAGS (\\Answered $a] \\*)] Limited\r\n";
        assert_eq!(reply(text), (Condition::Ok, Some(named("PERMANENTFLAGS")), "Limited".into()));
        let text = "* NO [BADCHARSET (\"a]\")] no\r\n";
        assert_eq!(reply(text), (Condition::No, Some(named("BADCHARSET")), "no".into()));
        assert_eq!(
            reply("* OK [X 5\" (] tall\r\n"),
            (Condition::Ok, Some(named("X")), "tall".into()),
            "no other ends it"
        );
        assert_eq!(reply("* OK [no code\r\n"), (Condition::Ok, None, "[no code".into()));
        assert_eq!(reply("* OK [] x\r\n"), (Condition::Ok, None, "x".into()));
    }

    #[test]
    fn a_code_may_be_followed_by_anything() {
        assert_eq!(reply("* OK [ALERT]é\r\n"), (Condition::Ok, Some(named("ALERT")), "é".into()));
        assert_eq!(reply("p1 NO [ALERT]日本\r\n"), (Condition::No, Some(named("ALERT")), "日本".into()));
        assert_eq!(reply("* BYE[é]é"), (Condition::Bye, Some(named("é")), "é".into()));
        assert_eq!(reply("* OK – ready\r\n"), (Condition::Ok, None, "– ready".into()));
    }

    #[test]
    fn what_is_long_is_cut() {
        let (_, code, text) = reply(&format!("* BYE [{}] {}\r\n", "X".repeat(5000), "é".repeat(5000)));
        assert_eq!(code, Some(named(&"X".repeat(NAME_CHARS_MAX))));
        assert_eq!(text, "é".repeat(TEXT_CHARS_MAX));
        let many = capabilities("IDLE ".repeat(10_000).as_bytes());
        assert_eq!(many.0.len(), CAPABILITIES_MAX);
    }

    #[test]
    fn a_continuation_has_its_text_whatever_it_is() {
        for (line, text) in
            [("+\r\n", ""), ("+ \r\n", ""), ("+ go ahead\r\n", "go ahead"), ("+ dGVzdA==\r\n", "dGVzdA==")]
        {
            assert_eq!(parse(line.as_bytes()), Response::Continue(text.into()));
        }
        let challenge = "a".repeat(8000);
        assert_eq!(parse(format!("+ {challenge}\r\n").as_bytes()), Response::Continue(challenge));
    }
}
