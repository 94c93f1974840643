//! `GET /.well-known/mercure`: a stream of updates.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use futures::StreamExt;

use super::parameters::Parameters;
use super::{Dialect, discovery, refused, who};
use crate::event_log::Selection;
use crate::http::{Offer, Problem};
use crate::hub::Format;
use crate::transport::query::Query;
use crate::transport::{Transports, stream};

pub(super) async fn subscribe(State(transports): State<Transports>, request: Request) -> Response {
    answer(&transports, &request.into_parts().0).await.unwrap_or_else(|problem| refused(&transports, problem))
}

async fn answer(transports: &Transports, request: &Parts) -> Result<Response, Problem> {
    let headers = &request.headers;
    let parameters = Parameters::parse(request.uri.query().unwrap_or_default().as_bytes())?;
    let authority = who(transports, headers, &parameters).await?;
    let public = transports.hub.config().public;
    if authority.is_anonymous() && !public {
        return Err(Problem::unauthorized());
    }
    let (wanted, dialect) = parameters.wanted(transports.mercure.legacy, &transports.hub_url)?;
    if !public && authority.subscribe_matchers().is_empty() {
        return Err(Problem::forbidden("the token allows no topic to be subscribed to, and nothing is public here"));
    }
    let present = match &transports.presence {
        Some(presence) if request.method == Method::GET => {
            Some(presence.begin(&wanted, dialect, &authority.claims().mercure).await?)
        }
        _ => None,
    };
    let selection = Selection::of_token(wanted, authority.subscribe_matchers(), public);
    let query = Query { resume: parameters.resume(headers, dialect), ..Query::default() };
    // What ends with the stream has to be where it ends: such a stream stays with the HTTP server.
    let offered = present.is_none() && Offer::is_made(&request.extensions);
    let mut response = stream::subscribe(transports, Format::Mercure, selection, &query, &authority, offered).await?;
    tell_opening(response.headers_mut(), dialect, query.resume.is_some());
    response.headers_mut().extend(discovery::link(&transports.hub_url).map(|link| (header::LINK, link)));
    Ok(match present {
        // It ends with the stream, however that ends.
        Some(present) => response.map(|body| {
            Body::from_stream(body.into_data_stream().map(move |chunk| {
                let _ = &present;
                chunk
            }))
        }),
        None => response,
    })
}

/// Who did not ask for history is not told where it begins; who did is told in the header of its dialect.
fn tell_opening(headers: &mut HeaderMap, dialect: Dialect, asked: bool) {
    let opening: Option<HeaderValue> = headers.remove("last-event-id");
    let name = match dialect {
        Dialect::Legacy => HeaderName::from_static("last-event-id"),
        Dialect::Current => HeaderName::from_static("mercure-last-event-id"),
    };
    if asked {
        headers.extend(opening.map(|id| (name, id)));
    }
    let vary = HeaderValue::from_static("Authorization, Cookie, Last-Event-ID");
    headers.append(header::VARY, vary);
}
