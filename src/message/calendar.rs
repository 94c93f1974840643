//! Invitations and the answers to them (RFC 5546, RFC 6047): what is to happen, and when.
//!
//! No calendar is interpreted: of the first event or task the name and the start are shown as its sender has written them.

use crate::event::Calendar;
use crate::message::{charset, mime_tree::Tree, printable};

/// Octets that are read. Time zones stand before the event, and are long.
const SOURCE_MAX: usize = 64 * 1024;

/// Longest summary, in characters.
const SUMMARY_CHARS_MAX: usize = 300;

/// Longest method and name of a time zone, in characters.
const NAME_CHARS_MAX: usize = 64;

/// The calendar in the message, if there is one.
pub(super) fn find(tree: &Tree<'_>) -> Option<Calendar> {
    let is_calendar = |value: &str| matches!(value, "text/calendar" | "application/ics");
    let part = tree.parts.iter().find(|part| is_calendar(&part.content_type.value))?;
    let bytes = part.encoding.decode(part.body.get(..SOURCE_MAX).unwrap_or(part.body));
    // RFC 5545 §3.1.4: UTF-8 where nothing else is said.
    let text = charset::decode(&bytes, part.content_type.decoded("charset").as_deref());
    let mut calendar = read(&text);
    let method = part.content_type.decoded("method").or(calendar.method);
    calendar.method = method.map(|method| printable::cut_chars(method.to_ascii_lowercase(), NAME_CHARS_MAX));
    Some(calendar)
}

fn read(text: &str) -> Calendar {
    let mut calendar = Calendar::default();
    // The component that is described, and how many others are open in it: an alarm has a summary of its own.
    let (mut inside, mut nested) = (false, 0_usize);
    for line in unfolded(text).lines() {
        let Some((name, parameters, value)) = property(line) else { continue };
        match name.as_str() {
            "METHOD" if !inside => calendar.method = printable::non_empty(printable::line(value)),
            "BEGIN" if inside => nested = nested.saturating_add(1),
            "BEGIN" => inside = ["VEVENT", "VTODO", "VJOURNAL"].iter().any(|kind| value.eq_ignore_ascii_case(kind)),
            "END" if nested > 0 => nested = nested.saturating_sub(1),
            "END" if inside => break,
            "SUMMARY" if inside && nested == 0 => {
                let summary = printable::line(&unescaped(value));
                calendar.summary = printable::non_empty(printable::cut_chars(summary, SUMMARY_CHARS_MAX));
            }
            "DTSTART" if inside && nested == 0 => {
                calendar.start = start(value);
                let zone = parameter(parameters, "TZID").map(|zone| printable::line(zone.trim_matches('"')));
                calendar.time_zone =
                    zone.filter(|_| calendar.start.as_ref().is_some_and(|start| !start.ends_with('Z')));
                calendar.time_zone = calendar.time_zone.map(|zone| printable::cut_chars(zone, NAME_CHARS_MAX));
            }
            _ => {}
        }
    }
    calendar
}

/// Undoes folding (RFC 5545 §3.1).
fn unfolded(text: &str) -> String {
    text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "")
}

/// Splits `NAME;PARAMETER=x:value`. A colon may stand in a quoted parameter.
fn property(line: &str) -> Option<(String, &str, &str)> {
    let mut quoted = false;
    let colon = line.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b':' && !quoted
    })?;
    let (head, value) = (line.get(..colon)?, line.get(colon.saturating_add(1)..)?);
    let (name, parameters) = head.split_once(';').unwrap_or((head, ""));
    Some((name.trim().to_ascii_uppercase(), parameters, value.trim()))
}

fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// RFC 5545 §3.3.11.
fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n' | 'N') => out.push(' '),
                escaped => out.extend(escaped),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

/// `20261120T120000Z`, `20261120T120000` or `20261120`, with the signs that RFC 3339 has between.
fn start(value: &str) -> Option<String> {
    let (date, time) = value.split_once(['T', 't']).map_or((value, None), |(date, time)| (date, Some(time)));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let date = Some(date).filter(|date| date.len() == 8 && digits(date))?;
    let date = format!("{}-{}-{}", date.get(..4)?, date.get(4..6)?, date.get(6..)?);
    date.parse::<jiff::civil::Date>().ok()?;
    let Some(time) = time else { return Some(date) };
    let (clock, zone) = time.strip_suffix(['Z', 'z']).map_or((time, ""), |clock| (clock, "Z"));
    let clock = Some(clock).filter(|clock| clock.len() == 6 && digits(clock))?;
    let clock = format!("{}:{}:{}", clock.get(..2)?, clock.get(2..4)?, clock.get(4..)?);
    clock.parse::<jiff::civil::Time>().ok()?;
    Some(format!("{date}T{clock}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_event_is_read() {
        let text = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VTIMEZONE\r\nDTSTART:19700101T000000\r\nEND:VTIMEZONE\r\n\
            BEGIN:VEVENT\r\nBEGIN:VALARM\r\nSUMMARY:alarm\r\nEND:VALARM\r\n\
            DTSTART;X=\"a:b\";TZID=Europe/Berlin:20261120T120000\r\nSUMMARY;LANGUAGE=de:Lange\r\n  Be\r\n\tsprechung\\, x\\n\\;\r\n\
            END:VEVENT\r\nBEGIN:VEVENT\r\nSUMMARY:second\r\nEND:VEVENT\r\n";
        let expected = Calendar {
            method: Some("REQUEST".into()),
            summary: Some("Lange Besprechung, x ;".into()),
            start: Some("2026-11-20T12:00:00".into()),
            time_zone: Some("Europe/Berlin".into()),
        };
        assert_eq!(read(text), expected);
    }

    #[test]
    fn start_is_a_real_time_or_none() {
        for (value, expected) in [
            ("20261120T120000Z", Some("2026-11-20T12:00:00Z")),
            ("20261120", Some("2026-11-20")),
            ("20261320", None),
            ("20261120T250000", None),
            ("2026112", None),
            ("20261120T12", None),
            ("ü0261120", None),
        ] {
            assert_eq!(start(value).as_deref(), expected, "{value}");
        }
    }
}
