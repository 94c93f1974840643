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
