//! Mailboxes and topics that are made of what was captured from an address. Pure.

use std::collections::HashMap;

use crate::event::Topic;

/// Text with captures in it: `hosts/$host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Capture(usize),
}

/// What stands for what: the numbers and names of captures.
#[derive(Debug, Default)]
pub(super) struct CaptureNames {
    count: usize,
    by_name: HashMap<String, usize>,
}

impl CaptureNames {
    /// Captures 1 to `count`, some of which have names too.
    pub(super) fn new(count: usize, names: impl IntoIterator<Item = (String, usize)>) -> Self {
        Self { count, by_name: names.into_iter().collect() }
    }

    /// Captures, those that have only a name too.
    pub(super) fn len(&self) -> usize {
        self.by_name.values().copied().fold(self.count, usize::max)
    }

    fn number(&self, name: &str) -> Option<usize> {
        match name.parse() {
            Ok(number) => (1..=self.count).contains(&number).then_some(number),
            Err(_) => self.by_name.get(name).copied(),
        }
    }
}

impl Template {
    /// Reads `$1`, `$name`, `${name}`, and `$$` for a dollar sign.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence that has named it.
    pub(super) fn parse(text: &str, names: &CaptureNames) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            parts.push(Part::Text(before.to_owned()));
            let (name, behind) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or("has a `${` without its `}`")?,
                None if after.starts_with('$') => ("$", after.get(1..).unwrap_or_default()),
                None => after.split_at(name_len(after)),
            };
            parts.push(match name {
                "$" => Part::Text("$".to_owned()),
                name => {
                    Part::Capture(names.number(name).ok_or_else(|| format!("has `${name}`, which nothing captures"))?)
                }
            });
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The text with `captures`, the first of which is number 1, as they are.
    pub(super) fn expand(&self, captures: &[&str]) -> String {
        self.expand_with(captures, String::push_str)
    }

    /// The topic with each capture as one segment of it; none where that makes none, or one that belongs to accounts.
    pub(super) fn topic(&self, captures: &[&str]) -> Option<Topic> {
        let text = self.expand_with(captures, |text, capture| text.push_str(&Topic::segment(capture)));
        Topic::parse(&text).ok().filter(|_| !is_of_accounts(&text))
    }

    fn expand_with(&self, captures: &[&str], mut push: impl FnMut(&mut String, &str)) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Capture(number) => push(&mut text, captures.get(number - 1).copied().unwrap_or_default()),
            }
        }
        text
    }
}

/// A number ends with its digits: what stands behind it may be text.
fn name_len(text: &str) -> usize {
    let is_number = text.starts_with(|first: char| first.is_ascii_digit());
    let goes_on = |c: char| if is_number { c.is_ascii_digit() } else { c.is_ascii_alphanumeric() || c == '_' };
    text.find(|c| !goes_on(c)).unwrap_or(text.len())
}

/// Whoever may see an account's topics may see what is there: nobody else puts anything there.
fn is_of_accounts(topic: &str) -> bool {
    topic == "mail" || topic.starts_with("mail/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> CaptureNames {
        CaptureNames::new(2, [("host".to_owned(), 2)])
    }

    fn topic(text: &str, captures: &[&str]) -> Option<String> {
        Template::parse(text, &names()).unwrap().topic(captures).map(|topic| topic.as_str().to_owned())
    }

    #[test]
    fn captures_are_put_in_by_number_and_name() {
        let expand = |text| Template::parse(text, &names()).unwrap().expand(&["A/b", "web"]);
        assert_eq!(expand("Alerts/$1"), "Alerts/A/b");
        assert_eq!(expand("$host-$1$2"), "web-A/bweb");
        assert_eq!(expand("${host}s cost $$5"), "webs cost $5");
        assert_eq!(expand("plain"), "plain");
        assert_eq!(expand("the $1st"), "the A/bst", "a number ends with its digits");
        assert_eq!(topic("hosts/$host/$1", &["A/b", "web"]).as_deref(), Some("hosts/web/A%2Fb"), "one segment each");
    }

    #[test]
    fn what_nothing_captures_is_an_error() {
        for wrong in ["$3", "$0", "$hosts", "${host", "$", "a$ b", "${}"] {
            assert!(Template::parse(wrong, &names()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_capture_makes_a_topic_of_an_account() {
        assert_eq!(topic("$1/bob/INBOX", &["mail", ""]), None);
        assert_eq!(topic("mail/bob", &[]), None);
        assert_eq!(topic("$1", &["", ""]), None);
        assert_eq!(topic("mailing/$1", &["x", ""]).as_deref(), Some("mailing/x"));
        assert_eq!(topic("$1", &[&"ä".repeat(600), ""]), None, "too long");
    }
}
