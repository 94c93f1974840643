//! Undoes format=flowed (RFC 3676): joins the lines that the sender's program broke softly.

/// Longest quote depth that is told apart; deeper lines only lose their further marks.
const QUOTE_DEPTH_MAX: usize = 20;

/// Joins flowed lines. `del_sp`: the blank that marks a soft break is not part of the text (RFC 3676 §4.2).
/// `text` has LF line ends.
pub(super) fn unflow(text: &str, del_sp: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open: Option<usize> = None;
    for line in text.split('\n') {
        let content = line.trim_start_matches('>');
        let depth = line.len().saturating_sub(content.len());
        let quoted = depth > 0;
        // Space-stuffing (RFC 3676 §4.4).
        let content = content.strip_prefix(' ').unwrap_or(content);
        let is_signature = content == "-- ";
        match open.take() {
            // A signature line ends a paragraph, whatever flows into it (RFC 3676 §4.3).
            Some(before) if before == depth && !is_signature => {}
            before => {
                if before.is_some() || !out.is_empty() {
                    out.push('\n');
                }
                out.extend(std::iter::repeat_n('>', depth.min(QUOTE_DEPTH_MAX)));
                if quoted {
                    out.push(' ');
                }
            }
        }
        if content.ends_with(' ') && !is_signature {
            open = Some(depth);
            out.push_str(if del_sp { content.strip_suffix(' ').unwrap_or(content) } else { content });
        } else {
            out.push_str(content);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_breaks_are_joined_within_one_quote_depth() {
        for (text, del_sp, expected) in [
            ("one \ntwo\nthree", false, "one two\nthree"),
            ("Wort \nteil", true, "Wortteil"),
            ("> a \n> b\nc", false, "> a b\nc"),
            ("> a \n>> b", false, "> a \n>> b"),
            ("a \n-- \nme", false, "a \n-- \nme"),
            (" >x\n  y", false, ">x\n y"),
            ("a\n\nb", false, "a\n\nb"),
        ] {
            assert_eq!(unflow(text, del_sp), expected, "{text:?}");
        }
    }
}
