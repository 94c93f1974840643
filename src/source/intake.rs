//! What becomes of mail that is handed to postrider, by whatever way: whom it is for, and its events.
//!
//! SMTP, LMTP and mail over HTTP end here. Each takes a message in as its protocol has it, asks the [`Routing`] about
//! every recipient, hands over a [`Mail`], and tells its client the [`Outcome`], which is a promise of the event log.

mod delivery;
mod path;
mod routing;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::event_log::EventLog;

pub(crate) use delivery::{Mail, Outcome, QueueId, Recipient};
pub(crate) use path::{Path, bracketed};
pub use routing::{AddressSecrets, Entry, RouteConfig, Routing, RoutingError};
pub(crate) use routing::{NoRoute, Peer};

/// The routing of the moment: a reload of the configuration replaces it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes(Arc<RwLock<Arc<Routing>>>);

impl Routes {
    /// The routing as it is now. Whoever asks about several recipients of one message keeps it for all of them.
    pub(crate) fn current(&self) -> Arc<Routing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, routing: Routing) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routing);
    }
}

impl From<Routing> for Routes {
    fn from(routing: Routing) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(routing))))
    }
}

/// Takes mail for the configured accounts. Clones share everything.
#[derive(Debug, Clone)]
pub struct Intake {
    routes: Routes,
    event_log: EventLog,
    append_timeout: Duration,
}

impl Intake {
    /// Commits to `event_log` what `routing` says; gives up on a commit after `append_timeout`.
    pub fn new(routing: Routing, event_log: EventLog, append_timeout: Duration) -> Self {
        Self { routes: routing.into(), event_log, append_timeout }
    }

    /// Where recipients' mail goes.
    pub(crate) fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Sends mail elsewhere from now on. A message whose sender has begun keeps to what held then.
    pub fn replace_routing(&self, routing: Routing) {
        self.routes.replace(routing);
    }

    /// Commits one message.
    ///
    /// # Cancel safety
    /// The message may be committed when the future is dropped; its sender does not hear of that and repeats it.
    pub(crate) async fn take(&self, mail: Mail) -> Outcome {
        delivery::commit(&self.event_log, mail, self.append_timeout).await
    }
}
