//! Dates of the `Date` field (RFC 5322 §3.3 and §4.3), and the variants that programs write instead, as RFC 3339.
//!
//! The sender's zone is kept, since it tells what time of day it was there. Impossible dates are none at all.

use jiff::civil;

use crate::message::{address, header};

/// Longest value that is looked at, in octets.
const DATE_BYTES_MAX: usize = 200;

/// The date as RFC 3339. `Z` where the sender's zone is not known (RFC 9557 §2.2), `+00:00` where it is UTC.
pub(super) fn parse(value: &[u8]) -> Option<String> {
    let value = header::unfold(value);
    let text = without_comments(value.get(..DATE_BYTES_MAX).unwrap_or(&value));
    let mut fields = DateFields::default();
    for token in text.split([' ', ',']).filter(|token| !token.is_empty()) {
        fields.token(token);
    }
    fields.finish()
}

fn without_comments(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(open) = memchr::memchr(b'(', rest) {
        let (head, comment) = rest.split_at_checked(open).unwrap_or((rest, &[]));
        out.extend_from_slice(head);
        out.push(b' ');
        let close = address::comment_end(comment).unwrap_or(comment.len());
        rest = comment.get(close.saturating_add(1)..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    String::from_utf8_lossy(&out).into_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Minutes(i16),
    Unknown,
}

/// What was found so far; the first of each kind counts.
#[derive(Debug, Default)]
struct DateFields {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    time: Option<(i8, i8, i8)>,
    afternoon: Option<bool>,
    zone: Option<Zone>,
}

impl DateFields {
    fn token(&mut self, token: &str) {
        if let Some((date, time)) = token.split_once(['T', 't'])
            && self.numeric_date(date)
        {
            return self.token(time);
        }
        if self.numeric_date(token) {
            return;
        }
        if token.contains(':') && token.starts_with(|c: char| c.is_ascii_digit()) {
            self.time_token(token);
        } else if let Some(zone) = zone(token) {
            self.zone.get_or_insert(zone);
        } else if let Some(afternoon) = afternoon(token) {
            self.afternoon.get_or_insert(afternoon);
        } else if token.contains('-') && token.starts_with(|c: char| c.is_ascii_digit()) {
            // 01-Jan-2026. The pieces have no hyphen, so this goes one level deep.
            token.split('-').for_each(|piece| self.token(piece));
        } else if let Some(month) = month(token) {
            self.month.get_or_insert(month);
        } else {
            self.number(token);
        }
    }

    /// `2026-01-31` or `2026/01/31`: ISO 8601. Other orders with slashes are ambiguous.
    fn numeric_date(&mut self, token: &str) -> bool {
        let mut pieces = token.split(['-', '/']);
        let (Some(year), Some(month), Some(day), None) = (pieces.next(), pieces.next(), pieces.next(), pieces.next())
        else {
            return false;
        };
        let (4, Some(year), Some(month), Some(day)) = (year.len(), digits(year), digits(month), digits(day)) else {
            return false;
        };
        self.year.get_or_insert(year);
        self.month.get_or_insert(i8::try_from(month).unwrap_or_default());
        self.day.get_or_insert(i8::try_from(day).unwrap_or_default());
        true
    }

    /// `10:00`, `10:00:00`, `10:00:00.123`, each perhaps with a zone or AM/PM attached.
    fn time_token(&mut self, token: &str) {
        let end = token.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.')).unwrap_or(token.len());
        let (clock, suffix) = token.split_at_checked(end).unwrap_or((token, ""));
        let mut pieces = clock.split(':').map(|piece| piece.split('.').next().unwrap_or_default());
        let hour = pieces.next().and_then(digits);
        let minute = pieces.next().and_then(digits);
        let second = pieces.next().map_or(Some(0), digits);
        if let (Some(hour @ 0..=23), Some(minute @ 0..=59), Some(second @ 0..=60)) = (hour, minute, second) {
            // RFC 3339 has leap seconds, most readers of it have not.
            let small = |number: i16| i8::try_from(number).unwrap_or_default();
            self.time.get_or_insert((small(hour), small(minute), small(second.min(59))));
        }
        if !suffix.is_empty() {
            self.token(suffix);
        }
    }

    fn number(&mut self, token: &str) {
        let end = token.find(|c: char| !c.is_ascii_digit()).unwrap_or(token.len());
        let (number, suffix) = token.split_at_checked(end).unwrap_or((token, ""));
        let Some(value) = digits(number).filter(|_| matches!(suffix, "" | "." | "st" | "nd" | "rd" | "th")) else {
            return;
        };
        if number.len() <= 2 && self.day.is_none() {
            self.day = i8::try_from(value).ok();
        } else if self.year.is_none() {
            // RFC 5322 §4.3.
            self.year = match number.len() {
                4 => Some(value),
                2 if value < 50 => value.checked_add(2000),
                2 | 3 => value.checked_add(1900),
                _ => None,
            };
        }
    }

    fn finish(self) -> Option<String> {
        let (hour, minute, second) = self.time?;
        let hour = match (self.afternoon, hour) {
            (Some(true), 1..=11) => hour.checked_add(12)?,
            (Some(false), 12) => 0,
            (_, hour) => hour,
        };
        // In the last year that has four digits, a zone may lead to a fifth.
        let year = self.year.filter(|year| (1900..=9998).contains(year))?;
        let time = civil::DateTime::new(year, self.month?, self.day?, hour, minute, second, 0).ok()?;
        let zone = match self.zone {
            Some(Zone::Minutes(minutes)) => {
                let (sign, minutes) = (if minutes < 0 { '-' } else { '+' }, minutes.unsigned_abs());
                format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
            Some(Zone::Unknown) | None => "Z".to_owned(),
        };
        Some(format!("{}{zone}", time.strftime("%Y-%m-%dT%H:%M:%S")))
    }
}

fn digits(text: &str) -> Option<i16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn month(token: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let start = token.get(..3)?.to_ascii_lowercase();
    let at = MONTHS.iter().position(|month| *month == start)?;
    i8::try_from(at.saturating_add(1)).ok()
}

fn afternoon(token: &str) -> Option<bool> {
    match token.to_ascii_lowercase().as_str() {
        "am" | "a.m." => Some(false),
        "pm" | "p.m." => Some(true),
        _ => None,
    }
}

/// `+0200`, `+02:00`, `GMT+0200`, or a name.
fn zone(token: &str) -> Option<Zone> {
    if let Some(at) = token.find(['+', '-']) {
        let (name, offset) = token.split_at_checked(at)?;
        return name.bytes().all(|byte| byte.is_ascii_alphabetic()).then(|| offset_zone(offset)).flatten();
    }
    let hours = match token.to_ascii_uppercase().as_str() {
        "UT" | "UTC" | "GMT" | "Z" | "WET" => 0,
        "EST" | "CDT" => -5,
        "EDT" | "AST" => -4,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" | "AKDT" => -8,
        "AKST" => -9,
        "HST" => -10,
        "CET" | "MET" | "BST" | "WEST" => 1,
        "CEST" | "MEST" | "EET" | "SAST" => 2,
        "EEST" | "MSK" => 3,
        "IST" => return Some(Zone::Minutes(330)),
        "HKT" | "SGT" | "AWST" => 8,
        "JST" | "KST" => 9,
        "AEST" => 10,
        "AEDT" => 11,
        "NZST" => 12,
        "NZDT" => 13,
        _ => return None,
    };
    Some(Zone::Minutes(hours * 60))
}

/// RFC 5322 §3.3: `-0000` says that nothing is known of the sender's zone.
fn offset_zone(offset: &str) -> Option<Zone> {
    let negative = offset.starts_with('-');
    let number = offset.get(1..)?.replace(':', "");
    let value = digits(&number)?;
    let (hours, minutes) = match number.len() {
        1 | 2 => (value, 0),
        3 | 4 => (value / 100, value % 100),
        _ => return None,
    };
    match (hours, minutes) {
        (0, 0) if negative => Some(Zone::Unknown),
        (0..=23, 0..=59) => {
            let minutes = hours * 60 + minutes;
            Some(Zone::Minutes(if negative { -minutes } else { minutes }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_read_in_every_form() {
        for (value, expected) in [
            ("Fri, 20 Nov 2026 12:59:58 +0100", "2026-11-20T12:59:58+01:00"),
            ("20 Nov 2026 12:59 +0100", "2026-11-20T12:59:00+01:00"),
            ("Fri, 20 Nov 2026 12:59:58 -0330 (NST (x))", "2026-11-20T12:59:58-03:30"),
            ("Fri, 20 Nov 2026 12:59:58 -0000", "2026-11-20T12:59:58Z"),
            ("Fri, 20 Nov 2026 12:59:58", "2026-11-20T12:59:58Z"),
            ("Fri, 20 Nov 2026 12:59:58 GMT", "2026-11-20T12:59:58+00:00"),
            ("Fri, 20 Nov 2026 12:59:58 EDT", "2026-11-20T12:59:58-04:00"),
            ("Fri, 20 Nov 2026 12:59:58 CEST", "2026-11-20T12:59:58+02:00"),
            ("Fri, 20 Nov 2026 12:59:58 GMT+0200", "2026-11-20T12:59:58+02:00"),
            ("Fri, 20 Nov 2026 12:59:58.123 +0200", "2026-11-20T12:59:58+02:00"),
            ("Fri, 20 Nov 2026 10:00 GMT", "2026-11-20T10:00:00+00:00"),
            ("Thu,1 Jan 2026 10:00:00+0200", "2026-01-01T10:00:00+02:00"),
            ("Thu Jan  1 10:00:00 2026", "2026-01-01T10:00:00Z"),
            ("Thu Jan  1 10:00:00 CET 2026", "2026-01-01T10:00:00+01:00"),
            ("2026-01-31T10:00:00.5Z", "2026-01-31T10:00:00+00:00"),
            ("2026-01-31 10:00:00 +02:00", "2026-01-31T10:00:00+02:00"),
            ("2026-01-31T10:00:00-05:00", "2026-01-31T10:00:00-05:00"),
            ("01-Feb-2026 10:00:00 +0000", "2026-02-01T10:00:00+00:00"),
            ("February 1st, 2026 10:00 PM", "2026-02-01T22:00:00Z"),
            ("1 Jan 99 10:00:00 +0000", "1999-01-01T10:00:00+00:00"),
            ("1 Jan 26 10:00:00 +0000", "2026-01-01T10:00:00+00:00"),
            ("1 Jan 126 10:00:00 +0000", "2026-01-01T10:00:00+00:00"),
            ("Wed, 31 Dec 2025 23:59:60 +0000", "2025-12-31T23:59:59+00:00"),
        ] {
            assert_eq!(parse(value.as_bytes()).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn impossible_dates_are_none() {
        for value in [
            "",
            "32 Foo 2026 10:00:00 +0000",
            "30 Feb 2026 10:00:00 +0000",
            "1 Jan 2026 25:00:00 +0000",
            "1 Jan 2026",
            "1/2/2026 10:00:00",
            "1 Jan 0026 10:00:00",
            "31 Dec 9999 23:00:00 -2300",
            "(((((",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_none_or_a_real_date(value in "[0-9JanT:+ .,()Z-]{0,40}") {
            if let Some(date) = parse(value.as_bytes()) {
                prop_assert!(date.parse::<jiff::Timestamp>().is_ok(), "{date}");
            }
        }
    }
}
