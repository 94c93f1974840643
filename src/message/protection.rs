//! How a message is signed or encrypted, by what it says of its parts. Nothing is checked: postrider has no keys.

use crate::event::Security;
use crate::message::{
    armor,
    mime_tree::{Part, Tree},
};

/// Octets of a text in which PGP's marks are looked for.
const SOURCE_MAX: usize = 64 * 1024;

/// Texts that are looked at.
const TEXTS_MAX: usize = 5;

/// All ways in which parts of the message are protected, each once, the outermost first.
pub(super) fn find(tree: &Tree<'_>) -> Vec<Security> {
    let mut found: Vec<Security> = Vec::new();
    let is_text = |part: &&Part<'_>| part.content_type.value == "text/plain" && part.disposition.value != "attachment";
    let marked = tree
        .parts
        .iter()
        .filter(is_text)
        .take(TEXTS_MAX)
        .filter_map(|part| armor::security(part.body.get(..SOURCE_MAX).unwrap_or(part.body)));
    for security in tree.parts.iter().filter_map(of_part).chain(marked) {
        if !found.contains(&security) {
            found.push(security);
        }
    }
    found
}

fn of_part(part: &Part<'_>) -> Option<Security> {
    let parameter = |name| part.content_type.decoded(name).unwrap_or_default().to_ascii_lowercase();
    match part.content_type.value.as_str() {
        "multipart/signed" => {
            let protocol = parameter("protocol");
            if protocol.contains("pkcs7-signature") {
                Some(Security::SmimeSigned)
            } else {
                protocol.contains("pgp-signature").then_some(Security::PgpSigned)
            }
        }
        "multipart/encrypted" => parameter("protocol").contains("pgp-encrypted").then_some(Security::PgpEncrypted),
        // Some gateways make an ordinary multipart of it, but keep the part that names the version.
        "application/pgp-encrypted" => Some(Security::PgpEncrypted),
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => match parameter("smime-type").as_str() {
            "signed-data" => Some(Security::SmimeSigned),
            "certs-only" | "compressed-data" => None,
            // RFC 8551 §3.2.2 has it optional, and encryption came first.
            _ => Some(Security::SmimeEncrypted),
        },
        "application/octet-stream" if is_smime_file(part) => Some(Security::SmimeEncrypted),
        _ => None,
    }
}

/// RFC 8551 §3.2.1: the name is there for programs that do not know the type.
fn is_smime_file(part: &Part<'_>) -> bool {
    part.filename().is_some_and(|name| name.eq_ignore_ascii_case("smime.p7m"))
}
