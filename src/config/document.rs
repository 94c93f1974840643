//! From the file's text and the environment to a [`Config`], with everything that is wrong.
//!
//! The file's tree keeps its spans, and the variables are put into it before serde sees it: one way for both. Each
//! key is tried alone first, because serde stops at the first error.

use std::ffi::OsString;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer};

use super::places::Spans;
use super::schema::{self, Keys};
use super::{Config, Places, Problem, Problems, environment, from_folder};

/// Reads the text of the file and the variables.
pub(super) fn read(
    file: Option<&Path>,
    text: &str,
    environment: &[(OsString, OsString)],
) -> Result<(Config, Places), Problems> {
    let (variables, mut problems) = environment::variables(environment);
    let spans = Spans::new(file, text, &variables);
    let keys = schema::all_keys();

    let (root, errors) = DeTable::parse_recoverable(text);
    problems.extend(errors.iter().map(|err| problem(&spans, err)));
    // What could not be read is half a tree: judging it would only blame what is right.
    let broken = !errors.is_empty();

    let mut tree = if broken { DeTable::new() } else { root.into_inner() };
    refuse_unknown(&mut tree, &keys, &keys, &spans, &mut problems);
    if let Some(folder) = file.and_then(Path::parent) {
        resolve_paths(&mut tree, folder, &spans, &mut problems);
    }
    environment::apply(&mut tree, &keys, &spans, &mut problems);
    problems.extend(wrong_values(&tree, &keys, &spans));
    Problems::none_or(problems)?;

    let mut places = Places::default();
    collect_places(&tree, "", &spans, &mut places);
    match deserialize(tree) {
        Ok(config) => Ok((config, places)),
        // Each key alone was right, so that this is a type that wants several of them at once.
        Err(err) => Err(Problems::one(problem(&spans, &err))),
    }
}

fn deserialize(tree: DeTable<'_>) -> Result<Config, toml::de::Error> {
    Config::deserialize(Deserializer::from(Spanned::new(0..0, tree)))
}

/// toml's message with its place; without the excerpt that its `Display` adds, since a file may hold a password where
/// none belongs.
fn problem(spans: &Spans<'_>, err: &toml::de::Error) -> Problem {
    Problem {
        place: err.span().and_then(|span| spans.place(&span)),
        message: err.message().trim_end().replace('\n', ", "),
    }
}

/// Takes keys out that do not exist, so that each is reported once and the rest can still be judged.
fn refuse_unknown(tree: &mut DeTable<'_>, here: &Keys, all: &Keys, spans: &Spans<'_>, problems: &mut Vec<Problem>) {
    let unknown: Vec<_> = tree.keys().filter(|key| !here.contains_key(key.get_ref().as_ref())).cloned().collect();
    for key in unknown {
        let name = key.get_ref().as_ref();
        let message = format!("unknown key `{name}`; {}", schema::hint(name, here, all));
        problems.push(Problem { place: spans.place(&key.span()), message });
        tree.remove(name);
    }
    for (key, value) in tree.iter_mut() {
        let Some(node) = here.get(key.get_ref().as_ref()) else { continue };
        let Some(below) = schema::keys_below(node) else { continue };
        match (value.get_mut(), node) {
            (DeValue::Table(table), Value::Object(_)) => refuse_unknown(table, below, all, spans, problems),
            (DeValue::Array(items), Value::Array(_)) => {
                let tables = items.iter_mut().filter_map(|item| as_table_mut(item.get_mut()));
                tables.for_each(|table| refuse_unknown(table, below, all, spans, problems));
            }
            // Of a wrong type, which serde says better.
            _ => {}
        }
    }
}

fn as_table_mut<'t, 'i>(value: &'t mut DeValue<'i>) -> Option<&'t mut DeTable<'i>> {
    match value {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// Makes the file's paths independent of where the process runs.
fn resolve_paths(tree: &mut DeTable<'_>, folder: &Path, spans: &Spans<'_>, problems: &mut Vec<Problem>) {
    for (key, value) in tree.iter_mut() {
        let is_path = key.get_ref().ends_with("_file") || key.get_ref().ends_with("_dir");
        let span = value.span();
        match value.get_mut() {
            DeValue::Table(table) => resolve_paths(table, folder, spans, problems),
            DeValue::Array(items) => {
                let tables = items.iter_mut().filter_map(|item| as_table_mut(item.get_mut()));
                tables.for_each(|table| resolve_paths(table, folder, spans, problems));
            }
            DeValue::String(path) if is_path => match from_folder(folder, path).into_os_string().into_string() {
                Ok(absolute) => *path = absolute.into(),
                Err(_) => problems.push(Problem {
                    place: spans.place(&span),
                    message: "the file lies in a folder whose name is not UTF-8; write an absolute path".to_owned(),
                }),
            },
            _ => {}
        }
    }
}

/// Tries each key of each section, and each table of each list, alone.
fn wrong_values<'i>(tree: &DeTable<'i>, keys: &Keys, spans: &Spans<'_>) -> Vec<Problem> {
    let mut pieces = Vec::new();
    for (key, value) in tree {
        let piece = |part: DeValue<'i>| table_of(key, &Spanned::new(value.span(), part));
        match (value.get_ref(), keys.get(key.get_ref().as_ref())) {
            (DeValue::Table(section), Some(Value::Object(_))) => {
                pieces.extend(section.iter().map(|(inner, value)| piece(DeValue::Table(table_of(inner, value)))));
            }
            (DeValue::Array(items), Some(Value::Array(_))) => {
                pieces.extend(items.iter().map(|item| piece(DeValue::Array(std::iter::once(item.clone()).collect()))));
            }
            (whole, _) => pieces.push(piece(whole.clone())),
        }
    }
    pieces.into_iter().filter_map(|piece| deserialize(piece).err()).map(|err| problem(spans, &err)).collect()
}

fn table_of<'i>(key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'i>>) -> DeTable<'i> {
    let key = Spanned::new(key.span(), DeString::Owned(key.get_ref().to_string()));
    std::iter::once((key, value.clone())).collect()
}

/// Notes where each key was set, sections and accounts too.
fn collect_places(tree: &DeTable<'_>, prefix: &str, spans: &Spans<'_>, places: &mut Places) {
    for (key, value) in tree {
        let path = format!("{prefix}{}", key.get_ref());
        if let Some(place) = spans.place(&key.span()) {
            places.insert(path.clone(), place);
        }
        match value.get_ref() {
            DeValue::Table(table) => collect_places(table, &format!("{path}."), spans, places),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    if let Some(place) = spans.place(&item.span()) {
                        places.insert(path.clone(), place);
                    }
                    if let DeValue::Table(table) = item.get_ref() {
                        collect_places(table, &format!("{path}."), spans, places);
                    }
                }
            }
            _ => {}
        }
    }
}
