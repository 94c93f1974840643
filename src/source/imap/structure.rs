//! BODYSTRUCTURE: which part is the text to read, and which parts are files. Pure.
//!
//! Nothing of a file is downloaded: its name, type and size are in the structure already.

use super::protocol::Part;

use crate::event::Attachment;
use crate::message;

/// Files that an event names; a message with more is rare, and a notification shows fewer.
const ATTACHMENTS_MAX: usize = 50;

impl Part {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        find(&self.parameters, name)
    }

    /// The part that a person reads, with its section number (RFC 9051 §6.4.5.1). The same rules as for mail that SMTP
    /// received, as far as they can be followed without the text.
    pub(super) fn readable(&self) -> Option<(Vec<u32>, &Part)> {
        if self.children.is_empty() {
            // A message that is not a multipart has its body as part 1. It is shown, whatever its sender called it.
            return self.is_text().then(|| (vec![1], self));
        }
        let mut path = Vec::new();
        let found = self.descend(&mut path)?;
        Some((path, found))
    }

    fn descend(&self, path: &mut Vec<u32>) -> Option<&Part> {
        if self.children.is_empty() {
            return (self.is_text() && self.filename().is_none()).then_some(self);
        }
        if self.subtype == "alternative" {
            // Of alternatives the plain one needs least guessing.
            let is_plain = |part: &Part| part.major == "text" && part.subtype == "plain";
            if let Some(found) = self.descend_where(is_plain, path) {
                return Some(found);
            }
        }
        // Elsewhere what comes first is the message, and what follows is a footer or a file.
        self.descend_where(|_| true, path)
    }

    fn descend_where(&self, enters: impl Fn(&Part) -> bool, path: &mut Vec<u32>) -> Option<&Part> {
        for (number, child) in (1..).zip(&self.children) {
            path.push(number);
            if enters(child)
                && let Some(found) = child.descend(path)
            {
                return Some(found);
            }
            path.pop();
        }
        None
    }

    fn is_text(&self) -> bool {
        self.major == "text"
            && matches!(self.subtype.as_str(), "plain" | "html")
            && self.disposition.as_deref() != Some("attachment")
    }

    /// The parts that are files, in their order.
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        let mut found = Vec::new();
        self.collect(self.readable().map(|(_, part)| part), &mut found);
        found
    }

    fn collect(&self, shown: Option<&Part>, found: &mut Vec<Attachment>) {
        for child in &self.children {
            child.collect(shown, found);
        }
        let is_shown = shown.is_some_and(|shown| std::ptr::eq(shown, self));
        if self.children.is_empty() && !is_shown && self.is_file() && found.len() < ATTACHMENTS_MAX {
            found.push(Attachment {
                filename: self.filename(),
                content_type: format!("{}/{}", self.major, self.subtype),
                size: self.decoded_octets(),
                ..Attachment::default()
            });
        }
    }

    fn is_file(&self) -> bool {
        let is_named = self.disposition.as_deref() == Some("attachment") || self.filename().is_some();
        // Alternatives of the text, and pictures that the HTML shows in their place.
        let is_shown_by_another = self.major == "text" || self.has_content_id;
        self.major != "multipart" && (is_named || !is_shown_by_another)
    }

    /// Of base64, four characters are three octets and each line has a CRLF; near enough for a notification.
    fn decoded_octets(&self) -> u64 {
        let octets = u64::from(self.octets);
        if self.encoding == "base64" { octets / 78 * 57 + octets % 78 * 3 / 4 } else { octets }
    }

    fn filename(&self) -> Option<String> {
        let raw = |parameters, name: &str| find(parameters, name).map(str::as_bytes);
        message::filename(|name| raw(&self.disposition_parameters, name), |name| raw(&self.parameters, name))
    }
}

fn find<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(subtype: &str) -> Part {
        Part { major: "text".into(), subtype: subtype.into(), ..Part::default() }
    }

    fn multipart(subtype: &str, children: Vec<Part>) -> Part {
        Part { major: "multipart".into(), subtype: subtype.into(), children, ..Part::default() }
    }

    fn file(parameters: &[(&str, &str)]) -> Part {
        Part {
            major: "application".into(),
            subtype: "pdf".into(),
            disposition: Some("attachment".into()),
            disposition_parameters: parameters.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
            ..Part::default()
        }
    }

    fn readable(part: &Part) -> Option<(Vec<u32>, String)> {
        part.readable().map(|(path, part)| (path, part.subtype.clone()))
    }

    #[test]
    fn readable_part_is_found_where_mail_programs_put_it() {
        assert_eq!(readable(&text("plain")), Some((vec![1], "plain".into())));
        let alternative = || multipart("alternative", vec![text("html"), text("plain")]);
        assert_eq!(readable(&alternative()), Some((vec![2], "plain".into())), "plain wins among alternatives");
        let mixed = multipart("mixed", vec![alternative(), file(&[])]);
        assert_eq!(readable(&mixed), Some((vec![1, 2], "plain".into())));
        let footer = multipart("mixed", vec![text("html"), text("plain")]);
        assert_eq!(readable(&footer), Some((vec![1], "html".into())), "a list's footer is not the message");
        let related = multipart("alternative", vec![multipart("related", vec![text("html")])]);
        assert_eq!(readable(&related), Some((vec![1, 1], "html".into())));
        assert_eq!(readable(&file(&[])), None);
        let attached = Part { disposition: Some("attachment".into()), ..text("plain") };
        assert_eq!(readable(&multipart("mixed", vec![attached, text("plain")])), Some((vec![2], "plain".into())));
    }

    #[test]
    fn file_names_are_read_in_every_form() {
        let name = |parameters: &[(&str, &str)]| file(parameters).filename();
        assert_eq!(name(&[("filename", "a.pdf")]).as_deref(), Some("a.pdf"));
        assert_eq!(name(&[("filename*", "utf-8''Gr%C3%BC%C3%9Fe.pdf")]).as_deref(), Some("Grüße.pdf"));
        assert_eq!(name(&[("filename*", "iso-8859-1'de'Gr%FC%DFe.pdf")]).as_deref(), Some("Grüße.pdf"));
        let parts = [("filename*1", "lang.pdf"), ("filename*0*", "utf-8''sehr%20")];
        assert_eq!(name(&parts).as_deref(), Some("sehr lang.pdf"));
        assert_eq!(name(&[("filename", "=?utf-8?q?Gr=C3=BC=C3=9Fe?=.pdf")]).as_deref(), Some("Grüße.pdf"));
        assert_eq!(name(&[("filename", "a\u{7}.pdf")]).as_deref(), Some("a.pdf"));
        assert_eq!(name(&[("filename", " ")]), None);
    }

    #[test]
    fn files_are_listed_and_pictures_of_the_page_are_not() {
        let picture = Part {
            major: "image".into(),
            subtype: "png".into(),
            has_content_id: true,
            disposition: Some("inline".into()),
            ..Part::default()
        };
        let photo = Part { has_content_id: false, ..picture.clone() };
        let base64 = Part { encoding: "base64".into(), octets: 78 * 10, ..file(&[("filename", "a.pdf")]) };
        let root = multipart("mixed", vec![multipart("related", vec![text("html"), picture]), base64, photo]);
        let found = root.attachments();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].filename.as_deref(), found[0].size), (Some("a.pdf"), 570));
        assert_eq!(found[1].content_type, "image/png");
        let named = Part { parameters: vec![("name".into(), "note.txt".into())], ..text("plain") };
        assert_eq!(named.attachments(), [], "the message itself is no file");
        assert_eq!(multipart("mixed", vec![text("html"), named]).attachments().len(), 1);
    }
}
