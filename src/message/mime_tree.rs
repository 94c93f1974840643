//! Splits a message into its MIME parts (RFC 2046 §5.1).
//!
//! One pass over the lines with a stack of open boundaries, so that time is linear, nothing recurses, and a part cut
//! short or never closed still counts. Mailparse is not used here: it keeps every part of a multipart, without limit,
//! decodes each part's Content-Type in quadratic time, and refuses a message as a whole for one odd line or for its
//! nesting. It serves as the oracle of a test.

use std::collections::HashSet;

use memchr::memmem;

use crate::event::Defect;
use crate::message::{
    defects::Defects,
    header::{Field, Fields},
    parameters::{Parameterised, filename},
    transfer::Encoding,
};

/// Open multiparts at one time. Real mail has fewer than ten; Postfix allows 100 by default.
const DEPTH_MAX: usize = 50;

/// Parts of one message that are looked at.
const PARTS_MAX: usize = 1_000;

/// How much of a multipart without a boundary is searched for one, in octets.
const GUESS_BYTES_MAX: usize = 4 * 1024;

/// What the fields of a part begin with (RFC 2045 §9).
const CONTENT: &[u8] = b"Content-";

/// One part, leaf or multipart.
#[derive(Debug, Clone, Default)]
pub(super) struct Part<'a> {
    /// Index of the enclosing multipart; None for the message itself.
    pub(super) parent: Option<usize>,
    /// `type/subtype` and its parameters.
    pub(super) content_type: Parameterised,
    pub(super) disposition: Parameterised,
    pub(super) encoding: Encoding,
    /// Has a Content-ID: another part refers to it.
    pub(super) has_content_id: bool,
    /// A multipart in too many others: its parts were not looked for.
    pub(super) is_too_deep: bool,
    /// Raw body; of a multipart, what precedes its first part.
    pub(super) body: &'a [u8],
}

impl Part<'_> {
    pub(super) fn is_multipart(&self) -> bool {
        self.content_type.value.starts_with("multipart/")
    }

    pub(super) fn filename(&self) -> Option<String> {
        filename(|name| self.disposition.raw(name), |name| self.content_type.raw(name))
    }
}

/// The parts in the order of the message, each multipart before what it contains.
#[derive(Debug, Default)]
pub(super) struct Tree<'a> {
    pub(super) parts: Vec<Part<'a>>,
    /// What is wrong with the structure.
    pub(super) defects: Defects,
}

/// Splits a whole message.
pub(super) fn split(raw: &[u8]) -> Tree<'_> {
    let mut splitter = Splitter { raw, tree: Tree::default(), open: Vec::new(), body_start: None };
    splitter.run();
    splitter.tree
}

/// A multipart whose closing boundary was not read yet.
struct Open {
    part: usize,
    boundary: Vec<u8>,
}

struct Splitter<'a> {
    raw: &'a [u8],
    tree: Tree<'a>,
    open: Vec<Open>,
    /// Where the body of the last part starts, while it is read.
    body_start: Option<usize>,
}

impl Splitter<'_> {
    fn run(&mut self) {
        let mut at = self.begin_part(0);
        while !self.open.is_empty() {
            let Some((line_start, line_end)) = self.next_dash_line(at) else { break };
            at = line_end;
            let line = self.raw.get(line_start..line_end).unwrap_or_default();
            let Some((level, closes)) = self.match_boundary(line) else { continue };
            self.end_body(line_start);
            // What was still open inside this multipart was never closed.
            let inside = level.saturating_add(1);
            self.tree.defects.note_if(self.open.len() > inside, Defect::MultipartNotClosed);
            self.open.truncate(if closes { level } else { inside });
            if closes {
                continue;
            }
            if self.tree.parts.len() >= PARTS_MAX {
                self.tree.defects.note(Defect::TooManyParts);
                return;
            }
            at = self.begin_part(line_end);
        }
        // One without any part is told by `BoundaryNotFound`.
        let last = self.tree.parts.len().saturating_sub(1);
        self.tree.defects.note_if(self.open.iter().any(|open| open.part < last), Defect::MultipartNotClosed);
        self.end_body(self.raw.len());
        self.adopt_empty_multiparts();
    }

    /// Reads the fields of the part that starts at `start`; returns where its body does.
    fn begin_part(&mut self, start: usize) -> usize {
        let bytes = self.raw.get(start..).unwrap_or_default();
        let mut fields = Fields::new(bytes);
        let parent = self.open.last().map(|open| open.part);
        let in_digest = parent
            .and_then(|parent| self.tree.parts.get(parent))
            .is_some_and(|parent| parent.content_type.value == "multipart/digest");
        let mut part = Part { parent, ..read_fields(&mut fields, in_digest, &mut self.tree.defects) };
        self.tree.defects.extend(fields.defects.clone());
        let body_start = self.raw.len().saturating_sub(fields.into_body().len());
        if part.is_multipart() {
            let boundary = part.content_type.raw_boundary();
            self.tree.defects.note_if(boundary.is_none(), Defect::BoundaryMissing);
            let boundary = boundary.or_else(|| guessed_boundary(self.raw.get(body_start..).unwrap_or_default()));
            match boundary {
                Some(boundary) if self.open.len() < DEPTH_MAX => {
                    self.open.push(Open { part: self.tree.parts.len(), boundary });
                }
                Some(_) => {
                    part.is_too_deep = true;
                    self.tree.defects.note(Defect::TooDeep);
                }
                None => {}
            }
        }
        self.tree.parts.push(part);
        self.body_start = Some(body_start);
        body_start
    }

    fn end_body(&mut self, end: usize) {
        let Some(start) = self.body_start.take() else { return };
        let body = self.raw.get(start..end).unwrap_or_default();
        // The line end before a boundary belongs to the boundary (RFC 2046 §5.1.1).
        let at_boundary = end < self.raw.len();
        let body =
            body.strip_suffix(b"\n").filter(|_| at_boundary).map_or(body, |b| b.strip_suffix(b"\r").unwrap_or(b));
        if let Some(part) = self.tree.parts.last_mut() {
            part.body = body;
        }
    }

    /// The next line that begins with two hyphens, from `at`, which is the start of a line.
    fn next_dash_line(&self, at: usize) -> Option<(usize, usize)> {
        let rest = self.raw.get(at..)?;
        let offset = if rest.starts_with(b"--") { 0 } else { memmem::find(rest, b"\n--")?.saturating_add(1) };
        let start = at.saturating_add(offset);
        let line = self.raw.get(start..)?;
        let len = memchr::memchr(b'\n', line).map_or(line.len(), |lf| lf.saturating_add(1));
        Some((start, start.saturating_add(len)))
    }

    /// Which open multipart this line delimits, innermost first, and whether it closes it.
    fn match_boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        let line = line.trim_ascii_end().strip_prefix(b"--")?;
        self.open.iter().enumerate().rev().find_map(|(level, open)| {
            match line.strip_prefix(open.boundary.as_slice())? {
                b"" => Some((level, false)),
                b"--" => Some((level, true)),
                _ => None,
            }
        })
    }

    /// What claims to be multipart but has no part is text, and shown as it is.
    fn adopt_empty_multiparts(&mut self) {
        let parents: HashSet<usize> = self.tree.parts.iter().filter_map(|part| part.parent).collect();
        for (index, part) in self.tree.parts.iter_mut().enumerate() {
            if part.is_multipart() && !part.is_too_deep && !parents.contains(&index) {
                self.tree.defects.note(Defect::BoundaryNotFound);
                part.content_type = Parameterised::parse(b"text/plain");
            }
        }
    }
}

/// The boundary of a multipart that does not name it: what the first line says that looks like one, with a field of a part
/// behind it.
fn guessed_boundary(body: &[u8]) -> Option<Vec<u8>> {
    let head = body.get(..GUESS_BYTES_MAX).unwrap_or(body);
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).peekable();
    while let Some(line) = lines.next() {
        let boundary = line.strip_prefix(b"--").filter(|boundary| (1..=70).contains(&boundary.len()));
        let followed = lines
            .peek()
            .is_some_and(|next| next.get(..CONTENT.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONTENT)));
        if let Some(boundary) = boundary.filter(|_| followed) {
            return Some(boundary.to_vec());
        }
    }
    None
}

/// The first field of each kind counts.
fn read_fields<'a>(fields: &mut Fields<'_>, in_digest: bool, defects: &mut Defects) -> Part<'a> {
    let (mut content_type, mut disposition, mut encoding) = (None, None, None);
    let mut has_content_id = false;
    for field in fields {
        let slot = |slot: &mut Option<Parameterised>, field: &Field<'_>| {
            slot.get_or_insert_with(|| Parameterised::parse(field.value));
        };
        if field.is("Content-Type") {
            slot(&mut content_type, &field);
        } else if field.is("Content-Disposition") {
            slot(&mut disposition, &field);
        } else if field.is("Content-Transfer-Encoding") {
            encoding.get_or_insert_with(|| Encoding::parse(&String::from_utf8_lossy(field.value), defects));
        } else if field.is("Content-ID") {
            has_content_id = true;
        }
    }
    let default: &[u8] = if in_digest { b"message/rfc822" } else { b"text/plain" };
    let mut content_type = content_type.unwrap_or_else(|| Parameterised::parse(default));
    // RFC 2045 §5.2: what is no `type/subtype`, like `text`, is plain text.
    if !content_type.value.contains('/') || content_type.value.len() > 127 {
        defects.note(Defect::ContentTypeInvalid);
        "text/plain".clone_into(&mut content_type.value);
    }
    Part {
        content_type,
        disposition: disposition.unwrap_or_default(),
        encoding: encoding.unwrap_or_default(),
        has_content_id,
        ..Part::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(raw: &str) -> Vec<(String, String)> {
        split(raw.as_bytes())
            .parts
            .iter()
            .filter(|part| !part.is_multipart())
            .map(|part| (part.content_type.value.clone(), String::from_utf8_lossy(part.body).into_owned()))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(kind, body)| ((*kind).to_owned(), (*body).to_owned())).collect()
    }

    const OUTER: &str = "Content-Type: multipart/mixed; boundary=\"a\"\r\n\r\npreamble\r\n";

    #[test]
    fn parts_end_before_the_line_end_of_their_boundary() {
        let raw =
            format!("{OUTER}--a\r\n\r\none\r\n--a \r\nContent-Type: text/html\r\n\r\n<p>\r\n\r\n--a--\r\nepilogue\r\n");
        assert_eq!(leaves(&raw), pairs(&[("text/plain", "one"), ("text/html", "<p>\r\n")]));
        assert_eq!(split(raw.as_bytes()).defects.into_sorted(), []);
    }

    #[test]
    fn inner_multipart_that_is_never_closed_ends_with_the_outer_boundary() {
        let inner = "Content-Type: multipart/alternative; boundary=ab\r\n\r\n--ab\r\n\r\none\r\n";
        let raw = format!("{OUTER}--a\r\n{inner}--a\r\nContent-Type: image/png\r\n\r\ntwo\r\n--a--");
        assert_eq!(leaves(&raw), pairs(&[("text/plain", "one"), ("image/png", "two")]));
        let parents: Vec<_> = split(raw.as_bytes()).parts.iter().map(|part| part.parent).collect();
        assert_eq!(parents, [None, Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn boundary_text_within_a_line_or_with_more_behind_it_is_content() {
        let raw = format!("{OUTER}--a\r\n\r\nx --a\r\n--ab\r\n--a-\r\n--a--");
        assert_eq!(leaves(&raw), pairs(&[("text/plain", "x --a\r\n--ab\r\n--a-")]));
    }

    #[test]
    fn message_cut_anywhere_keeps_its_last_part() {
        assert_eq!(leaves(&format!("{OUTER}--a\r\n\r\none")), pairs(&[("text/plain", "one")]));
        assert_eq!(leaves(&format!("{OUTER}--a\r\nContent-Type: text/html")), pairs(&[("text/html", "")]));
        assert_eq!(leaves(&format!("{OUTER}--a\r\nContent-Type: text/html\r\n--a\r\n\r\nx")).len(), 2);
    }

    #[test]
    fn wrong_or_missing_types_are_plain_text() {
        assert_eq!(leaves("Content-Type: text\n\nx"), pairs(&[("text/plain", "x")]));
        assert_eq!(leaves("x\n\ny"), pairs(&[("text/plain", "y")]));
        let no_boundary = "Content-Type: multipart/mixed\n\nx";
        assert_eq!(leaves(no_boundary), pairs(&[("text/plain", "x")]));
        assert!(split(no_boundary.as_bytes()).defects.has(Defect::BoundaryMissing));
        let digest = "Content-Type: multipart/digest; boundary=a\n\n--a\n\nSubject: x\n\n--a--";
        assert_eq!(leaves(digest).first().unwrap().0, "message/rfc822");
    }

    #[test]
    fn nesting_and_parts_are_bounded() {
        let level = |n| format!("Content-Type: multipart/mixed; boundary={n}\n\n--{n}\n");
        let nested = (0..100_000).map(level).collect::<Vec<_>>().concat();
        let tree = split(nested.as_bytes());
        assert!(tree.defects.has(Defect::TooDeep) && tree.parts.len() == DEPTH_MAX + 1, "{}", tree.parts.len());
        let many = format!("{OUTER}{}", "--a\n\n".repeat(500_000));
        let tree = split(many.as_bytes());
        assert!(tree.defects.has(Defect::TooManyParts) && tree.parts.len() == PARTS_MAX);
        let boundaries = format!("{}{}", &nested[..4_000], "--\n".repeat(500_000));
        split(boundaries.as_bytes());
    }

    #[derive(Debug, Clone)]
    enum Node {
        Leaf(String),
        Multipart(Vec<Node>),
    }

    fn node() -> impl Strategy<Value = Node> {
        let leaf = "[a-z -]{0,10}(\r\n[a-z -]{0,10}){0,3}".prop_map(Node::Leaf);
        leaf.prop_recursive(4, 20, 4, |inner| prop::collection::vec(inner, 1..4).prop_map(Node::Multipart))
    }

    fn write(node: &Node, count: &mut usize) -> String {
        match node {
            Node::Leaf(body) => format!("Content-Type: text/plain\r\n\r\n{body}"),
            Node::Multipart(children) => {
                *count += 1;
                let boundary = format!("=_{count}_");
                let mut parts = vec![format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n")];
                for child in children {
                    parts.push(format!("\r\n--{boundary}\r\n{}", write(child, count)));
                }
                parts.push(format!("\r\n--{boundary}--\r\n"));
                parts.concat()
            }
        }
    }

    fn oracle(mail: &mailparse::ParsedMail<'_>, out: &mut Vec<(String, String)>) {
        if mail.subparts.is_empty() {
            let body = mail.get_body_raw().unwrap();
            out.push((mail.ctype.mimetype.clone(), String::from_utf8(body).unwrap()));
        }
        mail.subparts.iter().for_each(|part| oracle(part, out));
    }

    proptest! {
        #[test]
        fn well_formed_trees_are_split_as_mailparse_does(node in node()) {
            let raw = write(&node, &mut 0);
            let mut expected = Vec::new();
            oracle(&mailparse::parse_mail(raw.as_bytes()).unwrap(), &mut expected);
            prop_assert_eq!(leaves(&raw), expected);
        }
    }
}
