//! SEARCH (RFC 3501 §7.2.5, with RFC 7162's MODSEQ) and ESEARCH (RFC 9051 §7.3.4).
//!
//! All or nothing: one number that is left out would look like a message that is gone. What makes no sense is known to
//! be part of an answer all the same, so that the other lines of it are not taken for the whole.

use super::UidSet;
use super::response::{Response, SearchResult};
use super::tokenizer::{Malformed, Tokens, lossy, number};

/// Ranges of one answer: 2 MiB have no room for more UIDs of five digits.
pub(super) const RANGES_MAX: usize = 400_000;

pub(super) fn response(read: Result<SearchResult, Malformed>) -> Response {
    let broken = |Malformed| SearchResult { is_broken: true, ..SearchResult::default() };
    Response::Search(Box::new(read.unwrap_or_else(broken)))
}

/// What follows `* SEARCH`.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<SearchResult, Malformed> {
    let mut mod_seq = None;
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    while !tokens.is_at_end() {
        if tokens.is_at_open() {
            mod_seq = mod_seq_in_list(tokens)?.or(mod_seq);
            continue;
        }
        let uid = tokens.number()?.and_then(|number| u32::try_from(number).ok()).ok_or(Malformed)?;
        let is_full = ranges.len() >= RANGES_MAX;
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ if is_full => return Err(Malformed),
            // Some servers say 0 for nothing.
            _ if uid > 0 => ranges.push((uid, uid)),
            _ => {}
        }
    }
    Ok(SearchResult { found: UidSet::of_ranges(ranges), mod_seq, ..SearchResult::default() })
}

/// `(MODSEQ 917162500)`
fn mod_seq_in_list(tokens: &mut Tokens<'_>) -> Result<Option<u64>, Malformed> {
    let texts = tokens.texts(2)?;
    let [name, value] = texts.as_slice() else { return Ok(None) };
    Ok(number(value.as_bytes()).filter(|_| name.eq_ignore_ascii_case("MODSEQ")))
}

/// What follows `* ESEARCH`: `(TAG "p3") UID ALL 4:18,21 MODSEQ 7`.
pub fn parse_extended(tokens: &mut Tokens<'_>) -> Result<SearchResult, Malformed> {
    let mut result = SearchResult::default();
    if tokens.is_at_open() {
        let texts = tokens.texts(2)?;
        if let [name, tag] = texts.as_slice()
            && name.eq_ignore_ascii_case("TAG")
        {
            result.tag = Some(tag.clone());
        }
    }
    while !tokens.is_at_end() {
        let Some(name) = tokens.string()? else { continue };
        match name.to_ascii_uppercase().as_slice() {
            b"UID" => {}
            b"ALL" => {
                let set = tokens.string()?.ok_or(Malformed)?;
                result.found = UidSet::parse(&lossy(&set), RANGES_MAX).ok_or(Malformed)?;
            }
            b"MODSEQ" => result.mod_seq = tokens.number()?,
            _ => tokens.skip()?,
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::super::{Response, parse as parse_response};
    use super::*;

    fn found(line: &str) -> SearchResult {
        match parse_response(format!("* {line}\r\n").as_bytes()) {
            Response::Search(result) => *result,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn numbers_become_ranges() {
        let result = found("SEARCH 2 84  3 882 4 (MODSEQ 917162500) ");
        assert_eq!((result.found.to_string().as_str(), result.mod_seq), ("2:4,84,882", Some(917_162_500)));
        assert_eq!(found("SEARCH"), SearchResult::default());
        assert_eq!(found("SEARCH 0"), SearchResult::default());
    }

    #[test]
    fn the_extended_form_says_what_it_answers() {
        let result = found("ESEARCH (TAG \"p7\") UID COUNT 5 ALL 9,4:1 MODSEQ 7 X-NEW (a b) MIN 1");
        let uids = UidSet::parse("1:4,9", 9).unwrap();
        let expected = SearchResult { tag: Some("p7".into()), found: uids, mod_seq: Some(7), is_broken: false };
        assert_eq!(result, expected);
        assert_eq!(found("ESEARCH (TAG \"p7\") UID").found, UidSet::new());
        assert_eq!(found("ESEARCH").tag, None);
    }

    /// One number that is left out would look like a message that is gone.
    #[test]
    fn all_or_nothing() {
        let broken = SearchResult { is_broken: true, ..SearchResult::default() };
        for wrong in [
            "SEARCH 1 x 2",
            "SEARCH 4294967296",
            "SEARCH 1 (MODSEQ",
            "SEARCH 1:2",
            "ESEARCH ALL 1,x",
            "ESEARCH ALL",
            "ESEARCH ALL 0",
        ] {
            assert_eq!(found(wrong), broken, "{wrong}");
        }
        let scattered = "1 3 ".repeat(RANGES_MAX / 2 + 1);
        assert_eq!(found(&format!("SEARCH {scattered}")), broken);
    }

    #[test]
    fn a_great_mailbox_is_small() {
        let all: Vec<String> = (1..=300_000).map(|uid: u32| uid.to_string()).collect();
        let result = found(&format!("SEARCH {}", all.join(" ")));
        assert_eq!((result.found.len(), result.found.ranges_len()), (300_000, 1));
    }
}
