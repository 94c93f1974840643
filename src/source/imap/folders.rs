//! What happens to mailboxes themselves: they come, go and are renamed.

use std::sync::Arc;

use tracing::debug;

use super::context::Mailbox;
use super::cursor::Cursor;
use super::error::ImapError;
use super::link::Link;
use super::mailboxes::{Directory, KnownMailboxes, MailboxChanges};
use super::protocol::Response;
use crate::event::{Draft, EventKind, Origin, Topic};
use crate::event_log::Append;

/// Has the server tell of all mailboxes by itself (RFC 5465). Says whether it does.
///
/// Events of the open mailbox come with IDLE all the same: with NOTIFY alone Dovecot 2.3 left out half of the removals.
pub(super) async fn notify(link: &mut Link) -> Result<bool, ImapError> {
    let messages =
        if link.wants.any_flags() { "MessageNew MessageExpunge FlagChange" } else { "MessageNew MessageExpunge" };
    let names = if link.wants.follows_mailboxes { " MailboxName" } else { "" };
    let command = format!("NOTIFY SET (selected ({messages})) (personal ({messages}{names}))");
    match link.run("NOTIFY", &command, drop::<Response>).await {
        Ok(_) => Ok(true),
        // It offers events that it then does not have (BADEVENT), or none at all.
        Err(ImapError::Refused { text, .. }) => {
            debug!(%text, "NOTIFY is offered and refused");
            Ok(false)
        }
        Err(err) => Err(err),
    }
}

/// Reports what happened to mailboxes since they were last listed, and stores the list. Returns the names of those that
/// are new.
pub(super) async fn report_changes(link: &Link, directory: &Directory) -> Result<Vec<String>, ImapError> {
    if !link.wants.follows_mailboxes {
        return Ok(Vec::new());
    }
    let account = link.account();
    let key = format!("imap-mailboxes/{}", Topic::account(&account.name).as_str().trim_start_matches("mail/"));
    let checkpoint = account.event_log.checkpoint(&key).await?;
    let before: Option<KnownMailboxes> = checkpoint.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let now = KnownMailboxes::of(directory);
    let changes = match &before {
        Some(before) if *before == now => return Ok(Vec::new()),
        Some(before) => before.changes(&now, &directory.renamed),
        // The first list is where it begins.
        None => MailboxChanges::default(),
    };
    let mut positions = Vec::new();
    for (old, new) in &changes.renamed {
        let (from, to) = (Mailbox::new(&account.name, old, None), Mailbox::new(&account.name, new, None));
        if let Some(position) = account.event_log.checkpoint(&from.checkpoint_key).await? {
            positions.push((to.checkpoint_key, position));
        }
    }
    let list = serde_json::to_string(&now).unwrap_or_default();
    let drafts = if link.wants.mailboxes { drafts(link, &changes) } else { Vec::new() };
    for created in &changes.created {
        // In the same commit: should the connection end before the mailbox is opened, what is in it is new all the same.
        if let Some(uid_validity) = directory.entries.get(created).and_then(|entry| entry.status.uid_validity) {
            let key = Mailbox::new(&account.name, created, None).checkpoint_key;
            if account.event_log.checkpoint(&key).await?.is_none() {
                positions.push((key, Cursor::at(uid_validity, 1).to_checkpoint()));
            }
        }
    }
    let build = || {
        let mut append = Append::new();
        for draft in &drafts {
            append.push(draft.clone(), None);
        }
        for (key, position) in &positions {
            append.checkpoint(key.as_str(), position.as_str());
        }
        append.checkpoint(key.as_str(), list.as_str());
        append
    };
    account.commit(build).await?;
    Ok(changes.created)
}

fn drafts(link: &Link, changes: &MailboxChanges) -> Vec<Draft> {
    let account: &Arc<_> = link.account();
    let draft = |kind, mailbox: &str| {
        let mut draft = Draft::in_mailbox(kind, Origin::Imap, &account.name, mailbox);
        // Whoever follows the account knows no mailbox's name beforehand.
        draft.topics.push(Topic::account(&account.name));
        draft
    };
    let mut drafts = Vec::new();
    for (old, new) in &changes.renamed {
        let mut renamed = draft(EventKind::MailboxRename, new);
        renamed.topics.push(Topic::mailbox(&account.name, old));
        renamed.old_mailbox = Some(old.clone());
        drafts.push(renamed);
    }
    drafts.extend(changes.deleted.iter().map(|name| draft(EventKind::MailboxDelete, name)));
    drafts.extend(changes.created.iter().map(|name| draft(EventKind::MailboxCreate, name)));
    drafts
}
