//! WHATWG URL patterns as topic matchers.
//!
//! They come from anybody: an expression in a pattern runs in time linear in the topic (Rust's `regex` has no
//! backtracking), and what it compiles to has a bound.

use std::fmt;

use regex::{Regex, RegexBuilder};
use url::Url;
use urlpattern::matcher::Matcher;
use urlpattern::regexp::RegExp;
use urlpattern::{RegexSyntax, UrlPattern as Parsed, UrlPatternInit, UrlPatternOptions};

/// What one component of a pattern may compile to: enough for the longest text, where `(?:.{1000}){1000}` would take
/// megabytes.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// A compiled pattern, with the address that relative topics start at.
pub(super) struct UrlPattern {
    base: Url,
    protocol: Matcher<Bounded>,
    username: Matcher<Bounded>,
    password: Matcher<Bounded>,
    hostname: Matcher<Bounded>,
    port: Matcher<Bounded>,
    pathname: Matcher<Bounded>,
    search: Matcher<Bounded>,
    hash: Matcher<Bounded>,
}

impl UrlPattern {
    /// None for what is no pattern, or too large a one.
    pub(super) fn compile(pattern: &str, base: &Url) -> Option<Self> {
        let init = UrlPatternInit::parse_constructor_string::<Bounded>(pattern, Some(base.clone())).ok()?;
        let options = UrlPatternOptions { regex_syntax: RegexSyntax::Rust, ignore_case: false };
        let parsed = Parsed::<Bounded>::parse(init, options).ok()?;
        Some(Self {
            base: base.clone(),
            protocol: parsed.protocol.matcher,
            username: parsed.username.matcher,
            password: parsed.password.matcher,
            hostname: parsed.hostname.matcher,
            port: parsed.port.matcher,
            pathname: parsed.pathname.matcher,
            search: parsed.search.matcher,
            hash: parsed.hash.matcher,
        })
    }

    /// Whether a topic, resolved against the base, is one of the pattern's. What is no URL never is.
    pub(super) fn matches(&self, topic: &str) -> bool {
        let Ok(url) = self.base.join(topic) else { return false };
        let port = url.port().map(|port| port.to_string()).unwrap_or_default();
        self.protocol.matches(url.scheme()).is_some()
            && self.hostname.matches(url.host_str().unwrap_or_default()).is_some()
            && self.port.matches(&port).is_some()
            && self.pathname.matches(url.path()).is_some()
            && self.search.matches(url.query().unwrap_or_default()).is_some()
            && self.hash.matches(url.fragment().unwrap_or_default()).is_some()
            && self.username.matches(url.username()).is_some()
            && self.password.matches(url.password().unwrap_or_default()).is_some()
    }
}

impl fmt::Debug for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlPattern")
    }
}

/// An expression with a bound on what it compiles to.
#[derive(Debug)]
struct Bounded(Regex);

impl RegExp for Bounded {
    fn syntax() -> RegexSyntax {
        RegexSyntax::Rust
    }

    fn parse(pattern: &str, _flags: &str, _force_eval: bool) -> Result<Self, ()> {
        let built =
            RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build();
        built.map(Self).map_err(|_| ())
    }

    fn matches<'a>(&self, text: &'a str) -> Option<Vec<Option<&'a str>>> {
        // What the groups held is of no interest here.
        self.0.is_match(text).then(Vec::new)
    }

    fn pattern_string(&self) -> &str {
        self.0.as_str()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        let base = Url::parse("https://hub.example/.well-known/mercure").unwrap();
        UrlPattern::compile(pattern, &base).unwrap_or_else(|| panic!("{pattern}")).matches(topic)
    }

    #[test]
    fn patterns_match_as_the_standard_says() {
        for (pattern, topic, wanted) in [
            ("https://a.example/books/:id", "https://a.example/books/1", true),
            ("https://a.example/books/:id", "https://a.example/books/1/pages", false),
            ("https://a.example/books/:id", "https://b.example/books/1", false),
            ("https://a.example/books/:id", "http://a.example/books/1", false),
            ("https://a.example/books/*", "https://a.example/books/1/pages", true),
            ("https://*.example/x", "https://a.b.example/x", true),
            ("https://a.example/:id(\\d+)", "https://a.example/17", true),
            ("https://a.example/:id(\\d+)", "https://a.example/x7", false),
            ("https://a.example/x{/z}?", "https://a.example/x", true),
            ("https://a.example/B", "https://a.example/b", false),
            ("https://a.example/x?q=*", "https://a.example/x?q=1", true),
            ("https://a.example/x", "https://a.example/x?q=1#f", true),
            ("https://a.example/x?", "https://a.example/x?q=1", false),
            ("/mail/alice/:mailbox", "/mail/alice/INBOX", true),
            ("/mail/alice/:mailbox", "https://hub.example/mail/alice/INBOX", true),
            ("/mail/alice/:mailbox", "https://other.example/mail/alice/INBOX", false),
            ("mail/alice/:mailbox", "mail/alice/INBOX", true),
            ("mail/alice/:mailbox", "mail/bob/INBOX", false),
            ("https://a.example/x", "https://", false),
        ] {
            assert_eq!(matches(pattern, topic), wanted, "{pattern} {topic}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused() {
        let base = Url::parse("https://hub.example/.well-known/mercure").unwrap();
        for wrong in
            ["https://a.example/(", "/:", "/(?=x)", "/((.{1000}){1000})", "https://a.example/{", "/(\\p{L}{999})"]
        {
            assert!(UrlPattern::compile(wrong, &base).is_none(), "{wrong}");
        }
    }

    #[test]
    fn hostile_expressions_take_linear_time() {
        let topic = format!("https://a.example/{}!", "a".repeat(900));
        let begun = Instant::now();
        for pattern in ["/((?:(?:a|a)*)*b)", "/((?:a*)*c)", "/*a*a*a*a*a*a*a*a*a*a*a*a*c", "/:a-:b-:c-:d-:e"] {
            for _ in 0..50 {
                assert!(!matches(&format!("https://a.example{pattern}"), &topic), "{pattern}");
            }
        }
        // Backtracking would take longer than the age of the universe.
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}
