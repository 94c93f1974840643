//! Which keys there are, and which of them was probably meant.

use serde_json::{Map, Value};

use super::Config;

/// The keys below one table.
pub(super) type Keys = Map<String, Value>;

/// A name that is less like the wrong one than this is not what was meant.
const SIMILAR: f64 = 0.6;

/// All keys, as the serialised example has them: `None` is there as null, which keeps the key.
pub(super) fn all_keys() -> Keys {
    match serde_json::to_value(Config::example()) {
        Ok(Value::Object(keys)) => keys,
        _ => unreachable!("a configuration serialises to an object"),
    }
}

/// The keys of a section, or of each table in a list of tables; nothing for a plain value.
pub(super) fn keys_below(node: &Value) -> Option<&Keys> {
    match node {
        Value::Object(keys) if !keys.is_empty() => Some(keys),
        Value::Array(items) => items.first().and_then(Value::as_object),
        _ => None,
    }
}

/// The names that were probably meant by a wrong one: those that continue it, else the most similar.
pub(super) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    let mut names: Vec<&str> = names.collect();
    let continued: Vec<_> =
        names.iter().copied().filter(|name| name.to_ascii_lowercase().starts_with(&wrong)).collect();
    if !continued.is_empty() {
        return continued;
    }
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(&wrong, &name.to_ascii_lowercase());
    names.retain(|name| likeness(name) >= SIMILAR);
    names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    names.truncate(1);
    names
}

/// What to write instead of a key that is not known.
pub(super) fn hint(wrong: &str, here: &Keys, all: &Keys) -> String {
    let names = || here.keys().map(String::as_str);
    let near = nearest(wrong, names());
    if !near.is_empty() {
        return format!("did you mean {}?", any_of(&near));
    }
    let elsewhere: Vec<&str> = all
        .iter()
        .filter(|(_, node)| keys_below(node).is_some_and(|keys| keys.contains_key(wrong)))
        .map(|(section, _)| section.as_str())
        .collect();
    match elsewhere.as_slice() {
        [section] => format!("it belongs into `{section}`"),
        _ => format!("known here: {}", any_of(&names().collect::<Vec<_>>())),
    }
}

/// `a`, `b` or `c`.
pub(super) fn any_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        all => all.concat(),
    }
}
