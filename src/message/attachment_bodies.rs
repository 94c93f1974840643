//! The octets of attachments, for those who keep them.

use super::{Body, Defects, attachments, mime_tree, with_line_feeds};
use crate::event::Content;

/// Shows `each` attachment that [`super::summarise`] lists with the same `content`: its place in the list, and how to
/// get its decoded octets, which takes as much memory as they have.
pub(crate) fn attachment_bodies(raw: &[u8], content: Content, mut each: impl FnMut(usize, &dyn Fn() -> Vec<u8>)) {
    let raw = with_line_feeds(raw);
    let tree = mime_tree::split(&raw);
    let shown =
        if content >= Content::Preview { Body::find(&tree, content, &mut Defects::default()).part } else { None };
    for (at, part) in attachments::files(&tree, shown).enumerate() {
        each(at, &|| part.encoding.decode(part.body));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::summarise;

    /// What is kept is what is listed, whatever the text is that is shown.
    #[test]
    fn bodies_are_in_the_order_of_the_list() {
        let raw = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
                   Content-Type: text/html; name=h.html\r\n\r\n<p>x</p>\r\n--b\r\n\
                   Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n--b\r\n\
                   Content-Type: image/png\r\nContent-ID: <i>\r\n\r\nshown by HTML\r\n--b\r\n\
                   Content-Disposition: attachment; filename=q\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
                   a=3D=\r\nb\r\n--b--\r\n";
        for content in [Content::Envelope, Content::Preview, Content::Text] {
            let listed = summarise(raw.as_bytes(), content).attachments;
            let mut bodies = Vec::new();
            attachment_bodies(raw.as_bytes(), content, |at, decode| bodies.push((at, decode())));
            let sizes: Vec<_> = bodies.iter().map(|(at, body)| (*at, body.len() as u64)).collect();
            let wanted: Vec<_> = listed.iter().enumerate().map(|(at, listed)| (at, listed.size)).collect();
            assert_eq!(sizes, wanted, "{content:?}");
            let pdf = listed.iter().position(|listed| listed.content_type == "application/pdf").unwrap();
            assert_eq!(bodies[pdf].1, b"%PDF-");
            assert_eq!(bodies.last().unwrap().1, b"a=b");
        }
    }
}
