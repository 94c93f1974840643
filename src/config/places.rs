//! Where each setting was made, so that what is wrong can be found.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file.
    File {
        /// The file, shared by all that was set in it.
        path: Arc<Path>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In an environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where; nowhere for what the command line said, or nobody.
    pub place: Option<Place>,
    /// What, and what to do. Never the value of a key that is not known: it may be a password.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Everything that is wrong, in the order of the file, then of the variables. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn none_or(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    pub(super) fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used")?;
        match self.0.as_slice() {
            [one] => write!(f, ": {one}"),
            several => several.iter().try_for_each(|problem| write!(f, "\n  {problem}")),
        }
    }
}

impl std::error::Error for Problems {}

/// The place of each key that was set, by its path (`account[0].imap.host`).
#[derive(Debug, Clone, Default)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    pub(super) fn insert(&mut self, path: String, place: Place) {
        self.0.insert(path, place);
    }

    /// Where a key was set, if it was.
    pub fn of(&self, path: &str) -> Option<&Place> {
        self.0.get(path)
    }

    /// The key with its place, for a message that names several.
    pub(super) fn name(&self, path: &str, key: &str) -> String {
        self.of(path).map_or_else(|| format!("`{key}`"), |place| format!("`{key}` ({place})"))
    }
}

/// Tells the place of a span. The file's text has its own spans; each environment variable has a made-up one behind
/// the end of the file, so that toml's errors point at variables as well.
#[derive(Debug, Clone)]
pub(super) struct Spans<'a> {
    file: Option<Arc<Path>>,
    pub text: &'a str,
    pub variables: &'a [(String, String)],
    /// Where each line begins: to count lines anew for each key takes minutes for a file with ten thousand accounts.
    line_starts: Vec<usize>,
}

impl<'a> Spans<'a> {
    pub(super) fn new(file: Option<&Path>, text: &'a str, variables: &'a [(String, String)]) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.map(Arc::from), text, variables, line_starts }
    }

    /// The span that stands for a variable.
    pub(super) fn of_variable(&self, index: usize) -> Range<usize> {
        // One more than the length, since the end of the file is a place in the file.
        let at = self.text.len() + 1 + index;
        at..at
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Option<Place> {
        if let Some(index) = span.start.checked_sub(self.text.len() + 1) {
            return self.variables.get(index).map(|(name, _)| Place::Variable(name.clone()));
        }
        let line = self.line_starts.partition_point(|&start| start <= span.start);
        let line_start = *self.line_starts.get(line.checked_sub(1)?)?;
        let column = self.text.get(line_start..span.start)?.chars().count() + 1;
        Some(Place::File { path: self.file.clone()?, line, column })
    }
}
