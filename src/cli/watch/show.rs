//! An event as one line for a person.
//!
//! What a mail says was written by anybody: no control character of it reaches the terminal, where it could move the
//! cursor, change the title or pretend to be another line.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

const FROM_CHARS_MAX: usize = 40;
const SUBJECT_CHARS_MAX: usize = 80;
const PREVIEW_CHARS_MAX: usize = 80;
const TEXT_CHARS_MAX: usize = 200;

/// How parts of a line are marked (ECMA-48 SGR), or nothing.
#[derive(Debug)]
pub(super) struct Palette {
    dim: &'static str,
    place: &'static str,
    bold: &'static str,
    alarm: &'static str,
    end: &'static str,
}

impl Palette {
    pub(super) const PLAIN: Self = Self { dim: "", place: "", bold: "", alarm: "", end: "" };
    pub(super) const COLOURS: Self =
        Self { dim: "\x1b[2m", place: "\x1b[36m", bold: "\x1b[1m", alarm: "\x1b[31m", end: "\x1b[0m" };
}

/// Time, account and mailbox, and what happened, without the end of the line.
pub(super) fn line(event: &Value, palette: &Palette, zone: &TimeZone) -> String {
    let Palette { dim, place, end, .. } = palette;
    format!("{dim}{}{end}  {place}{}{end}  {}", time(event, zone), whereabouts(event), what(event, palette))
}

fn time(event: &Value, zone: &TimeZone) -> String {
    let time = text(event, "/time").and_then(|time| time.parse::<Timestamp>().ok());
    time.map_or_else(|| "--:--:--".to_owned(), |time| time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string())
}

fn whereabouts(event: &Value) -> String {
    let place = match (text(event, "/account"), text(event, "/mailbox")) {
        (Some(account), Some(mailbox)) => format!("{account}/{mailbox}"),
        (Some(account), None) => account.to_owned(),
        _ => text(event, "/topics/0").unwrap_or("?").to_owned(),
    };
    printable(&place, SUBJECT_CHARS_MAX)
}

fn what(event: &Value, palette: &Palette) -> String {
    let Palette { dim, bold, alarm, end, .. } = palette;
    let kind = text(event, "/kind").unwrap_or("?");
    match kind {
        "MessageNew" if event.get("message").is_some() => {
            let subject = text(event, "/message/subject").unwrap_or("(no subject)");
            let subject = printable(subject, SUBJECT_CHARS_MAX);
            let preview = text(event, "/message/preview").map(|preview| printable(preview, PREVIEW_CHARS_MAX));
            let preview = preview.filter(|preview| !preview.is_empty()).map(|preview| format!("  {dim}{preview}{end}"));
            format!("{bold}{}{end}  {subject}{}", from(event), preview.unwrap_or_default())
        }
        "AccountDown" | "AccountAuthFailed" | "AccountAlert" | "ForwardFailed" => {
            format!("{alarm}{kind}{end}{}", details(event))
        }
        "Published" => {
            let name = text(event, "/type").unwrap_or(kind);
            format!("{bold}{}{end}{}", printable(name, FROM_CHARS_MAX), details(event))
        }
        _ => format!("{bold}{}{end}{}", printable(kind, FROM_CHARS_MAX), details(event)),
    }
}

/// The first sender: the name, and the address, which a name may lie about.
fn from(event: &Value) -> String {
    let address = text(event, "/message/from/0/address").unwrap_or("(unknown sender)");
    let address = printable(address, FROM_CHARS_MAX);
    match text(event, "/message/from/0/name").map(|name| printable(name, FROM_CHARS_MAX)) {
        Some(name) if !name.is_empty() => format!("{name} <{address}>"),
        _ => address,
    }
}

/// What else is there: the UID and flags of a message, the reason of an account's state, a publisher's data.
fn details(event: &Value) -> String {
    let uid = event.get("uid").and_then(Value::as_u64).map(|uid| format!("uid {uid}"));
    let flags = event.get("flags").and_then(Value::as_array).filter(|flags| !flags.is_empty());
    let flags = flags.map(|flags| flags.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let reason = text(event, "/reason").map(str::to_owned);
    let data = event.get("data").map(|data| data.as_str().map_or_else(|| data.to_string(), str::to_owned));
    let mut all = String::new();
    for detail in [uid, flags, reason, data].into_iter().flatten() {
        all.push_str("  ");
        all.push_str(&printable(&detail, TEXT_CHARS_MAX));
    }
    all
}

fn text<'e>(event: &'e Value, pointer: &str) -> Option<&'e str> {
    event.pointer(pointer)?.as_str()
}

/// The text on one line, at most so long, without anything that a terminal would obey or that reorders what is shown.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    let visible = text.chars().map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c });
    let visible = visible.filter(|c| !is_invisible(*c));
    for (count, c) in visible.enumerate() {
        if count == chars_max {
            shown.push('…');
            break;
        }
        if c != ' ' || !(shown.is_empty() || shown.ends_with(' ')) {
            shown.push(c);
        }
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// Marks of direction and other format characters (Unicode TR9 and TR36). The joiner of emoji stays.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn shown(event: &Value) -> String {
        line(event, &Palette::PLAIN, &TimeZone::UTC)
    }

    #[test]
    fn mail_shows_who_what_and_where() {
        let event = json!({
            "kind": "MessageNew", "time": "2026-11-20T12:00:00.123Z", "account": "alice", "mailbox": "INBOX",
            "message": {"from": [{"name": "Ada", "address": "ada@example.org"}], "subject": "Grüße", "preview": "Hi\nthere"}
        });
        assert_eq!(shown(&event), "12:00:00  alice/INBOX  Ada <ada@example.org>  Grüße  Hi there");
        let bare = json!({"kind": "MessageNew", "account": "alice", "message": {"from": []}});
        assert_eq!(shown(&bare), "--:--:--  alice  (unknown sender)  (no subject)");
        let none = json!({"kind": "MessageNew", "account": "alice", "mailbox": "INBOX", "uid": 7});
        assert_eq!(shown(&none), "--:--:--  alice/INBOX  MessageNew  uid 7");
    }

    #[test]
    fn other_events_show_their_details() {
        let flags = json!({"kind": "FlagsSet", "account": "a", "mailbox": "B", "uid": 7, "flags": ["\\Seen", "x"]});
        assert_eq!(shown(&flags), "--:--:--  a/B  FlagsSet  uid 7  \\Seen x");
        let down = json!({"kind": "AccountDown", "account": "a", "reason": "no route; check the network"});
        assert_eq!(shown(&down), "--:--:--  a  AccountDown  no route; check the network");
        let published = json!({"kind": "Published", "topics": ["builds/x"], "type": "build", "data": {"ok": true}});
        assert_eq!(shown(&published), "--:--:--  builds/x  build  {\"ok\":true}");
        assert_eq!(shown(&json!([1])), "--:--:--  ?  ?");
    }

    #[test]
    fn tricks_are_taken_out() {
        assert_eq!(printable("a\x1b]0;title\x07b\r\n\u{9b}2Jc\u{202e}d", 99), "a ]0;title b 2Jcd");
        assert_eq!(printable("  x \t y ", 99), "x y");
        assert_eq!(printable("abcdef", 3), "abc…");
        assert_eq!(printable("👩\u{200d}🚀", 9), "👩\u{200d}🚀");
    }

    #[test]
    fn colours_are_closed() {
        let event = json!({"kind": "AccountDown", "account": "a", "reason": "r"});
        let line = line(&event, &Palette::COLOURS, &TimeZone::UTC);
        assert!(line.contains("\x1b[31mAccountDown\x1b[0m"), "{line:?}");
    }

    proptest! {
        #[test]
        fn no_control_character_of_an_event_is_shown(texts in prop::collection::vec(any::<String>(), 9), kind in 0..4_usize) {
            let known = ["MessageNew", "AccountDown", "Published", &texts[0]];
            let event = json!({
                "kind": known[kind], "account": texts[1], "mailbox": texts[2], "topics": [texts[1]], "type": texts[3],
                "message": {"from": [{"name": texts[4], "address": texts[5]}], "subject": texts[6], "preview": texts[7]},
                "flags": [texts[8]], "reason": texts[8], "data": texts[8], "time": texts[8],
            });
            let line = shown(&event);
            prop_assert!(!line.chars().any(|c| c.is_control() || is_invisible(c)), "{:?}", line);
        }
    }
}
