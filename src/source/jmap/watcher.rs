//! Keeps every account watched, and brings back what fails.
//!
//! A session opens the event stream first and asks what changed then, so that nothing falls in between; without a
//! stream it asks again and again. What is known of an account outlives its sessions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::account::{Account, Context};
use super::client::{Client, Events, Session};
use super::config::JmapConfig;
use super::error::JmapError;
use super::object::StateChange;
use crate::event::Origin;
use crate::event_log::{AppendError, EventLog};
use crate::registry::{self, AccountChanges, Registry, Succession};
use crate::source::backoff::{Backoff, after_refused_login};
use crate::source::health::{Announcements, Condition, Health};

/// For a commit to be finished.
const GRACE: Duration = Duration::from_secs(4);
/// Connections to one host that are being set up at the same time.
const CONNECTS_PER_HOST_MAX: usize = 4;
/// Even a stream that looks fine is not trusted for longer.
const SAFETY_POLL: Duration = Duration::from_mins(15);
/// How long a server without an event stream is polled before it is asked again whether it has one.
const POLLED_MAX: Duration = Duration::from_hours(1);
/// Silence on the stream, in pings.
const SILENT_PINGS: f64 = 2.5;
/// Failures in a row that are announced; the first loss of a watched account is not, since it is mostly back before
/// anybody could act.
const FAILURES_ANNOUNCED: u32 = 2;
/// Where the server asks for patience and does not say for how long.
const AFTER_THROTTLED: Duration = Duration::from_mins(10);

/// Watches the accounts that `changes` bring, as far as they have a JMAP server, until `stop`. What happens becomes
/// events in `event_log`, together with the position in the account; `registry` is told how each account is doing. An
/// account goes on as it is until `changes` name it.
///
/// # Cancel safety
/// Dropping the future ends all connections; nothing is lost, since positions move with the events.
pub async fn watch(
    config: JmapConfig,
    event_log: EventLog,
    registry: Registry,
    changes: mpsc::Receiver<AccountChanges>,
    stop: CancellationToken,
) {
    let announcements = Arc::new(Announcements::default());
    let mut telling = JoinSet::new();
    let (waiting, log, ending) = (announcements.clone(), event_log.clone(), stop.clone());
    telling.spawn(async move { waiting.announce(&log, &ending).await });
    let watchers = Watchers {
        config: Arc::new(config),
        event_log,
        registry,
        announcements,
        hosts: HashMap::new(),
        tasks: JoinSet::new(),
        running: HashMap::new(),
        succession: Succession::default(),
        stop,
    };
    watchers.supervise(changes).await;
    telling.shutdown().await;
}

/// One account, while it is watched.
#[derive(Clone)]
struct Watched {
    context: Arc<Context>,
    connects: Arc<Semaphore>,
    /// Cancelled when it is no longer wanted in this form.
    stop: CancellationToken,
}

struct Watchers {
    config: Arc<JmapConfig>,
    event_log: EventLog,
    registry: Registry,
    announcements: Arc<Announcements>,
    hosts: HashMap<String, Arc<Semaphore>>,
    tasks: JoinSet<()>,
    running: HashMap<Id, Watched>,
    succession: Succession,
    stop: CancellationToken,
}

impl Watchers {
    fn begin(&mut self, account: registry::Account) {
        let Some(endpoint) = account.jmap else { return };
        let name = account.name;
        let health = Health::new(name.clone(), Origin::Jmap, self.registry.clone(), self.announcements.clone());
        health.report(Context::CONNECTION, Condition::START);
        let places = || Arc::new(Semaphore::new(CONNECTS_PER_HOST_MAX));
        let connects = self.hosts.entry(endpoint.url.clone()).or_insert_with(places).clone();
        let (config, event_log) = (self.config.clone(), self.event_log.clone());
        let context = Context { name, content: account.content, endpoint, config, event_log, health };
        self.start(Watched { context: Arc::new(context), connects, stop: self.stop.child_token() });
    }

    fn start(&mut self, account: Watched) {
        let span = info_span!("jmap.account", account = %account.context.name);
        let stop = account.stop.clone();
        let watcher = Watcher::new(account.context.clone(), account.connects.clone());
        let task = self.tasks.spawn(async move { watcher.run(&stop).await }.instrument(span));
        self.running.insert(task.id(), account);
    }

    /// Ends what is gone, and begins what has come.
    fn change(&mut self, changes: AccountChanges) {
        let mut ending = BTreeSet::new();
        for watched in self.running.values().filter(|watched| changes.gone.contains(&watched.context.name)) {
            watched.stop.cancel();
            ending.insert(watched.context.name.clone());
        }
        for account in self.succession.take(changes, &ending) {
            self.begin(account);
        }
    }

    /// Takes note of a panic, and says when the account is tried again.
    fn panicked(&self, err: &JoinError) -> Option<Duration> {
        let Watched { context, .. } = self.running.get(&err.id())?;
        error!(account = %context.name, error = %err, "a JMAP watcher panicked");
        let pause = context.config.retry_max;
        report_failure(context, &JmapError::Panicked, pause, true);
        Some(pause)
    }

    /// The pause after a panic is over.
    fn again(&mut self, id: Id) {
        match self.running.get(&id).cloned() {
            Some(watched) if !watched.stop.is_cancelled() => {
                self.running.remove(&id);
                self.start(watched);
            }
            _ => self.ended(id),
        }
    }

    fn ended(&mut self, id: Id) {
        let Some(watched) = self.running.remove(&id) else { return };
        if watched.stop.is_cancelled() {
            watched.context.health.forget(Context::CONNECTION);
        }
        if let Some(account) = self.succession.next(&watched.context.name) {
            self.begin(account);
        }
    }

    async fn supervise(mut self, mut changes: mpsc::Receiver<AccountChanges>) {
        let stop = self.stop.clone();
        let mut again = JoinSet::new();
        while !self.tasks.is_empty() || !again.is_empty() || !changes.is_closed() {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(changes) = changes.recv() => self.change(changes),
                Some(ended) = self.tasks.join_next_with_id() => match ended {
                    Ok((id, ())) => self.ended(id),
                    Err(err) => if let Some(pause) = self.panicked(&err) {
                        let (id, stop) = (err.id(), self.running.get(&err.id()).map(|watched| watched.stop.clone()));
                        again.spawn(async move {
                            if let Some(stop) = stop {
                                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                            }
                            id
                        });
                    },
                },
                Some(Ok(id)) = again.join_next() => self.again(id),
                else => break,
            }
        }
        let drained = timeout(GRACE, async { while self.tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            warn!(open = self.tasks.len(), grace = ?GRACE, "grace period over, dropping JMAP connections");
            self.tasks.shutdown().await;
        }
    }
}

/// One account over all of its sessions.
struct Watcher {
    context: Arc<Context>,
    connects: Arc<Semaphore>,
    account: Option<Account>,
    backoff: Backoff,
    refusals: u32,
    connected_since: Option<Instant>,
    was_watched: bool,
}

impl Watcher {
    fn new(context: Arc<Context>, connects: Arc<Semaphore>) -> Self {
        let backoff = Backoff::new(context.config.retry_first, context.config.retry_max);
        Self { context, connects, account: None, backoff, refusals: 0, connected_since: None, was_watched: false }
    }

    async fn run(mut self, stop: &CancellationToken) {
        loop {
            let ended = stop.run_until_cancelled(self.session()).await;
            let pause = match ended {
                // The log is gone: postrider is on its way out.
                None | Some(Err(JmapError::Append(AppendError::Closed))) => return,
                // It is time to ask again for an event stream.
                Some(Ok(())) => continue,
                Some(Err(err)) => self.failed(&err),
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn session(&mut self) -> Result<(), JmapError> {
        let context = self.context.clone();
        let turn = self.connects.clone().acquire_owned().await;
        let client = Client::new(&context.endpoint, &context.config).await?;
        let session = client.session(&context.endpoint, context.config.ping).await?;
        self.refusals = 0;
        context.report(Condition::Syncing { stalled: None });
        let mut account = match self.account.take() {
            Some(account) => account,
            None => Account::open(context.clone(), &client, &session).await?,
        };
        let silence_max = context.config.ping.mul_f64(SILENT_PINGS);
        let watched = match client.events(&session, silence_max).await {
            Ok(events) => {
                drop(turn);
                self.watched(&mut account, &client, &session, events).await
            }
            Err(err) => Err(err),
        };
        self.account = Some(account);
        watched
    }

    async fn watched(
        &mut self,
        account: &mut Account,
        client: &Client,
        session: &Session,
        events: Option<Events>,
    ) -> Result<(), JmapError> {
        account.sync(client, session).await?;
        self.context.report(Condition::Connected);
        (self.connected_since, self.was_watched) = (Some(Instant::now()), true);
        match events {
            Some(events) => pushed(account, client, session, events, &self.context).await,
            None => polled(account, client, session, &self.context).await,
        }
    }

    /// Takes note of a failure, tells people, and says how long to wait.
    fn failed(&mut self, err: &JmapError) -> Duration {
        let lived = self.connected_since.take().map(|since| since.elapsed()).unwrap_or_default();
        let mut pause = self.backoff.after_failure(lived, rand::random_range(0.5..1.0));
        if let JmapError::Throttled { after, .. } = err {
            pause = pause.max(after.unwrap_or(AFTER_THROTTLED).min(Duration::from_hours(1)));
        }
        if err.is_auth() {
            self.refusals = self.refusals.saturating_add(1);
            pause = pause.max(after_refused_login(self.refusals));
        }
        // A proxy may end every stream after a minute. Each new one begins with a question for changes, so that this
        // is never worse than polling.
        let is_stream = matches!(err, JmapError::StreamLost(_));
        if is_stream {
            pause = pause.min(self.context.config.poll_interval);
        }
        let announced = !is_stream && (!self.was_watched || self.backoff.failures() >= FAILURES_ANNOUNCED);
        report_failure(&self.context, err, pause, announced);
        pause
    }
}

fn report_failure(context: &Context, err: &JmapError, pause: Duration, announced: bool) {
    let reason = err.reason();
    warn!(account = %context.name, error = reason, retry_in = ?pause, "account is not watched, will try again");
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    let retry_at = Timestamp::now().checked_add(pause).unwrap_or(Timestamp::MAX);
    context.report(if err.is_auth() {
        Condition::AuthFailed { reason, retry_at: Some(retry_at) }
    } else if announced {
        Condition::Failed { reason, retry_at }
    } else {
        Condition::Connecting { reason: Some(reason), retry_at: Some(retry_at) }
    });
}

/// Follows the event stream until it fails.
async fn pushed(
    account: &mut Account,
    client: &Client,
    session: &Session,
    mut events: Events,
    context: &Context,
) -> Result<(), JmapError> {
    info!(account = %context.name, "watched by its event stream");
    let mut safety = interval_at(Instant::now() + SAFETY_POLL, SAFETY_POLL);
    safety.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = tokio::select! {
            event = events.next() => {
                let event = event?;
                event.name == "state" && is_news(&event.data, account, session)
            }
            _ = safety.tick() => true,
        };
        if changed {
            account.sync(client, session).await?;
            context.report(Condition::Connected);
        }
    }
}

fn is_news(data: &str, account: &Account, session: &Session) -> bool {
    match serde_json::from_str::<StateChange>(data) {
        Ok(change) => change
            .changed
            .get(&session.account)
            .is_some_and(|states| account.is_behind(states.get("Email"), states.get("Mailbox"))),
        Err(err) => {
            // Something happened, whatever it was.
            debug!(error = %err, "change of state not understood");
            true
        }
    }
}

/// Asks again and again, for as long as it is not worth asking for an event stream.
async fn polled(account: &mut Account, client: &Client, session: &Session, context: &Context) -> Result<(), JmapError> {
    let pause = context.config.poll_interval;
    info!(account = %context.name, every = ?pause, "the server has no event stream, polling");
    let until = Instant::now() + POLLED_MAX;
    while Instant::now() < until {
        tokio::time::sleep(pause).await;
        account.sync(client, session).await?;
        context.report(Condition::Connected);
    }
    Ok(())
}
