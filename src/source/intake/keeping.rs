//! The attachments of a message, kept before its events are committed.

use bytes::Bytes;
use tokio::task::JoinError;

use crate::attachments::{Attachments, Pending};
use crate::event::Content;
use crate::event_log::Append;

/// Keeps the attachments of `message` whose accounts want that, and links them in its events. What was written goes again
/// when what is given back is dropped.
///
/// # Errors
/// When that panics.
pub(super) async fn keep(
    attachments: Option<&Attachments>,
    mut append: Append,
    message: Bytes,
    content: Content,
) -> Result<(Append, Option<Pending>), JoinError> {
    let is_wanted = |kept: &&Attachments| append.drafts_mut().any(|draft| kept.are_kept_for(draft));
    let Some(attachments) = attachments.filter(is_wanted) else { return Ok((append, None)) };
    let (append, pending) = attachments.keep(append, message, content).await?;
    Ok((append, Some(pending)))
}
