//! Topic matchers: what subscribers ask for and what tokens allow.
//!
//! A matcher is `*`, an exact topic, an RFC 6570 URI template, which matches every topic that it can expand to (Mercure's
//! rule; a template also equals itself as a string), or a WHATWG URL pattern. Templates compile to a small automaton that runs in
//! time linear in the topic, since matchers come from outside. Which value goes with which variable is not
//! tracked: `{id}/{id}` also matches two different values.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::topic::{Topic, TopicError, check};
use super::url_pattern::UrlPattern;

/// Decides which topics somebody asked for, or may see.
#[derive(Clone)]
pub struct TopicMatcher {
    text: Box<str>,
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    All,
    Exact,
    Template(Box<[Step]>),
    UrlPattern(Arc<UrlPattern>),
}

/// One state of a template's automaton.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Exactly this byte.
    Byte(u8),
    /// Any number of characters of the class.
    Many(Class),
    /// This byte and then the step behind it, or neither.
    Maybe(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    /// RFC 3986 §2.2's reserved characters too, as `{+var}` and `{#var}` expand to.
    reserved: bool,
    /// What joins several variables, or a name and its value.
    joins: &'static [u8],
}

/// Why a text is not a topic matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatcherError {
    /// It cannot be a topic either.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Braces that do not make an RFC 6570 expression.
    #[error("not a URI template (RFC 6570): {0}")]
    Template(&'static str),
    /// No URL pattern.
    #[error("not a URL pattern (WHATWG), or one that is too large")]
    UrlPattern,
}

/// States of the longest automaton: a byte of template makes at most two.
const WORDS: usize = (2 * Topic::BYTES_MAX + 64) / 64;

impl TopicMatcher {
    /// Checks a matcher that came from outside.
    ///
    /// # Errors
    /// See [`MatcherError`].
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        check(text, Topic::BYTES_MAX)?;
        let rule = if text == "*" {
            Rule::All
        } else if text.contains(['{', '}']) {
            Rule::Template(compile(text)?)
        } else {
            Rule::Exact
        };
        Ok(Self { text: text.into(), rule })
    }

    /// The longest URL pattern, in bytes of UTF-8.
    pub const URL_PATTERN_BYTES_MAX: usize = 4096;

    /// Checks a URL pattern that came from outside. Relative ones, and relative topics, start at `base`.
    ///
    /// # Errors
    /// See [`MatcherError`].
    pub fn parse_url_pattern(text: &str, base: &Url) -> Result<Self, MatcherError> {
        check(text, Self::URL_PATTERN_BYTES_MAX)?;
        if text == "*" {
            return Ok(Self::all());
        }
        let pattern = UrlPattern::compile(text, base).ok_or(MatcherError::UrlPattern)?;
        Ok(Self { text: text.into(), rule: Rule::UrlPattern(Arc::new(pattern)) })
    }

    /// Checks a topic that came from outside and is meant as it stands, whatever braces are in it; `*` is all the same
    /// everything.
    ///
    /// # Errors
    /// See [`MatcherError`].
    pub fn parse_exact(text: &str) -> Result<Self, MatcherError> {
        if text == "*" {
            return Ok(Self::all());
        }
        Ok(Self::exact(&Topic::parse(text)?))
    }

    /// The matcher for one topic, literally.
    pub fn exact(topic: &Topic) -> Self {
        Self { text: topic.as_str().into(), rule: Rule::Exact }
    }

    /// The matcher for everything.
    pub fn all() -> Self {
        Self { text: "*".into(), rule: Rule::All }
    }

    /// Whether the topic is one of those asked for.
    pub fn matches(&self, topic: &Topic) -> bool {
        match &self.rule {
            Rule::All => true,
            Rule::Exact => *self.text == *topic.as_str(),
            Rule::Template(steps) => {
                // Mostly it is somebody else's mailbox: thousands of matchers are asked about each event.
                topic.as_str().starts_with(self.literal_prefix())
                    && (*self.text == *topic.as_str() || run(steps, topic.as_str().as_bytes()))
            }
            Rule::UrlPattern(pattern) => pattern.matches(topic.as_str()),
        }
    }

    /// The one topic that it matches, if it is not a pattern.
    pub fn as_exact(&self) -> Option<&str> {
        matches!(self.rule, Rule::Exact).then_some(&*self.text)
    }

    /// Whether it is a URL pattern, rather than a topic or a template.
    pub fn is_url_pattern(&self) -> bool {
        matches!(self.rule, Rule::UrlPattern(_))
    }

    /// Two matchers with the same text are the same only if they mean the same by it.
    fn kind(&self) -> std::mem::Discriminant<Rule> {
        std::mem::discriminant(&self.rule)
    }

    /// Whether it matches everything.
    pub fn is_all(&self) -> bool {
        matches!(self.rule, Rule::All)
    }

    /// What every topic that it matches begins with.
    pub fn literal_prefix(&self) -> &str {
        match self.rule {
            Rule::All | Rule::UrlPattern(_) => "",
            Rule::Exact => &self.text,
            // Before the first expression the template is literal text.
            Rule::Template(_) => self.text.split('{').next().unwrap_or(""),
        }
    }

    /// The text that it was made of.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for TopicMatcher {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.kind() == other.kind()
    }
}

impl Eq for TopicMatcher {}

impl Hash for TopicMatcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Debug for TopicMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for TopicMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for TopicMatcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        Self::parse(text)
    }
}

impl Serialize for TopicMatcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As text, it is read back as a template where it has braces.
        if self.is_url_pattern() || (self.as_exact().is_some() && self.text.contains(['{', '}'])) {
            let mut map = serializer.serialize_map(Some(2))?;
            map.serialize_entry("match", &self.text)?;
            map.serialize_entry("match_type", if self.is_url_pattern() { "urlpattern" } else { "exact" })?;
            return map.end();
        }
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for TopicMatcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Turns a template into its automaton.
fn compile(template: &str) -> Result<Box<[Step]>, MatcherError> {
    let mut steps = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let (literal, expression) = rest.split_at(open);
        steps.extend(literal.bytes().map(Step::Byte));
        let inner = expression.strip_prefix('{').ok_or(MatcherError::Template("a `}` without its `{`"))?;
        let (inner, after) = inner.split_once('}').ok_or(MatcherError::Template("a `{` without its `}`"))?;
        compile_expression(inner, &mut steps)?;
        rest = after;
    }
    steps.extend(rest.bytes().map(Step::Byte));
    Ok(steps.into())
}

/// One `{…}`: RFC 6570 §3.2's table of operators, each with what begins and what joins its expansion.
fn compile_expression(inner: &str, steps: &mut Vec<Step>) -> Result<(), MatcherError> {
    let (first, reserved, joins, variables): (Option<u8>, bool, &'static [u8], &str) = match inner.as_bytes().first() {
        Some(b'+') => (None, true, b"", &inner[1..]),
        Some(b'#') => (Some(b'#'), true, b"", &inner[1..]),
        Some(b'.') => (Some(b'.'), false, b".,=", &inner[1..]),
        Some(b'/') => (Some(b'/'), false, b"/,=", &inner[1..]),
        Some(b';') => (Some(b';'), false, b";,=", &inner[1..]),
        Some(b'?') => (Some(b'?'), false, b"&,=", &inner[1..]),
        Some(b'&') => (Some(b'&'), false, b"&,=", &inner[1..]),
        _ => (None, false, b",=", inner),
    };
    for variable in variables.split(',') {
        let name = variable.strip_suffix('*').unwrap_or(variable);
        let (name, length) = name.split_once(':').map_or((name, None), |(name, length)| (name, Some(length)));
        let name_ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.%".contains(&b));
        if !name_ok {
            return Err(MatcherError::Template("a variable name has letters, digits, `_`, `.` and `%XX` only"));
        }
        if length.is_some_and(|length| !length.parse::<u16>().is_ok_and(|n| (1..10_000).contains(&n))) {
            return Err(MatcherError::Template("a prefix length is a number from 1 to 9999"));
        }
    }
    steps.extend(first.map(Step::Maybe));
    steps.push(Step::Many(Class { reserved, joins }));
    Ok(())
}

/// Follows all paths through the automaton at once.
fn run(steps: &[Step], topic: &[u8]) -> bool {
    let mut states = Set::default();
    states.enter(steps, 0);
    for (at, &byte) in topic.iter().enumerate() {
        let mut next = Set::default();
        let mut alive = false;
        for (index, step) in steps.iter().enumerate().filter(|(index, _)| states.has(*index)) {
            match step {
                Step::Byte(wanted) if *wanted == byte => next.enter(steps, index + 1),
                // The step behind a `Maybe` is its class: stay there for whatever follows.
                Step::Maybe(wanted) if *wanted == byte => next.enter(steps, index + 1),
                Step::Many(class) if class.contains(topic, at) => next.enter(steps, index),
                _ => continue,
            }
            alive = true;
        }
        if !alive {
            return false;
        }
        states = next;
    }
    states.has(steps.len())
}

impl Class {
    /// Whether the byte at `at` can be part of an expanded value (RFC 6570 §3.2.1).
    fn contains(self, topic: &[u8], at: usize) -> bool {
        let byte = topic.get(at).copied().unwrap_or(0);
        match byte {
            b'%' => topic.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
            b'-' | b'.' | b'_' | b'~' => true,
            _ if byte.is_ascii_alphanumeric() => true,
            _ => self.joins.contains(&byte) || (self.reserved && b":/?#[]@!$&'()*+,;=".contains(&byte)),
        }
    }
}

/// The states that the automaton is in.
struct Set([u64; WORDS]);

impl Default for Set {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Set {
    fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Enters a state and all that can be reached from it without reading a byte.
    fn enter(&mut self, steps: &[Step], mut index: usize) {
        // A state that is there brought along what can be reached from it: this keeps the whole run linear.
        while !self.has(index) {
            if let Some(word) = self.0.get_mut(index / 64) {
                *word |= 1 << (index % 64);
            }
            index += match steps.get(index) {
                Some(Step::Many(_)) => 1,
                Some(Step::Maybe(_)) => 2,
                _ => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(matcher: &str, topic: &str) -> bool {
        TopicMatcher::parse(matcher).unwrap().matches(&Topic::parse(topic).unwrap())
    }

    #[test]
    fn exact_topics_and_the_wildcard() {
        assert!(matches("mail/alice/INBOX", "mail/alice/INBOX"));
        assert!(!matches("mail/alice/INBOX", "mail/alice/INBOX2"));
        assert!(matches("*", "anything at all"));
    }

    #[test]
    fn templates_match_what_they_expand_to() {
        assert!(matches("mail/alice/{mailbox}", "mail/alice/INBOX"));
        assert!(matches("mail/alice/{mailbox}", "mail/alice/Lists%2Frust"));
        assert!(!matches("mail/alice/{mailbox}", "mail/alice/Lists/rust"), "a variable stays in its segment");
        assert!(!matches("mail/alice/{mailbox}", "mail/alice2/INBOX"));
        assert!(!matches("mail/alice/{mailbox}", "mail/alice/a%2"), "half an escape is not an expansion");
        assert!(matches("mail/{+rest}", "mail/alice/INBOX"));
        assert!(matches("mail{/account,mailbox}", "mail/alice/INBOX"));
        assert!(matches("mail{/account,mailbox}", "mail"));
        assert!(matches("https://example.org/books/{id}.jsonld", "https://example.org/books/1.jsonld"));
        assert!(!matches("https://example.org/books/{id}.jsonld", "https://example.org/books/1.json"));
        assert!(matches("x{?q}", "x?q=1"));
        assert!(matches("mail/alice/{mailbox}", "mail/alice/{mailbox}"), "a template equals itself");
    }

    #[test]
    fn broken_templates_are_refused() {
        for wrong in ["{", "}", "a{b", "a}b", "{}", "{a b}", "{a:0}", "{a:x}", "{{a}}"] {
            assert!(matches!(TopicMatcher::parse(wrong), Err(MatcherError::Template(_))), "{wrong}");
        }
        assert_eq!(TopicMatcher::parse("").unwrap_err(), MatcherError::Topic(TopicError::Empty));
    }

    #[test]
    fn many_expressions_take_linear_time() {
        let matcher = TopicMatcher::parse(&"{a}".repeat(341)).unwrap();
        let topic = Topic::parse(&format!("{}!", "x".repeat(1023))).unwrap();
        // Backtracking would take longer than the age of the universe.
        for _ in 0..10 {
            assert!(!matcher.matches(&topic));
        }
    }

    proptest! {
        #[test]
        fn any_encoded_value_is_matched_by_its_variable(account in "\\PC{1,20}", mailbox in "\\PC{1,20}") {
            let account = super::super::AccountName::parse(&account).unwrap();
            let topic = Topic::mailbox(&account, &mailbox);
            let (one, all) = ("mail/{account}", "mail/{account}/{mailbox}");
            let [one, all] = [one, all].map(|text| TopicMatcher::parse(text).unwrap().matches(&topic));
            prop_assert!(all && !one);
        }

        #[test]
        fn no_text_panics(matcher in "[a-z{}/?+#.;&:*,0-9%]{0,40}", topic in "[a-z/%0-9?{}]{1,40}") {
            if let (Ok(matcher), Ok(topic)) = (TopicMatcher::parse(&matcher), Topic::parse(&topic)) {
                let _ = matcher.matches(&topic);
            }
        }
    }
}
