//! A connection that is logged in, with what is known of its server: the questions that are asked on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::connection::{Connection, Patience};
use super::context::{AccountContext, ConnectionContext, Mailbox};
use super::cursor::Cursor;
use super::error::ImapError;
use super::fetch::{Detail, Wanted};
use super::login::LoggedIn;
use super::mailbox_name;
use super::mailboxes::Directory;
use super::mirror::Mirror;
use super::offers::Offers;
use super::protocol::{Code, Reply, Response, StatusItems};
use super::refusal::During;
use super::wants::Wants;

/// A connection and what may be asked on it.
pub(super) struct Link {
    pub context: Arc<ConnectionContext>,
    pub connection: Connection,
    pub offers: Offers,
    pub wants: Wants,
    /// QRESYNC is switched on: removals come with UIDs, and a mailbox is opened with what changed since.
    pub qresync: bool,
    /// When the server will end the session, or must be asked to by then: a token's life is over.
    pub ends_at: Option<Instant>,
}

/// What EXAMINE said.
#[derive(Debug, Default)]
pub(super) struct Examined {
    pub mirror: Mirror,
    pub uid_validity: Option<u32>,
    pub uid_next: Option<u32>,
    /// 0 where the mailbox has no modification sequences.
    pub mod_seq: u64,
    pub mailbox_id: Option<Box<str>>,
}

/// Opens a mailbox to look at it. EXAMINE and never SELECT, which would take \Recent from the user's mail program, and
/// would let a mistake of ours change flags. `parameters` follow the name, and `uid_next` is the first UID that was not
/// reported.
pub(super) async fn examine(
    connection: &mut Connection,
    mailbox: &str,
    parameters: &str,
    uid_next: u32,
    limit: Duration,
) -> Result<Examined, ImapError> {
    let mut examined = Examined::default();
    let mut counted = false;
    let patience = Patience { what: "EXAMINE", silence: limit, during: During::Open };
    let command = format!("EXAMINE {}{parameters}", mailbox_name::to_wire(mailbox));
    let opened = connection.run(&command, patience, |response| match response {
        // Only the first count belongs to UIDNEXT; one that follows announces a message already.
        Response::Exists(count) if !counted => {
            counted = true;
            examined.mirror.open(count);
        }
        // All before it was said of the mailbox that was open until then (RFC 7162 §3.2.11).
        Response::Status(Reply { code: Some(Code::Named(code)), .. }) if code == "CLOSED" => {
            (examined, counted) = (Examined::default(), false);
        }
        Response::Status(reply) => examined.hear(reply.code),
        other => examined.mirror.hear(&other, uid_next),
    });
    let reply = opened.await.map_err(|err| match err {
        ImapError::Refused { refusal, text, .. } => ImapError::Mailbox { mailbox: mailbox.to_owned(), refusal, text },
        other => other,
    })?;
    examined.hear(reply.code);
    Ok(examined)
}

impl Examined {
    fn hear(&mut self, code: Option<Code>) {
        match code {
            Some(Code::UidNext(uid)) => self.uid_next = Some(uid),
            Some(Code::UidValidity(value)) => self.uid_validity = Some(value),
            Some(Code::HighestModSeq(value)) => self.mod_seq = value,
            Some(Code::MailboxId(id)) => self.mailbox_id = Some(id.into()),
            _ => {}
        }
    }
}

impl Link {
    /// Switches on what the watcher makes use of.
    pub(super) async fn start(
        context: Arc<ConnectionContext>,
        logged_in: LoggedIn,
        wants: Wants,
    ) -> Result<Self, ImapError> {
        let account = &context.account;
        let quirks = account.access.quirks();
        let mut offers = Offers::of(&logged_in.capabilities);
        offers.idle &= !quirks.no_idle;
        offers.notify &= quirks.notify.unwrap_or(true);
        let session_over = quirks.session_max.map(|longest| Instant::now() + longest);
        let ends_at = [logged_in.expires_at, session_over].into_iter().flatten().min();
        let connection = logged_in.connection;
        let mut link = Self { context, connection, offers, wants, qresync: false, ends_at };
        if offers.qresync && wants.any_change() {
            link.enable_qresync().await?;
        }
        link.ask_for_pushes().await?;
        Ok(link)
    }

    async fn enable_qresync(&mut self) -> Result<(), ImapError> {
        let mut enabled = false;
        let patience = self.patience("ENABLE");
        let run = self.connection.run("ENABLE QRESYNC", patience, |response| {
            if let Response::Enabled(names) = response {
                enabled |= names.has("QRESYNC");
            }
        });
        match run.await {
            Ok(_) => self.qresync = enabled,
            // It is a comfort: without it the mailbox is compared in other ways.
            Err(ImapError::Refused { text, .. }) => debug!(%text, "QRESYNC is offered and refused"),
            Err(err) => return Err(err),
        }
        Ok(())
    }

    /// Has the server tell another source of this account's mail, if that is wanted.
    async fn ask_for_pushes(&mut self) -> Result<(), ImapError> {
        let Some(command) = self.context.account.at_login.clone().filter(|_| self.offers.metadata) else {
            return Ok(());
        };
        match self.run("SETMETADATA", &command, drop).await {
            Ok(_) => Ok(()),
            Err(ImapError::Refused { text, .. }) => {
                warn!(account = %self.context.account.name, %text, "the server does not take the order to push");
                Ok(())
            }
            Err(err) => Err(err),
        }
    }

    /// Pause between questions for new mail.
    pub(super) fn poll_interval(&self) -> Duration {
        let account = &self.context.account;
        account.access.quirks().poll_interval.unwrap_or(account.config.poll_interval)
    }

    pub(super) fn account(&self) -> &Arc<AccountContext> {
        &self.context.account
    }

    pub(super) fn patience(&self, what: &'static str) -> Patience {
        Patience { what, silence: self.context.account.config.answer_timeout, during: During::Other }
    }

    /// Opens a mailbox, and has the server tell what changed since the stored position, where it can.
    pub(super) async fn examine(&mut self, mailbox: &Mailbox, stored: Option<&Cursor>) -> Result<Examined, ImapError> {
        let parameters = match stored {
            Some(cursor) if self.qresync && cursor.mod_seq > 0 => {
                format!(" (QRESYNC ({} {}))", cursor.uid_validity, cursor.mod_seq)
            }
            _ if self.offers.condstore && !self.qresync && self.wants.any_flags() => " (CONDSTORE)".to_owned(),
            _ => String::new(),
        };
        let uid_next = stored.map_or(1, |cursor| cursor.uid_next);
        let limit = self.context.account.config.open_timeout;
        examine(&mut self.connection, &mailbox.name, &parameters, uid_next, limit).await
    }

    /// What is asked of new messages: less after failures.
    pub(super) fn wanted(&self) -> Wanted {
        let failures = self.context.unfinished_fetches();
        let detail = Detail::after_failures(failures);
        if detail != Detail::All {
            warn!(account = %self.context.account.name, failures, ?detail,
                "answers about new mail cannot be read, asking for less");
        }
        let account = &self.context.account;
        let mut offers = self.offers;
        offers.condstore &= self.qresync || self.wants.any_flags();
        Wanted::new(account.content, detail, account.config.text_bytes_max.get(), offers)
    }

    /// The items of STATUS that tell whether anything changed.
    fn status_items(&self) -> String {
        let mut items = "MESSAGES UIDNEXT UIDVALIDITY UNSEEN".to_owned();
        if self.offers.condstore {
            items.push_str(" HIGHESTMODSEQ");
        }
        if self.offers.object_id {
            items.push_str(" MAILBOXID");
        }
        items
    }

    /// All mailboxes, with how they are where the server says it in the same answer.
    pub(super) async fn list(&mut self, mut hear: impl FnMut(&Response)) -> Result<Directory, ImapError> {
        let mut directory = Directory::default();
        let mut wanted = Vec::new();
        if self.offers.special_use && self.offers.list_extended {
            wanted.push("SPECIAL-USE".to_owned());
        }
        if self.offers.list_status {
            wanted.push(format!("STATUS ({})", self.status_items()));
        }
        let command = match wanted.as_slice() {
            [] => "LIST \"\" \"*\"".to_owned(),
            wanted => format!("LIST \"\" \"*\" RETURN ({})", wanted.join(" ")),
        };
        let patience = Patience { silence: self.context.account.config.open_timeout, ..self.patience("LIST") };
        let run = self.connection.run(&command, patience, |response| {
            match &response {
                Response::Listed(listed) => directory.hear_listed(listed),
                Response::MailboxStatus(status) => directory.hear_status(status),
                _ => {}
            }
            hear(&response);
        });
        run.await?;
        self.connection.drop_listed();
        Ok(directory)
    }

    /// How one mailbox is.
    pub(super) async fn status(
        &mut self,
        mailbox: &str,
        mut hear: impl FnMut(&Response),
    ) -> Result<StatusItems, ImapError> {
        let command = format!("STATUS {} ({})", mailbox_name::to_wire(mailbox), self.status_items());
        let mut items = StatusItems::default();
        let patience = self.patience("STATUS");
        let run = self.connection.run(&command, patience, |response| {
            if let Response::MailboxStatus(status) = &response
                && mailbox_name::canonical(&mailbox_name::decode(&status.raw_name)) == mailbox
            {
                items = status.items.clone();
            }
            hear(&response);
        });
        run.await?;
        Ok(items)
    }

    /// How one mailbox is; nothing where the server refuses to say.
    pub(super) async fn status_if_told(
        &mut self,
        mailbox: &str,
        hear: impl FnMut(&Response),
    ) -> Result<StatusItems, ImapError> {
        match self.status(mailbox, hear).await {
            Err(ImapError::Refused { text, .. }) => {
                debug!(mailbox, %text, "no STATUS of a mailbox");
                Ok(StatusItems::default())
            }
            status => status,
        }
    }

    /// Runs a command in which nothing but the outcome matters.
    pub(super) async fn run(
        &mut self,
        what: &'static str,
        command: &str,
        hear: impl FnMut(Response),
    ) -> Result<Reply, ImapError> {
        let patience = self.patience(what);
        self.connection.run(command, patience, hear).await
    }
}
