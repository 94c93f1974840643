//! How urgent a message is: as its sender says, and where nothing is said, by whether a person wrote it.

use crate::event::Priority;
use crate::message::first_word;

/// The first field that says something decides: Importance (RFC 2156 §5.3), the widespread X-Priority, Priority. Without
/// one, what no person wrote to this one can wait: automatic mail, lists, bulk mail.
pub(super) fn read<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Priority {
    let explicit = ["IMPORTANCE", "X-PRIORITY", "PRIORITY", "X-MSMAIL-PRIORITY"].into_iter().find_map(|name| {
        match first_word(field(name)?).as_str() {
            "high" | "urgent" | "highest" | "1" | "2" => Some(Priority::High),
            "low" | "non-urgent" | "lowest" | "4" | "5" => Some(Priority::Low),
            "normal" | "3" => Some(Priority::Normal),
            _ => None,
        }
    });
    explicit.unwrap_or_else(|| {
        let is_bulk = is_automatic(&field)
            || field("PRECEDENCE").is_some_and(|value| matches!(&*first_word(value), "bulk" | "list" | "junk"))
            || ["LIST-ID", "LIST-POST", "LIST-UNSUBSCRIBE"].into_iter().any(|name| field(name).is_some());
        if is_bulk { Priority::Low } else { Priority::Normal }
    })
}

/// `Auto-Submitted` is there and is not `no` (RFC 3834 §5).
pub(super) fn is_automatic<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> bool {
    field("AUTO-SUBMITTED").is_some_and(|value| {
        let keyword = first_word(value);
        !keyword.is_empty() && keyword != "no"
    })
}
