//! What a trusted mail server has found out about a message's sender and written into its header.
//!
//! Anybody can write an `Authentication-Results` field. Servers put theirs on top, so that what counts is the topmost
//! field of a trusted server and what follows it directly: below a `Received` or a stranger's field is what the message
//! brought with it. A server is to remove fields that claim to be its own (RFC 8601 §5); where one does not, a result
//! further up still wins over one further down.

pub mod results;

use crate::event::{Authentication, AuthenticationResult, AuthenticationSource, DmarcPolicy, SignatureResult};
use crate::message::header::Fields;
use crate::message::printable;
use results::{AuthenticationResults, MethodResult};

/// Signatures that are told.
pub const SIGNATURES_MAX: usize = 10;

/// Longest domain (RFC 1035 §2.3.4); a longer one is none.
const DOMAIN_CHARS_MAX: usize = 255;

/// What the servers that call themselves one of `authserv_ids` say in the header at the beginning of `message`.
pub fn trusted(message: &[u8], authserv_ids: &[String]) -> Authentication {
    let mut found = Authentication::default();
    for field in Fields::new(message) {
        let says = field.is("Authentication-Results").then(|| results::parse(field.value)).flatten();
        let is_trusted = |says: &AuthenticationResults| {
            authserv_ids.iter().any(|trusted| trusted.eq_ignore_ascii_case(&says.authserv_id))
        };
        let has_begun = found.source == AuthenticationSource::Header;
        match says {
            Some(says) if is_trusted(&says) => {
                found.source = AuthenticationSource::Header;
                add(&mut found, &says.results);
            }
            Some(_) if has_begun => break,
            None if has_begun && (field.is("Received") || field.is("Authentication-Results")) => break,
            _ => {}
        }
    }
    found
}

/// Adds what is not known yet.
fn add(found: &mut Authentication, results: &[MethodResult]) {
    let all = |method: &'static str| {
        let of_method = results.iter().filter(move |result| result.method == method);
        of_method.filter_map(|result| Some((AuthenticationResult::of_keyword(&result.result)?, result)))
    };
    // Some servers tell of HELO and of the reverse-path.
    let of_path = |(_, spf): &(_, &MethodResult)| spf.property("smtp.mailfrom").is_some();
    if let Some((result, spf)) = all("spf").find(of_path).or_else(|| all("spf").next())
        && found.spf.is_none()
    {
        found.spf = Some(result);
        found.spf_domain = spf.property("smtp.mailfrom").or_else(|| spf.property("smtp.helo")).and_then(domain);
    }
    if found.dkim.is_empty() {
        let signature = |(result, dkim): (AuthenticationResult, &MethodResult)| {
            let domain = dkim.property("header.d").or_else(|| dkim.property("header.i")).and_then(domain);
            SignatureResult { domain, result }
        };
        // `dkim=none` says that there is no signature.
        let signed = all("dkim").filter(|(result, _)| *result != AuthenticationResult::None);
        found.dkim = signed.map(signature).take(SIGNATURES_MAX).collect();
    }
    if let Some((result, dmarc)) = all("dmarc").next()
        && found.dmarc.is_none()
    {
        found.dmarc = Some(result);
        found.dmarc_domain = dmarc.property("header.from").and_then(domain);
        found.dmarc_policy = dmarc_policy(dmarc);
    }
    found.arc = found.arc.or_else(|| all("arc").next().map(|(result, _)| result));
}

/// The domain of an address, or one that stands alone.
fn domain(value: &str) -> Option<String> {
    let domain = value.rsplit_once('@').map_or(value, |(_, domain)| domain);
    let line = printable::line(domain).to_ascii_lowercase();
    printable::non_empty(line).filter(|domain| domain.chars().count() <= DOMAIN_CHARS_MAX)
}

/// The property for it is `policy.dmarc`; OpenDMARC writes a comment `p=reject`, Rspamd `policy=reject`.
fn dmarc_policy(dmarc: &MethodResult) -> Option<DmarcPolicy> {
    let commented = || {
        let words = dmarc.comments.iter().flat_map(|comment| comment.split([' ', ',', ';']));
        words.filter_map(|word| word.split_once('=')).find_map(|(name, value)| {
            let is_policy = name.eq_ignore_ascii_case("p") || name.eq_ignore_ascii_case("policy");
            is_policy.then_some(value)
        })
    };
    match dmarc.property("policy.dmarc").or_else(commented)?.to_ascii_lowercase().as_str() {
        "none" => Some(DmarcPolicy::None),
        "quarantine" => Some(DmarcPolicy::Quarantine),
        "reject" => Some(DmarcPolicy::Reject),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> Authentication {
        trusted(header.as_bytes(), &["mx.example.org".to_owned(), "Milter.example.org".to_owned()])
    }

    fn json(header: &str) -> String {
        serde_json::to_string(&of(header)).unwrap()
    }

    #[test]
    fn the_topmost_fields_of_trusted_servers_count() {
        let header = "Delivered-To: alice@example.org\r\nAuthentication-Results: MX.example.org;\r\n\tdmarc=pass \
                      (p=none dis=none) header.from=a.example\r\nAuthentication-Results: milter.example.org; spf=pass \
                      smtp.helo=h.example; spf=softfail smtp.mailfrom=bob@A.example; dkim=pass header.d=a.example; \
                      dkim=fail header.i=@b.example; arc=none\r\nReceived: from x\r\nAuthentication-Results: \
                      mx.example.org; arc=pass\r\n\r\nAuthentication-Results: mx.example.org; dmarc=fail\r\n";
        let expected = r#"{"source":"header","spf":"softfail","spf_domain":"a.example","dkim":[{"domain":"a.example","result":"pass"},{"domain":"b.example","result":"fail"}],"dmarc":"pass","dmarc_domain":"a.example","dmarc_policy":"none","arc":"none"}"#;
        assert_eq!(json(header), expected);
    }

    #[test]
    fn strangers_and_what_lies_below_them_do_not_count() {
        let nobody = r#"{"source":"none"}"#;
        assert_eq!(json("Authentication-Results: evil.example; dmarc=pass\r\n\r\n"), nobody);
        assert_eq!(json("Subject: mx.example.org; dmarc=pass\r\n\r\n"), nobody);
        assert_eq!(json("X: y\r\n\r\nAuthentication-Results: mx.example.org; dmarc=pass\r\n"), nobody);
        assert_eq!(json("Authentication-Results: mx.example.org 2; dmarc=pass\r\n\r\n"), nobody, "an unknown version");
        let foreign_first = "Authentication-Results: evil.example; dmarc=pass\r\nReceived: x\r\n\
                             Authentication-Results: mx.example.org; dmarc=fail (policy=reject)\r\n\
                             Authentication-Results: mx.example.org; dmarc=pass; spf=pass\r\n\r\n";
        assert_eq!(json(foreign_first), r#"{"source":"header","spf":"pass","dmarc":"fail","dmarc_policy":"reject"}"#);
        for between in ["Received: x", "Authentication-Results: evil.example; spf=pass", "Authentication-Results: "] {
            let forged = format!(
                "Authentication-Results: mx.example.org; spf=fail\r\n{between}\r\n\
                 Authentication-Results: mx.example.org; dmarc=pass\r\n\r\n"
            );
            assert_eq!(json(&forged), r#"{"source":"header","spf":"fail"}"#, "{between}");
        }
        assert_eq!(trusted(b"Authentication-Results: mx; dmarc=pass\r\n", &[]), Authentication::default());
    }

    #[test]
    fn what_is_told_is_bounded_and_printable() {
        let header = format!(
            "Authentication-Results: mx.example.org; dmarc=pass header.from=\"a\u{7}\u{1b}b.example\"{}; \
             spf=bogus smtp.mailfrom={}\r\n\r\n",
            "; dkim=pass header.d=x".repeat(20),
            "y".repeat(300)
        );
        let found = of(&header);
        assert_eq!((found.dkim.len(), found.dmarc_domain.as_deref()), (SIGNATURES_MAX, Some("ab.example")));
        assert_eq!((found.spf, found.spf_domain), (None, None), "an unknown keyword is no result");
    }
}
