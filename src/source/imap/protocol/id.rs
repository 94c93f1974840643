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

#[cfg(test)]
mod tests {
    use super::super::{Response, parse};

    #[test]
    fn a_server_may_say_who_it_is() {
        let id = |line: &str| parse(format!("* ID {line}\r\n").as_bytes());
        let fields = vec![("name".to_owned(), "Cyrus".to_owned()), ("version".to_owned(), "3 \"6\"".to_owned())];
        assert_eq!(id(r#"("Name" "Cyrus" "os" NIL "version" "3 \"6\"")"#), Response::Id(fields));
        assert_eq!(id("NIL"), Response::Id(Vec::new()));
        assert_eq!(id("()"), Response::Id(Vec::new()));
        assert_eq!(id("(\"name\")"), Response::Id(Vec::new()));
        assert_eq!(id("(\"name\" (x))"), Response::Unreadable);
        assert_eq!(id(""), Response::Unreadable);
        let Response::Id(many) = id(&format!("({})", "\"a\" \"b\" ".repeat(1000))) else { panic!("no ID") };
        assert_eq!(many.len(), super::FIELDS_MAX);
    }
}
