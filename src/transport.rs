//! How subscribers are reached: one resource, `/events`, on which the client's request decides the transport.
//!
//! Each transport owns one subscriber's connection: it takes batches from its [`crate::hub::Subscription`] and writes
//! them in its format. Nothing in here knows where events come from.

mod config;
mod feed;
mod mercure;
mod negotiate;
mod poll;
mod publish;
mod query;
mod shard;
mod stream;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

pub use config::{StreamConfig, StreamConfigError};
pub use mercure::{MercureConfig, Presence, advertise, hub_url};
pub use shard::Shards;

use self::negotiate::Transport;
use self::poll::Patience;
use self::query::Query;
use crate::auth::Authority;
use crate::event::{Topic, TopicMatcher};
use crate::event_log::{EventLog, Selection};
use crate::http::{Gate, Offer, Problem};
use crate::hub::{Hub, Resume};

/// What transports work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transports {
    /// Where subscribers come from.
    pub hub: Hub,
    /// Where published events go.
    pub event_log: EventLog,
    /// Who asks.
    pub gate: Gate,
    /// Where streams go that are no longer the HTTP server's.
    pub shards: Shards,
    /// `[stream]`.
    pub config: StreamConfig,
    /// `[mercure]`.
    pub mercure: MercureConfig,
    /// Where the hub is under the Mercure protocol.
    pub hub_url: Arc<Url>,
    /// Who is subscribed to what, where that is told.
    pub presence: Option<Presence>,
    /// Ends every stream, with a `bye`.
    pub stop: CancellationToken,
    /// Counts the connections that are no longer the HTTP server's.
    pub upgraded: TaskTracker,
}

/// `/events`, and the hub under the Mercure protocol.
pub fn router(transports: Transports) -> Router {
    Router::new()
        .route("/events", get(subscribe).connect(subscribe).post(publish::publish))
        .merge(mercure::routes())
        .with_state(transports)
}

/// `GET /events`: subscribes over the transport that the request asks for.
async fn subscribe(State(transports): State<Transports>, request: Request) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query().unwrap_or_default(), request.headers())?;
    let transport = negotiate::transport(request.method(), request.headers(), &query)?;
    let (headers, offered) = (request.headers(), Offer::is_made(request.extensions()));
    let authority = match transport {
        Transport::WebSocket => transports.gate.writer(headers).await?,
        _ => transports.gate.reader(headers).await?,
    };
    if query.topics.is_empty() && transport != Transport::WebSocket {
        let detail = "say what to subscribe to: `?topic=mail/alice/INBOX`, a URI template such as \
                      `mail/alice/{mailbox}`, or `*`; `topic` may be repeated";
        return Err(Problem::bad_request("topic-missing", detail));
    }
    let selection = transports.selection(&authority, query.topics.clone())?;
    let mut response = match transport {
        Transport::WebSocket => websocket::subscribe(transports, request, query, authority).await?,
        Transport::Stream(format) => {
            stream::subscribe(&transports, format, selection, &query, &authority, offered).await?
        }
        Transport::LongPoll => {
            poll::subscribe(&transports, headers, selection, &query, Patience::Long, &authority).await?
        }
        Transport::Poll => poll::subscribe(&transports, headers, selection, &query, Patience::None, &authority).await?,
    };
    let vary = axum::http::HeaderValue::from_static("Accept, Authorization, Cookie, Last-Event-ID");
    response.headers_mut().append(header::VARY, vary);
    Ok(response)
}

impl Transports {
    /// What a subscriber will see of what it asks for.
    ///
    /// # Errors
    /// 401 without a token where one is needed, 403 for topics of which it would never see anything: silence would
    /// look like "no mail".
    fn selection(&self, authority: &Authority, wanted: Vec<TopicMatcher>) -> Result<Selection, Problem> {
        let public = self.hub.config().public;
        if authority.is_anonymous() && !public {
            return Err(Problem::unauthorized());
        }
        for exact in wanted.iter().filter_map(TopicMatcher::as_exact) {
            let covered = Topic::parse(exact).is_ok_and(|topic| authority.may_see(&[topic]));
            let may_be_public = public && !exact.starts_with("mail/");
            if covered || may_be_public {
                continue;
            }
            if authority.is_anonymous() {
                return Err(Problem::unauthorized());
            }
            let detail =
                format!("the token does not cover the topic `{exact}`; its `mercure.subscribe` claim must match it");
            return Err(Problem::forbidden(detail));
        }
        Ok(Selection::of_token(wanted, authority.subscribe_matchers(), public))
    }
}

/// Where a query wants to begin; `Now` where it says nothing.
fn resume(query: &Query) -> Resume {
    query.resume.unwrap_or(Resume::Now)
}
