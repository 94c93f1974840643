//! One session of a connection: which mailboxes it looks after, and the round in which it does.
//!
//! A connection has one mailbox open, its home, and waits there. Others that it looks after are marked when the server
//! tells of them (NOTIFY), when a sweep finds them changed, or when another part of postrider says so; they are visited
//! one after the other, and then it goes home.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::connection::Asides;
use super::context::{ConnectionContext, Duty, Mailbox};
use super::cursor::Stored;
use super::error::ImapError;
use super::link::Link;
use super::login::LoggedIn;
use super::mailbox_name;
use super::mailboxes::{Directory, Entry, Selection};
use super::opened::{Opened, Settled};
use super::protocol::StatusItems;
use super::refusal::Refusal;
use super::wants::Wants;
use crate::source::health::Condition;

/// A mailbox that the server refuses to open so often in a row is left alone, until it changes or for so long.
const REFUSALS_MAX: u32 = 3;
const REFUSED_PAUSE: std::time::Duration = std::time::Duration::from_hours(6);

/// A connection with its mailboxes.
pub(super) struct Session {
    pub link: Link,
    pub home: Opened,
    pub others: Others,
}

/// The mailboxes that a connection looks after besides its home.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub visited: Vec<Other>,
    /// Whether the server tells of them (RFC 5465).
    pub told: bool,
    /// When they are looked at next.
    pub sweep_at: Option<Instant>,
    /// The server told of mailboxes that came or went.
    pub list_again: bool,
    /// What may be watched. Nothing on a connection whose only mailbox is given.
    selection: Option<Box<Selection>>,
    /// No mailbox is given a connection of its own before.
    deal_at: Option<Instant>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Other {
    pub mailbox: Arc<Mailbox>,
    /// How it was when it was last visited.
    seen: Option<StatusItems>,
    /// It may have changed since.
    pub is_dirty: bool,
    refusals: u32,
    not_before: Option<Instant>,
}

impl Other {
    fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox, seen: None, is_dirty: true, refusals: 0, not_before: None }
    }

    /// Takes note of how it is now.
    fn hear(&mut self, now: &StatusItems) {
        if *now == StatusItems::default() {
            // Some servers answer STATUS with nothing in it: only a visit tells.
            self.is_dirty = true;
            return;
        }
        let differs = self.seen.as_ref().is_none_or(|seen| {
            seen.uid_next != now.uid_next
                || seen.uid_validity != now.uid_validity
                || seen.messages != now.messages
                || seen.unseen != now.unseen
                || seen.highest_mod_seq != now.highest_mod_seq
        });
        if differs {
            self.is_dirty = true;
            self.not_before = None;
            self.seen = Some(now.clone());
        }
    }

    /// Whether it could be opened the last time, and has not changed since.
    fn is_visited(&self) -> bool {
        self.refusals == 0 && !self.is_dirty
    }

    fn is_due(&self) -> bool {
        self.is_dirty && self.not_before.is_none_or(|time| time <= Instant::now())
    }
}

impl Others {
    /// Takes note of what the server said of mailboxes that are not open.
    pub(super) fn hear(&mut self, asides: Asides) {
        for status in asides.statuses {
            let name = mailbox_name::canonical(&mailbox_name::decode(&status.raw_name));
            if let Some(other) = self.visited.iter_mut().find(|other| other.mailbox.name == name) {
                other.hear(&status.items);
            }
        }
        self.told &= !asides.overflow;
        self.list_again |= asides.listed || asides.overflow;
    }

    pub(super) fn mark(&mut self, mailbox: &str) -> bool {
        let found = self.visited.iter_mut().find(|other| other.mailbox.name == mailbox);
        found.map(|other| (other.is_dirty, other.not_before) = (true, None)).is_some()
    }

    /// When one has its turn again that was refused.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.visited.iter().filter(|other| other.is_dirty).filter_map(|other| other.not_before).min()
    }

    pub(super) fn any_due(&self) -> bool {
        self.visited.iter().any(Other::is_due)
    }
}

impl Session {
    /// Finds out what is to be watched on this connection, opens the home, and reports what came since.
    pub(super) async fn open(context: Arc<ConnectionContext>, logged_in: LoggedIn) -> Result<Self, ImapError> {
        let account = context.account.clone();
        let selection = Selection::new(&account.endpoint.mailboxes, &account.endpoint.mailboxes_excluded);
        let wants = Wants::of(&account.endpoint, selection.has_pattern());
        let mut link = Link::start(context.clone(), logged_in, wants).await?;
        let given = match &context.duty {
            Duty::Mailbox(mailbox) => Some(mailbox.clone()),
            Duty::Account => {
                let name = selection.only_name().filter(|_| !wants.follows_mailboxes);
                name.map(|name| Arc::new(Mailbox::new(&account.name, name, None)))
            }
        };
        let (home, others) = match given {
            Some(home) => (home, Others::default()),
            None => find(&mut link, selection).await?,
        };
        let names = others.visited.iter().map(|other| other.mailbox.name.as_str()).chain([home.name.as_str()]);
        context.look_after(names);
        let (home, settled) = Opened::open(&mut link, &home, false).await?;
        let mut session = Self { link, home, others };
        if let Settled::LookFirst(elsewhere) = settled {
            session.look_first(elsewhere).await?;
        }
        Ok(session)
    }

    /// Reports what was announced at home, and visits the mailboxes that may have changed.
    pub(super) async fn round(&mut self, stop: &CancellationToken) -> Result<(), ImapError> {
        loop {
            self.tell_alert().await?;
            self.others.hear(self.link.connection.take_asides());
            if let Settled::LookFirst(elsewhere) = self.home.settle(&mut self.link).await? {
                self.look_first(elsewhere).await?;
                continue;
            }
            if stop.is_cancelled() || !self.others.any_due() {
                self.deal().await;
                return Ok(());
            }
            // What is still to be said of this mailbox must not be taken for the next one's.
            self.home.noop(&mut self.link).await?;
            if self.home.mirror.has_news() {
                continue;
            }
            self.visit_due(stop).await?;
            self.go_home(false).await?;
        }
    }

    /// Tells what the server wants its user to read.
    pub(super) async fn tell_alert(&mut self) -> Result<(), ImapError> {
        match self.link.connection.take_alert() {
            Some(text) => self.link.account().alert(&text).await,
            None => Ok(()),
        }
    }

    /// Looks where messages may have come from, and reports what waits for the answer.
    pub(super) async fn look_first(&mut self, elsewhere: String) -> Result<(), ImapError> {
        debug!(elsewhere, "a message may have been moved, looking where it was first");
        self.others.mark(&elsewhere);
        self.visit_due(&CancellationToken::new()).await?;
        self.go_home(true).await
    }

    pub(super) async fn go_home(&mut self, looked: bool) -> Result<(), ImapError> {
        let mailbox = self.home.mailbox.clone();
        self.go_to(mailbox, looked).await
    }

    /// Opens a mailbox and stays there.
    async fn go_to(&mut self, mailbox: Arc<Mailbox>, looked: bool) -> Result<(), ImapError> {
        let (home, settled) = Box::pin(Opened::open(&mut self.link, &mailbox, looked)).await?;
        self.home = home;
        if let Settled::LookFirst(elsewhere) = settled {
            self.visit_quietly(&elsewhere).await?;
            (self.home, _) = Box::pin(Opened::open(&mut self.link, &mailbox, true)).await?;
        }
        // That was then: what comes from now on may have been somewhere else until now.
        self.home.looked = false;
        // What came between opening the mailbox and IDLE is told by some servers to those alone who ask.
        self.home.noop(&mut self.link).await
    }

    /// Visits the mailboxes that may have changed.
    async fn visit_due(&mut self, stop: &CancellationToken) -> Result<(), ImapError> {
        while let Some(index) = self.others.visited.iter().position(Other::is_due) {
            if stop.is_cancelled() {
                return Ok(());
            }
            let Some(other) = self.others.visited.get_mut(index) else { return Ok(()) };
            other.is_dirty = false;
            let mailbox = other.mailbox.clone();
            let settled = match self.visit(&mailbox, false).await {
                Err(ImapError::Mailbox { refusal, text, .. }) => {
                    self.refused(index, refusal, &text.to_string());
                    continue;
                }
                settled => settled?,
            };
            if let Some(other) = self.others.visited.get_mut(index) {
                other.refusals = 0;
            }
            if let Settled::LookFirst(elsewhere) = settled {
                if elsewhere == self.home.mailbox.name {
                    self.go_home(false).await?;
                    let _settled = self.home.settle(&mut self.link).await?;
                } else {
                    self.visit_quietly(&elsewhere).await?;
                }
                let _settled = self.visit(&mailbox, true).await?;
            }
        }
        Ok(())
    }

    async fn visit_quietly(&mut self, name: &str) -> Result<(), ImapError> {
        let found = self.others.visited.iter_mut().find(|other| other.mailbox.name == name);
        let Some(mailbox) = found.map(|other| other.mailbox.clone()) else { return Ok(()) };
        match self.visit(&mailbox, true).await {
            Ok(_) | Err(ImapError::Mailbox { .. }) => Ok(()),
            Err(err) => Err(err),
        }
    }

    /// Opens a mailbox, reports what came, and says what is left to do.
    async fn visit(&mut self, mailbox: &Arc<Mailbox>, looked: bool) -> Result<Settled, ImapError> {
        let (mut opened, settled) = Box::pin(Opened::open(&mut self.link, mailbox, looked)).await?;
        match settled {
            Settled::Done => Box::pin(opened.settle(&mut self.link)).await,
            first @ Settled::LookFirst(_) => Ok(first),
        }
    }

    fn refused(&mut self, index: usize, refusal: Refusal, text: &str) {
        let Some(other) = self.others.visited.get_mut(index) else { return };
        other.refusals += 1;
        warn!(account = %self.link.context.account.name, mailbox = %other.mailbox.name, text, "mailbox was not opened");
        let is_left_alone = refusal == Refusal::NoMailbox || other.refusals >= REFUSALS_MAX;
        let pause = if is_left_alone { REFUSED_PAUSE } else { self.link.context.account.config.retry_first };
        other.is_dirty = true;
        other.not_before = Some(Instant::now() + pause);
        self.others.list_again |= refusal == Refusal::NoMailbox;
    }

    /// Has a look at the mailboxes of which the server does not tell.
    pub(super) async fn sweep(&mut self) -> Result<(), ImapError> {
        let config = self.link.account().config.clone();
        let pause = if self.others.told { config.safety_poll } else { config.sweep_interval };
        self.others.sweep_at = Some(Instant::now() + pause);
        let lists = self.link.offers.list_status || self.link.wants.follows_mailboxes || self.others.list_again;
        if lists {
            self.list_again().await?;
        }
        if !self.link.offers.list_status {
            for index in 0..self.others.visited.len() {
                let Some(name) = self.others.visited.get(index).map(|other| other.mailbox.name.clone()) else { break };
                let (mirror, uid_next) = (&mut self.home.mirror, self.home.cursor.uid_next);
                match self.link.status(&name, |response| mirror.hear(response, uid_next)).await {
                    Ok(items) => self.others.visited.get_mut(index).map(|other| other.hear(&items)).unwrap_or_default(),
                    Err(ImapError::Refused { text, .. }) => debug!(mailbox = name, %text, "no STATUS of a mailbox"),
                    Err(err) => return Err(err),
                }
            }
        }
        Ok(())
    }

    async fn list_again(&mut self) -> Result<(), ImapError> {
        let (mirror, uid_next) = (&mut self.home.mirror, self.home.cursor.uid_next);
        let directory = self.link.list(|response| mirror.hear(response, uid_next)).await?;
        self.others.list_again = false;
        if !directory.is_credible() {
            warn!(account = %self.link.account().name, "the list of mailboxes has no INBOX, it is not believed");
            return Ok(());
        }
        for other in &mut self.others.visited {
            if let Some(entry) = directory.entries.get(&other.mailbox.name)
                && self.link.offers.list_status
            {
                other.hear(&entry.status);
            }
        }
        let young = super::folders::report_changes(&self.link, &directory).await?;
        let Some(selection) = &self.others.selection else { return Ok(()) };
        let chosen = chosen_mailboxes(&self.link, selection, &directory, &young);
        let is_chosen = |mailbox: &Mailbox| chosen.iter().any(|chosen| chosen.name == mailbox.name);
        let account = self.link.account().clone();
        let mut hot = account.hot();
        if !hot.iter().all(|hot| is_chosen(hot)) {
            hot.retain(|hot| is_chosen(hot));
            account.set_hot(hot.clone()).await;
        }
        // Those that are new are looked after here, whatever their place in the list.
        self.others.visited.retain(|other| is_chosen(&other.mailbox));
        for mailbox in &chosen {
            let is = |other: &Mailbox| other.name == mailbox.name;
            let is_known = is(&self.home.mailbox) || self.others.visited.iter().any(|other| is(&other.mailbox));
            if !is_known && !hot.iter().any(|hot| is(hot)) {
                self.others.visited.push(Other::new(mailbox.clone()));
            }
        }
        account.several_mailboxes.store(chosen.len() > 1, Ordering::Relaxed);
        if !is_chosen(&self.home.mailbox) {
            return self.move_home(&chosen, &directory).await;
        }
        self.look_after();
        Ok(())
    }

    fn look_after(&self) {
        let home = self.home.mailbox.name.as_str();
        self.link.context.look_after(self.others.visited.iter().map(|o| o.mailbox.name.as_str()).chain([home]));
    }

    /// The home is none of the mailboxes to watch any more: another one takes its place.
    async fn move_home(&mut self, chosen: &[Arc<Mailbox>], directory: &Directory) -> Result<(), ImapError> {
        let (account, left) = (self.link.account().clone(), self.home.mailbox.name.clone());
        let is_here = |other: &&Other| directory.entries.contains_key(&other.mailbox.name);
        let Some(home) = self.others.visited.iter().find(is_here).map(|other| other.mailbox.clone()) else {
            // All that are left have connections of their own: the next session deals anew.
            let none = || ImapError::NoMailboxes(account.endpoint.mailboxes.join(", "));
            return Err(if chosen.is_empty() { none() } else { ImapError::SessionOver });
        };
        info!(account = %account.name, left, home = home.name, "the connection waits in another mailbox");
        // What is still to be said of this mailbox must not be taken for the next one's.
        self.home.noop(&mut self.link).await?;
        self.others.visited.retain(|other| other.mailbox.name != home.name);
        self.go_to(home, false).await?;
        self.look_after();
        Ok(())
    }

    /// Gives connections that are free to mailboxes that are swept so far. At most once in a sweep's time, lest a
    /// server that opens no mailbox on them gets one login after the other.
    async fn deal(&mut self) {
        let (account, now) = (self.link.account().clone(), Instant::now());
        let is_early = self.others.deal_at.is_some_and(|at| at > now);
        if self.others.visited.is_empty() || self.others.selection.is_none() || self.others.told || is_early {
            return;
        }
        let mut hot = account.hot();
        let free = (account.connections_max.load(Ordering::Relaxed) as usize).saturating_sub(1 + hot.len());
        let visited = self.others.visited.iter().filter(|other| other.is_visited());
        let dealt: Vec<Arc<Mailbox>> = visited.take(free).map(|other| other.mailbox.clone()).collect();
        if dealt.is_empty() {
            return;
        }
        self.others.deal_at = Some(now + account.config.sweep_interval);
        self.others.visited.retain(|other| !dealt.iter().any(|mailbox| mailbox.name == other.mailbox.name));
        self.look_after();
        hot.extend(dealt);
        account.set_hot(hot).await;
    }

    /// Says that everything is watched.
    pub(super) fn is_watched(&self) {
        self.link.context.report(Condition::Connected);
    }
}

/// Lists the mailboxes, deals them out to connections, and has the server tell of those that have none. Returns the one
/// to wait in, and the others that this connection looks after.
async fn find(link: &mut Link, selection: Selection) -> Result<(Arc<Mailbox>, Others), ImapError> {
    let account = link.account().clone();
    let directory = link.list(|_| {}).await?;
    let young =
        if directory.is_credible() { super::folders::report_changes(link, &directory).await? } else { Vec::new() };
    let mut mailboxes = chosen_mailboxes(link, &selection, &directory, &young);
    if mailboxes.is_empty() {
        return Err(ImapError::NoMailboxes(account.endpoint.mailboxes.join(", ")));
    }
    account.several_mailboxes.store(mailboxes.len() > 1, Ordering::Relaxed);
    // One that is asked for and missing must not keep the others from being watched.
    mailboxes.sort_by_key(|mailbox| !directory.entries.contains_key(&mailbox.name));
    let home = mailboxes.remove(0);
    let told = (!mailboxes.is_empty() || link.wants.follows_mailboxes) && link.offers.notify && account.config.notify;
    if told {
        link.connection.keep_asides();
    }
    let told = told && super::folders::notify(link).await?;
    let spare = account.connections_max.load(Ordering::Relaxed).saturating_sub(1) as usize;
    let hot = if told { 0 } else { spare.min(mailboxes.len()) };
    let swept = mailboxes.split_off(hot);
    account.set_hot(mailboxes).await;
    info!(account = %account.name, swept = swept.len(), told, "mailboxes found");
    let mut visited: Vec<Other> = Vec::new();
    for mailbox in swept {
        let status = directory.entries.get(&mailbox.name).map(|entry| &entry.status);
        let is_clean = status.is_some_and(|status| *status != StatusItems::default())
            && is_as_stored(link, &mailbox, status).await?;
        let seen = status.cloned().filter(|status| *status != StatusItems::default());
        visited.push(Other { seen, is_dirty: !is_clean, ..Other::new(mailbox) });
    }
    // Also with nothing but a home: where there is a pattern, the next mailbox may fit it.
    let sweep_at = (!visited.is_empty() || selection.has_pattern()).then(Instant::now);
    let selection = Some(Box::new(selection));
    Ok((home, Others { visited, told, sweep_at, selection, ..Others::default() }))
}

/// Whether nothing has happened in a mailbox since its stored position.
async fn is_as_stored(link: &Link, mailbox: &Mailbox, status: Option<&StatusItems>) -> Result<bool, ImapError> {
    let Some(status) = status else { return Ok(false) };
    let checkpoint = link.account().event_log.checkpoint(&mailbox.checkpoint_key).await?;
    Ok(Stored::parse(checkpoint.as_deref()).cursor().is_some_and(|cursor| cursor.agrees_with(status)))
}

fn chosen_mailboxes(link: &Link, selection: &Selection, directory: &Directory, young: &[String]) -> Vec<Arc<Mailbox>> {
    let mailbox = |(name, entry): (&str, Option<&Entry>)| {
        let mut mailbox = Mailbox::new(&link.account().name, name, entry.and_then(|entry| entry.role));
        mailbox.is_young = young.iter().any(|young| young == name);
        Arc::new(mailbox)
    };
    selection.choose(directory).into_iter().map(mailbox).collect()
}
