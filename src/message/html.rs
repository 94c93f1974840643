//! HTML to readable text.
//!
//! `nanohtml2text` does the conversion; a pass before it removes what is not meant to be seen (styles, scripts, comments,
//! preheaders with `display:none`) and repairs what would make it slow or wrong: tags without end, `<pre>`, which it copies
//! with its markup. The pass is linear, does not recurse, and copes with HTML that is cut anywhere.

use memchr::{memchr, memmem};

/// What the text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A line or two: no link targets, no quoted replies.
    Preview,
    /// All there is to read.
    Text,
}

/// What the end of the HTML is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its own: `AT&T` there is meant.
    Whole,
    /// Perhaps a cut in the middle of anything: `&uum` there is half of something.
    Cut,
}

/// Elements without content, which therefore cannot hide any.
const VOID: [&str; 14] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

/// Elements whose content is not markup and not shown.
const DROPPED: [&str; 7] = ["script", "style", "title", "template", "textarea", "xmp", "noframes"];

/// Longest name of a character reference that is taken for one when it is cut; what is longer is a word.
const ENTITY_BYTES_MAX: usize = 10;

/// Readable text of `html`, from the first `text_max` octets of it that are not markup.
pub(super) fn to_text(html: &str, purpose: Purpose, ending: Ending, text_max: usize) -> String {
    let (cleaned, hid_something) = Cleaner::new(html, purpose, ending, text_max).clean();
    let text = tidy(&nanohtml2text::html2text(&cleaned));
    if !text.is_empty() || !hid_something {
        return text;
    }
    // An element that hides everything, or was cut before its end, is better shown than nothing at all.
    let everything = Cleaner { hiding: false, ..Cleaner::new(html, purpose, ending, text_max) };
    tidy(&nanohtml2text::html2text(&everything.clean().0))
}

/// LF line ends, no blanks at line ends, at most one empty line in a row.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty_lines = 0_usize;
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            empty_lines = empty_lines.saturating_add(1);
            continue;
        }
        if !out.is_empty() {
            out.push_str(if empty_lines > 0 { "\n\n" } else { "\n" });
        }
        empty_lines = 0;
        out.push_str(line);
    }
    out
}

/// The element that hides what is read, and how many of its name are open.
struct Hidden<'a> {
    name: &'a str,
    open: usize,
}

struct Cleaner<'a> {
    rest: &'a str,
    out: String,
    purpose: Purpose,
    ending: Ending,
    hiding: bool,
    hid_something: bool,
    hidden: Option<Hidden<'a>>,
    pre: usize,
    in_link: bool,
    text_left: usize,
}

/// A tag, split: `<name attributes>` or `</name>`.
#[derive(Clone, Copy)]
struct Tag<'a> {
    whole: &'a str,
    name: &'a str,
    attributes: &'a str,
    closing: bool,
}

impl<'a> Cleaner<'a> {
    fn new(html: &'a str, purpose: Purpose, ending: Ending, text_left: usize) -> Self {
        let out = String::new();
        Self {
            rest: html,
            out,
            purpose,
            ending,
            hiding: true,
            hid_something: false,
            hidden: None,
            pre: 0,
            in_link: false,
            text_left,
        }
    }

    /// The cleaned HTML, and whether something was hidden.
    fn clean(mut self) -> (String, bool) {
        while !self.rest.is_empty() && self.text_left > 0 {
            let text_len = memchr(b'<', self.rest.as_bytes()).unwrap_or(self.rest.len());
            let text = self.split(text_len);
            self.text(text);
            if !self.rest.is_empty() {
                self.markup();
            }
        }
        if self.ending == Ending::Cut || self.text_left == 0 {
            self.drop_cut_entity();
        }
        self.end_link();
        (self.out, self.hid_something)
    }

    /// Drops half a character reference, like `&uum`, at the end of HTML that was cut there.
    fn drop_cut_entity(&mut self) {
        let before = self.out.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '#');
        if before.len().saturating_add(ENTITY_BYTES_MAX) > self.out.len()
            && let Some(text) = before.strip_suffix('&')
        {
            self.out.truncate(text.len());
        }
    }

    fn split(&mut self, len: usize) -> &'a str {
        let (head, tail) = self.rest.split_at_checked(len).unwrap_or((self.rest, ""));
        self.rest = tail;
        head
    }

    /// Skips past `end`; without it, everything is skipped.
    fn skip_past(&mut self, end: &str) {
        let at = memmem::find(self.rest.as_bytes(), end.as_bytes()).map(|at| at.saturating_add(end.len()));
        self.split(at.unwrap_or(self.rest.len()));
    }

    fn text(&mut self, text: &str) {
        if self.hidden.is_some() || text.is_empty() {
            return;
        }
        self.text_left = self.text_left.saturating_sub(text.trim().len());
        if self.pre > 0 {
            self.out.push_str(&text.replace("\r\n", "\n").replace('\n', "<br>"));
        } else {
            self.out.push_str(text);
        }
    }

    /// `rest` starts with `<`.
    fn markup(&mut self) {
        if self.rest.starts_with("<!--") {
            return self.skip_past("-->");
        }
        let Some(&after) = self.rest.as_bytes().get(1) else {
            self.rest = "";
            return;
        };
        if !(after.is_ascii_alphabetic() || matches!(after, b'/' | b'!' | b'?')) {
            self.split(1);
            return self.text("&lt;");
        }
        // A tag that does not end was cut, or swallows the rest in a browser too.
        let Some(end) = tag_end(self.rest) else {
            self.rest = "";
            return;
        };
        let whole = self.split(end);
        self.tag(Tag::parse(whole));
    }

    fn tag(&mut self, tag: Tag<'a>) {
        if !tag.closing && DROPPED.iter().any(|name| tag.is(name)) {
            // `<title/>` is an open title to a browser, but an empty one to those who write it.
            if !tag.attributes.ends_with('/') {
                self.skip_element(tag.name);
            }
            return;
        }
        if let Some(hidden) = &mut self.hidden {
            if tag.is(hidden.name) {
                hidden.open = if tag.closing { hidden.open.saturating_sub(1) } else { hidden.open.saturating_add(1) };
                if hidden.open == 0 {
                    self.hidden = None;
                }
            }
            return;
        }
        if self.hiding && !tag.closing && tag.is_hidden(self.purpose) {
            self.hid_something = true;
            if !tag.is_void() {
                self.hidden = Some(Hidden { name: tag.name, open: 1 });
            }
            return;
        }
        self.emit(tag);
    }

    /// Skips to the end tag of an element whose content is no markup.
    fn skip_element(&mut self, name: &str) {
        loop {
            self.skip_past("</");
            let Some(start) = self.rest.get(..name.len()) else {
                self.rest = "";
                return;
            };
            if start.eq_ignore_ascii_case(name) {
                return self.skip_past(">");
            }
        }
    }

    fn emit(&mut self, tag: Tag<'a>) {
        if tag.is("pre") {
            self.pre = if tag.closing { self.pre.saturating_sub(1) } else { self.pre.saturating_add(1) };
            self.out.push_str("<div>");
        } else if tag.is("a") {
            self.end_link();
            if !tag.closing && self.purpose == Purpose::Text {
                self.out.push_str(tag.whole);
                self.in_link = true;
            }
        } else if tag.is("plaintext") || tag.is("head") {
            // Both change how `nanohtml2text` reads all that follows.
        } else if tag.is("img") {
            self.out.push_str(tag.whole);
        } else if !tag.name.is_empty() {
            self.out.push_str(if tag.closing { "</" } else { "<" });
            self.out.push_str(tag.name);
            self.out.push('>');
        }
    }

    /// Links do not nest (HTML §4.5.1), and `nanohtml2text` reads the inside of each nested one again.
    fn end_link(&mut self) {
        if std::mem::take(&mut self.in_link) {
            self.out.push_str("</a>");
        }
    }
}

impl<'a> Tag<'a> {
    /// `whole` starts with `<` and ends with `>`.
    fn parse(whole: &'a str) -> Self {
        let inner = whole.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')).unwrap_or_default();
        let (closing, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
        let end = inner.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inner.len());
        let (name, attributes) = inner.split_at_checked(end).unwrap_or((inner, ""));
        Self { whole, name, attributes, closing }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn is_void(&self) -> bool {
        self.attributes.ends_with('/') || VOID.iter().any(|name| self.is(name))
    }

    fn is_hidden(&self, purpose: Purpose) -> bool {
        if self.attributes.is_empty() || self.is("body") || self.is("html") {
            return false;
        }
        let compact: String =
            self.attributes.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
        let quotes = || compact.contains("gmail_quote") || self.is("blockquote") && compact.contains("type=\"cite\"");
        ["display:none", "visibility:hidden", "mso-hide:all"].iter().any(|style| compact.contains(style))
            || purpose == Purpose::Preview && quotes()
    }
}

/// Length of the tag at the start, with its `>`. Quotes count only after `=`, as `nanohtml2text` has it: an apostrophe
/// elsewhere must not swallow the text behind it.
fn tag_end(markup: &str) -> Option<usize> {
    let mut quote = None;
    let mut after_equals = false;
    for (at, byte) in markup.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) => {
                if byte == open {
                    (quote, after_equals) = (None, false);
                }
            }
            (None, b'>') => return at.checked_add(1),
            (None, b'"' | b'\'') if after_equals => quote = Some(byte),
            (None, b'=') => after_equals = true,
            (None, byte) => after_equals &= byte.is_ascii_whitespace(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(html: &str) -> String {
        to_text(html, Purpose::Text, Ending::Cut, 100_000)
    }

    #[test]
    fn only_what_is_seen_is_kept() {
        for (html, expected) in [
            ("<html><head><title>t</title><style>p{}</style></head><body><p>Hi <b>you</b></p></body>", "Hi you"),
            ("<head><style>p{}</style><body>no end of head", "no end of head"),
            ("<div style=\"display: none; x\">pre<div>header</div></div>Hello", "Hello"),
            ("<span style='DISPLAY:NONE'>x</span><img style=display:none alt=y>Hello", "Hello"),
            ("<div style=\"display:none\">all there is", "all there is"),
            ("a<!-- <p>b -->c<script>if (a</b) x</script>d", "acd"),
            ("5 < 6 &amp; 7 &gt; 6 &uuml;&#252;", "5 < 6 & 7 > 6 üü"),
            ("<pre>a\n <b>b</b> &amp;</pre>c", "a\nb &\n\nc"),
            ("<ul><li>one</li><li>two</li></ul>", "one\ntwo"),
            ("<a href=\"https://x/?a>b\">link</a> end", "link (https://x/?a>b) end"),
            ("<p>it's</p><p title='>'>x", "it's\n\nx"),
            ("cut <span sty", "cut"),
            ("cut &uum", "cut"),
            ("cut <", "cut"),
            ("cut <!-- x", "cut"),
            ("cut <style>p", "cut"),
            ("<a href=x>one<a href=y>two</a></a> three", "one (x)two (y) three"),
            ("<title/>shown<script src=x></script>", "shown"),
            ("<plaintext><b>x</b>", "x"),
        ] {
            assert_eq!(text(html), expected, "{html}");
        }
    }

    #[test]
    fn end_is_kept_where_nothing_was_cut() {
        assert_eq!(to_text("AT&T", Purpose::Text, Ending::Whole, 100), "AT&T");
    }

    #[test]
    fn preview_has_no_link_targets_and_no_quotes() {
        let html = "<a href=x>Yes</a>.<div class=\"gmail_quote\">On Monday<blockquote>old</blockquote></div>";
        assert_eq!(to_text(html, Purpose::Preview, Ending::Cut, 1_000), "Yes.");
    }

    /// A megabyte of each; anything quadratic would not end.
    #[test]
    fn bombs_take_linear_time() {
        for unit in [
            "<div>",
            "<",
            "<a href=x>",
            "<!--",
            "<style>",
            "</",
            "<a ",
            "<p x=\"",
            "<pre>",
            "&",
            "&#",
            "<script></",
            "<b style=display:none>",
            "<div style=display:none></div>",
            "<textarea>",
            "<head>",
            "<li>\n",
            "<!-->",
        ] {
            text(&unit.repeat(1_000_000 / unit.len()));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_converted(html in "(<|>|/|a|pre|style|=|\"|'|!|-|&|#|;|x| |ü|\n|display:none|</a>|<b>){0,60}") {
            text(&html);
            to_text(&html, Purpose::Preview, Ending::Whole, 10);
        }
    }
}
