//! VANISHED (RFC 7162 §3.2.10).

use super::UidSet;
use super::response::Response;
use super::search::RANGES_MAX;
use super::tokenizer::{Malformed, Tokens};

/// What follows `* VANISHED`: `(EARLIER) 300:310,405`.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<Response, Malformed> {
    let earlier = tokens.is_at_open() && tokens.texts(1)?.iter().any(|word| word.eq_ignore_ascii_case("EARLIER"));
    let set = tokens.string()?.ok_or(Malformed)?;
    let set = std::str::from_utf8(&set).map_err(|_| Malformed)?;
    let uids = UidSet::parse(set, RANGES_MAX).ok_or(Malformed)?;
    if tokens.is_at_end() { Ok(Response::Vanished { earlier, uids }) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::super::parse as parse_response;
    use super::*;

    #[test]
    fn the_past_is_told_from_the_present() {
        let vanished = |line: &str| parse_response(format!("* VANISHED {line}\r\n").as_bytes());
        let uids = || UidSet::parse("300:310,405", 9).unwrap();
        assert_eq!(vanished("405,300:310"), Response::Vanished { earlier: false, uids: uids() });
        assert_eq!(vanished("(Earlier) 300:310,405"), Response::Vanished { earlier: true, uids: uids() });
        for wrong in ["", "()", "(EARLIER)", "NIL", "1:*", "1 2", "(EARLIER 1", "\"", "0", "é"] {
            assert_eq!(vanished(wrong), Response::Unreadable, "{wrong}");
        }
    }
}
