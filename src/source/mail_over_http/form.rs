//! Forms as providers post them: `multipart/form-data`, or urlencoded where nothing is attached.

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use url::form_urlencoded;

use crate::http::{Problem, media_type, unsupported_media_type};

/// Fields of one form: a message with a hundred attachments has fewer.
const FIELDS_MAX: usize = 1000;

/// So many times the largest message may a form be: it has the parts once more, encoded.
pub(super) const FORM_FACTOR: usize = 3;

/// One field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// A file's name and type.
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) content: Bytes,
}

/// All fields in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) fields: Vec<Field>,
}

impl Form {
    /// Reads a body that is in memory already, within its limit.
    pub(super) async fn read(headers: &HeaderMap, body: Bytes) -> Result<Self, Problem> {
        match media_type(headers).as_str() {
            "multipart/form-data" => multipart(headers.get(header::CONTENT_TYPE), body).await,
            "application/x-www-form-urlencoded" => urlencoded(&body),
            _ => Err(unsupported_media_type("multipart/form-data")),
        }
    }

    /// The first field of this name.
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Its content as text. What is not UTF-8 is shown as such.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.field(name).map(|field| String::from_utf8_lossy(&field.content).into_owned())
    }
}

async fn multipart(content_type: Option<&HeaderValue>, body: Bytes) -> Result<Form, Problem> {
    let broken = || Problem::bad_request("form-invalid", "the body is not `multipart/form-data` as it says");
    let mut request = Request::new(Body::from(body));
    request.headers_mut().extend(content_type.map(|value| (header::CONTENT_TYPE, value.clone())));
    // The limit held when the body was read.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut parts = Multipart::from_request(request, &()).await.map_err(|_| broken())?;
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(|_| broken())? {
        if form.fields.len() >= FIELDS_MAX {
            let detail = format!("the form has more than {FIELDS_MAX} fields");
            return Err(Problem::bad_request("form-invalid", detail));
        }
        let name = part.name().unwrap_or_default().to_owned();
        let filename = part.file_name().map(str::to_owned);
        let content_type = part.content_type().map(str::to_owned);
        let content = part.bytes().await.map_err(|_| broken())?;
        form.fields.push(Field { name, filename, content_type, content });
    }
    Ok(form)
}

fn urlencoded(body: &[u8]) -> Result<Form, Problem> {
    let mut form = Form::default();
    for (name, value) in form_urlencoded::parse(body) {
        if form.fields.len() >= FIELDS_MAX {
            let detail = format!("the form has more than {FIELDS_MAX} fields");
            return Err(Problem::bad_request("form-invalid", detail));
        }
        let content = Bytes::from(value.into_owned());
        form.fields.push(Field { name: name.into_owned(), content, ..Field::default() });
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(content_type: &'static str, body: impl Into<Bytes>) -> Result<Form, Problem> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Form::read(&headers, body.into()).await
    }

    #[tokio::test]
    async fn both_kinds_of_forms_are_read() {
        let form = read("application/x-www-form-urlencoded", "a=1&b=%C3%BC+x&a=2").await.unwrap();
        assert_eq!((form.text("a").as_deref(), form.text("b").as_deref()), (Some("1"), Some("ü x")));
        let body = "--x\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\nSubject: s\r\n\r\nbody\r\n\r\n--x\r\n\
                    Content-Disposition: form-data; name=\"a1\"; filename=\"f.png\"\r\nContent-Type: image/png\r\n\r\n\
                    \0\u{1}\r\n--x--\r\n";
        let form = read("multipart/form-data; boundary=x", body).await.unwrap();
        assert_eq!(form.text("email").as_deref(), Some("Subject: s\r\n\r\nbody\r\n"));
        let file = form.field("a1").unwrap();
        assert_eq!((file.filename.as_deref(), &file.content[..]), (Some("f.png"), &b"\0\x01"[..]));
        assert_eq!(file.content_type.as_deref(), Some("image/png"));
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        for (content_type, body) in [
            ("multipart/form-data", "--x--".to_owned()),
            ("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb".to_owned()),
            ("text/plain", "a=b".to_owned()),
            ("application/x-www-form-urlencoded", "a&".repeat(FIELDS_MAX + 1)),
        ] {
            assert!(read(content_type, body).await.is_err(), "{content_type}");
        }
    }
}
