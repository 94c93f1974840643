//! How the OX driver is switched on for a user: it sends nothing for whom a METADATA key (RFC 5464) does not ask for it.

/// The command that asks for pushes under this name. To be sent after login to a server that offers METADATA; it is
/// refused where `imap_metadata` or `mail_attribute_dict` is not set.
pub fn metadata_command(token: &str) -> String {
    // What cannot stand in a quoted string is in no token of ours.
    let token: String = token.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect();
    format!("SETMETADATA \"\" (/private/vendor/vendor.dovecot/http-notify \"user={token}\")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_end_the_command() {
        let command = metadata_command("a\")\r\nx LOGOUT\\");
        assert_eq!(command, r#"SETMETADATA "" (/private/vendor/vendor.dovecot/http-notify "user=a)xLOGOUT")"#);
    }
}
