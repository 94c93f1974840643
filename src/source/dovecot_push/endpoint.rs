//! `/dovecot/push`: takes notifications over HTTP, and hands each on to where it belongs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::put;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Secret;
use super::draft::draft;
use super::notification::{self, Notification};
use super::route::Routes;
use crate::event_log::{Append, EventLog};
use crate::http::{Problem, read_body};
use crate::metrics::{Metrics, Results};
use crate::registry::Account;
use crate::source::imap::WatcherHandle;

/// Dovecot's delivery waits for our answer, 2 s by default and 500 ms where it is set so: a log that takes longer than
/// this costs the push and not the delivery.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// The longest body. One notification has less than 2 KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Takes what Dovecot sends. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    secret: Secret,
    routes: RwLock<Routes>,
    watcher: WatcherHandle,
    event_log: EventLog,
    /// By what became of them.
    notifications: Results,
}

impl Receiver {
    /// A receiver for the mail of these accounts.
    pub fn new(
        secret: Secret,
        accounts: &[Account],
        watcher: WatcherHandle,
        event_log: EventLog,
        metrics: &Metrics,
    ) -> Self {
        let notifications = Results::default();
        metrics.register_results("dovecot_push", "Notifications from Dovecot, by what became of them", &notifications);
        let routes = RwLock::new(Routes::new(accounts, &secret));
        Self { shared: Arc::new(Shared { secret, routes, watcher, event_log, notifications }) }
    }

    /// The accounts from now on.
    pub fn replace(&self, accounts: &[Account]) {
        let routes = Routes::new(accounts, &self.shared.secret);
        *self.shared.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }
}

/// `PUT` (the OX driver) and `POST` (anybody else) at `/dovecot/push`.
pub fn router(receiver: Receiver) -> Router {
    Router::new().route("/dovecot/push", put(receive).post(receive)).with_state(receiver)
}

/// Answers 204 for whatever is understood, for an unknown user too: Dovecot logs any other answer as an error, for
/// each delivery, and not all of its users need be ours.
async fn receive(State(receiver): State<Receiver>, request: Request) -> Result<StatusCode, Problem> {
    let shared = &*receiver.shared;
    let count = |result| shared.notifications.count(result);
    if !shared.secret.is_in(request.headers()) {
        count("unauthorized");
        let detail = "the user name or the secret is not that of `[dovecot]`; give both in the URL: \
                      http://USER:SECRET@HOST:PORT/dovecot/push";
        return Err(Problem::credentials_needed(detail));
    }
    let body = read_body(request, BODY_BYTES_MAX).await.inspect_err(|_| count("invalid"))?;
    let notifications = notification::parse(&body).map_err(|err| {
        count("invalid");
        debug!(error = %err, "notification from Dovecot not understood");
        Problem::bad_request("notification-invalid", err.to_string())
    })?;
    let append = shared.hand_on(&notifications);
    if append.is_empty() {
        return Ok(StatusCode::NO_CONTENT);
    }
    match timeout(ANSWER_WITHIN, shared.event_log.append(append)).await {
        Ok(Ok(_)) => {
            count("stored");
            Ok(StatusCode::NO_CONTENT)
        }
        Ok(Err(err)) => {
            count("failed");
            warn!(error = %err, "notification from Dovecot not stored");
            Err(err.into())
        }
        Err(_) => {
            count("failed");
            warn!(timeout = ?ANSWER_WITHIN, "notification from Dovecot not stored in time");
            Err(Problem::unavailable("event-log", "the event log is busy; what was sent may be stored later", 1))
        }
    }
}

impl Shared {
    /// Tells the watchers of watched accounts at once; what is left is for the event log.
    fn hand_on(&self, notifications: &[Notification]) -> Append {
        let mut append = Append::new();
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        for notification in notifications {
            let destinations = routes.of(&notification.user);
            if destinations.is_empty() {
                self.notifications.count("unknown_user");
                debug!("notification from Dovecot about a user who has no account");
            }
            for destination in destinations {
                if destination.watched {
                    let told = [Some(&notification.folder), notification.old_folder.as_ref()]
                        .into_iter()
                        .flatten()
                        .all(|mailbox| self.watcher.mailbox_changed(&destination.account, mailbox));
                    // Not watched at this moment: what came is found when it is watched again.
                    self.notifications.count(if told { "watcher_told" } else { "not_watched" });
                } else if let Some((draft, key)) = draft(notification, destination) {
                    append.push(draft, key);
                } else {
                    self.notifications.count("ignored");
                }
            }
        }
        append
    }
}
