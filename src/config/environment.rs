//! Environment variables over the file: `POSTRIDER_<SECTION>__<KEY>`, `POSTRIDER_ACCOUNT__<NAME>__<KEY>`.
//!
//! A variable has no type, so that the key decides: the text is taken as it is where the key accepts a string, else
//! as a TOML value, else as a list with commas. Variables that are not known are refused like unknown keys.

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue, ValueDeserializer};

use super::places::Spans;
use super::schema::{self, Keys};
use super::{Config, Problem};

const PREFIX: &str = "POSTRIDER_";

/// Variables that commands read by themselves, and that override no key.
const OTHERS: [&str; 6] = [
    "POSTRIDER_CONFIG",
    "POSTRIDER_CREDENTIALS_KEY",
    "POSTRIDER_IMAP_PASSWORD",
    "POSTRIDER_TOKEN",
    "POSTRIDER_TOKEN_FILE",
    "POSTRIDER_URL",
];

/// The variables that may override something, in the order of their names, with what is wrong with others.
pub(super) fn variables(environment: &[(OsString, OsString)]) -> (Vec<(String, String)>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut variables = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && !OTHERS.contains(name)) else {
            continue;
        };
        match value.to_str() {
            Some(value) => variables.push((name.to_owned(), value.to_owned())),
            None => problems.push(Problem { place: None, message: format!("{name} is not UTF-8") }),
        }
    }
    variables.sort();
    (variables, problems)
}

/// What a variable's name leads to.
enum Target {
    /// A key, by its path; the first element may be an account's list, then the second is the account's name.
    Key(Vec<String>),
    /// A whole section, which has no value.
    Section,
    /// The list of accounts, or one of them, without a key.
    Account,
    /// Nothing.
    Unknown,
}

/// Puts the variables into the tree of the file.
pub(super) fn apply<'i>(tree: &mut DeTable<'i>, keys: &Keys, spans: &Spans<'i>, problems: &mut Vec<Problem>) {
    let mut unknown = Vec::new();
    for (index, (name, text)) in spans.variables.iter().enumerate() {
        let span = spans.of_variable(index);
        let mut wrong = |message| problems.push(Problem { place: spans.place(&span), message });
        match target(name, keys) {
            Target::Key(path) => match fitting(&path, text, keys, &span) {
                Ok(value) => insert(tree, &path, value, keys).unwrap_or_else(&mut wrong),
                Err(message) => wrong(message),
            },
            Target::Section => wrong(format!("is a section; name one of its keys, as {name}__KEY")),
            Target::Account => wrong("name the account and the key, as POSTRIDER_ACCOUNT__ALICE__CONTENT".to_owned()),
            Target::Unknown => unknown.push((index, name)),
        }
    }
    // A variable may hold an account's password; which ones do is known only now.
    for (index, name) in unknown {
        if !holds_password(tree, name) {
            let message = format!("unknown variable; {}", hint(name, keys));
            problems.push(Problem { place: spans.place(&spans.of_variable(index)), message });
        }
    }
}

/// Follows a name through the keys that there are.
fn target(name: &str, keys: &Keys) -> Target {
    let path: Vec<String> =
        name.strip_prefix(PREFIX).unwrap_or(name).split("__").map(str::to_ascii_lowercase).collect();
    let mut steps = path.iter();
    let mut here = keys;
    loop {
        let Some(node) = steps.next().and_then(|step| here.get(step)) else { return Target::Unknown };
        match (node, schema::keys_below(node)) {
            (Value::Object(_), Some(below)) if !steps.as_slice().is_empty() => here = below,
            (Value::Object(_), Some(_)) => return Target::Section,
            (Value::Array(_), Some(below)) => match steps.as_slice() {
                [] | [_] => return Target::Account,
                _ => {
                    steps.next();
                    here = below;
                }
            },
            // An optional section that the example does not have: serde knows its keys.
            (Value::Null, _) => return Target::Key(path),
            _ if steps.as_slice().is_empty() => return Target::Key(path),
            _ => return Target::Unknown,
        }
    }
}

/// The text as what its key accepts, found by trying it in an otherwise right configuration.
fn fitting<'i>(
    path: &[String],
    text: &'i str,
    keys: &Keys,
    span: &Range<usize>,
) -> Result<Spanned<DeValue<'i>>, String> {
    let string = |text: &'i str| Spanned::new(span.clone(), DeValue::String(Cow::Borrowed(text)));
    let value = DeValue::parse(text.trim()).ok().map(|value| placed(value, span));
    // What begins with a bracket was meant as TOML's list: its commas separate nothing.
    let list = (!text.trim_start().starts_with('[')).then(|| {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Spanned::new(span.clone(), DeValue::Array(items.map(string).collect()))
    });
    let is_list = at_path(&Value::Object(keys.clone()), path).is_some_and(Value::is_array);
    let mut refusal = None;
    for (candidate, says_most) in [(Some(string(text)), true), (value, true), (list, is_list)] {
        let Some(candidate) = candidate else { continue };
        match accepted(path, candidate.clone(), keys) {
            Ok(()) => return Ok(candidate),
            Err(err) if says_most => refusal = Some(err),
            Err(_) => {}
        }
    }
    Err(refusal.unwrap_or_default())
}

/// Whether the example with this value at `path` is a configuration.
fn accepted(path: &[String], value: Spanned<DeValue<'_>>, keys: &Keys) -> Result<(), String> {
    let value = Value::deserialize(ValueDeserializer::from(value)).map_err(|err| err.message().to_owned())?;
    let mut example = Value::Object(keys.clone());
    replace(&mut example, path, value);
    Config::deserialize(example).map(drop).map_err(|err| err.to_string())
}

/// The node at `path`; the step after a list is an account's name, and the example has one account.
fn at_path<'k>(node: &'k Value, path: &[String]) -> Option<&'k Value> {
    match (path, node) {
        ([], node) => Some(node),
        ([_, rest @ ..], Value::Array(items)) => at_path(items.first()?, rest),
        ([key, rest @ ..], Value::Object(keys)) => at_path(keys.get(key)?, rest),
        _ => None,
    }
}

fn replace(node: &mut Value, path: &[String], value: Value) {
    match (path, node) {
        ([], node) => *node = value,
        ([_, rest @ ..], Value::Array(items)) => items.iter_mut().for_each(|item| replace(item, rest, value.clone())),
        ([key, rest @ ..], Value::Object(keys)) => {
            replace(keys.entry(key.as_str()).or_insert(Value::Null), rest, value);
        }
        (path, node) => {
            *node = Value::Object(Keys::new());
            replace(node, path, value);
        }
    }
}

/// Puts a value into the tree of the file, over what is there. What is there and is of the wrong type is left, since
/// it is reported anyway.
fn insert<'i>(tree: &mut DeTable<'i>, path: &[String], value: Spanned<DeValue<'i>>, keys: &Keys) -> Result<(), String> {
    let [first, rest @ ..] = path else { return Ok(()) };
    if rest.is_empty() {
        // Not only replaced: the key's place is the variable too.
        tree.remove(first.as_str());
        tree.insert(owned_key(first, value.span()), value);
        return Ok(());
    }
    match (keys.get(first), rest) {
        (Some(list @ Value::Array(_)), [name, rest @ ..]) => {
            let items = child(tree, first, value.span(), DeValue::Array(DeArray::default()));
            let DeValue::Array(items) = items else { return Ok(()) };
            let account = account_named(items, name, value.span())?;
            insert(account, rest, value, schema::keys_below(list).unwrap_or(&Keys::new()))
        }
        (node, rest) => {
            let section = child(tree, first, value.span(), DeValue::Table(DeTable::new()));
            let DeValue::Table(section) = section else { return Ok(()) };
            insert(section, rest, value, node.and_then(schema::keys_below).unwrap_or(&Keys::new()))
        }
    }
}

fn child<'t, 'i>(
    tree: &'t mut DeTable<'i>,
    name: &str,
    span: Range<usize>,
    default: DeValue<'i>,
) -> &'t mut DeValue<'i> {
    tree.entry(owned_key(name, span.clone())).or_insert(Spanned::new(span, default)).get_mut()
}

/// The account that a variable names; a new one if there is none, so that a container needs no file.
fn account_named<'t, 'i>(
    items: &'t mut DeArray<'i>,
    name: &str,
    span: Range<usize>,
) -> Result<&'t mut DeTable<'i>, String> {
    let is_meant = |item: &Spanned<DeValue<'_>>| {
        let own = item.get_ref().get("name").and_then(|name| name.get_ref().as_str());
        own.is_some_and(|own| as_segment(own) == as_segment(name))
    };
    let (found, more) = {
        let mut meant = items.iter().enumerate().filter(|(_, item)| is_meant(item));
        (meant.next().map(|(index, _)| index), meant.next().is_some())
    };
    if more {
        return Err("two accounts have names that are the same in a variable; set the key in the file".to_owned());
    }
    let index = found.unwrap_or_else(|| {
        let name = Spanned::new(span.clone(), DeValue::String(Cow::Owned(name.to_owned())));
        let account = std::iter::once((owned_key("name", span.clone()), name)).collect();
        items.push(Spanned::new(span, DeValue::Table(account)));
        items.len() - 1
    });
    match items.get_mut(index).map(Spanned::get_mut) {
        Some(DeValue::Table(account)) => Ok(account),
        _ => unreachable!("only a table has a name"),
    }
}

/// An account's name as a variable can carry it: `alice@example.org` becomes `alice_example_org`.
fn as_segment(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

fn owned_key(name: &str, span: Range<usize>) -> Spanned<DeString<'static>> {
    Spanned::new(span, Cow::Owned(name.to_owned()))
}

/// A parsed value whose every part is at the variable's place.
fn placed<'i>(value: Spanned<DeValue<'i>>, span: &Range<usize>) -> Spanned<DeValue<'i>> {
    let inner = match value.into_inner() {
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(|item| placed(item, span)).collect()),
        DeValue::Table(table) => {
            let entries = table.into_iter();
            let entries =
                entries.map(|(key, value)| (Spanned::new(span.clone(), key.into_inner()), placed(value, span)));
            DeValue::Table(entries.collect())
        }
        plain => plain,
    };
    Spanned::new(span.clone(), inner)
}

/// Whether an account says that its password is in this variable.
fn holds_password(tree: &DeTable<'_>, name: &str) -> bool {
    let names =
        |table: &DeValue<'_>, key: &str| table.get(key).is_some_and(|value| value.get_ref().as_str() == Some(name));
    if tree.get("dovecot").is_some_and(|section| names(section.get_ref(), "secret_env")) {
        return true;
    }
    let accounts = tree.get("account").and_then(|accounts| accounts.get_ref().as_array());
    accounts.into_iter().flatten().any(|account| {
        let mut sections = ["imap", "jmap"].into_iter().filter_map(|section| account.get_ref().get(section));
        sections.any(|section| names(section.get_ref(), "password_env"))
    })
}

/// The variable that was probably meant. The prefix, which all have, would make them all alike.
fn hint(wrong: &str, keys: &Keys) -> String {
    let wrong = wrong.strip_prefix(PREFIX).unwrap_or(wrong);
    let account = wrong.strip_prefix("ACCOUNT__").and_then(|rest| rest.split("__").next());
    let mut names: Vec<String> =
        OTHERS.iter().map(|name| name.strip_prefix(PREFIX).unwrap_or(name).to_owned()).collect();
    collect_names(&Value::Object(keys.clone()), "", account.unwrap_or("NAME"), &mut names);
    let near: Vec<String> = schema::nearest(wrong, names.iter().map(String::as_str))
        .into_iter()
        .map(|name| format!("{PREFIX}{name}"))
        .collect();
    match near.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => "a key is set by POSTRIDER_SECTION__KEY, with two underscores between section and key".to_owned(),
        near => format!("did you mean {}?", schema::any_of(near)),
    }
}

fn collect_names(node: &Value, prefix: &str, account: &str, names: &mut Vec<String>) {
    let Some(below) = schema::keys_below(node) else {
        names.push(prefix.trim_end_matches('_').to_owned());
        return;
    };
    let prefix = if node.is_array() { format!("{prefix}{account}__") } else { prefix.to_owned() };
    for (key, node) in below {
        collect_names(node, &format!("{prefix}{}__", key.to_ascii_uppercase()), account, names);
    }
}
