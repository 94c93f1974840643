//! ID: what a server says of itself (RFC 2971).

use super::tokenizer::{Malformed, Tokens, bounded, lossy};

/// RFC 2971 §3.3 allows 30.
const FIELDS_MAX: usize = 60;
/// The same allows 1,024 octets.
const VALUE_CHARS_MAX: usize = 1024;

/// What follows `* ID`. Fields without a value are left out.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<Vec<(String, String)>, Malformed> {
    if !tokens.is_at_open() {
        // NIL: a server that says nothing.
        return tokens.string().and_then(|other| if other.is_none() { Ok(Vec::new()) } else { Err(Malformed) });
    }
    let mut fields = Vec::new();
    tokens.open()?;
    while !tokens.close()? {
        let name = tokens.string()?;
        let value = if tokens.is_at_close() { None } else { tokens.string()? };
        if let (Some(name), Some(value)) = (name, value)
            && fields.len() < FIELDS_MAX
        {
            fields.push((lossy(&name).to_ascii_lowercase(), bounded(&value, VALUE_CHARS_MAX)));
        }
    }
    Ok(fields)
}
