//! `GET /v1/events`: Server-Sent Events, from wherever the reader stopped.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;

use crate::{
    api::{Problem, routes::By},
    error::Refusal,
};

/// How often a reader that has nothing to read hears that we are there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long one look at the store waits.
const LOOK: Duration = Duration::from_secs(60);

/// Events after `Last-Event-ID` (without one, those from now on), and those that come. A slow reader holds nothing in
/// memory: pages are read from the store as it takes them.
pub async fn follow(By(api): By, headers: HeaderMap) -> Response {
    let after = match headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|id| id.parse().ok())) {
        None => api.exchange.committer.events(),
        Some(Some(after)) => after,
        Some(None) => {
            return Problem(Refusal::new("id-invalid", "Last-Event-ID is the number of an event")).into_response();
        }
    };
    let events = stream::unfold((api, after, Vec::new().into_iter()), |(api, mut after, mut page)| async move {
        loop {
            if let Some(event) = page.next() {
                let event: crate::exchange::Event = event;
                after = event.number;
                let shown =
                    Event::default().id(event.number.to_string()).event(event.kind()).data(event.body.to_string());
                return Some((Ok::<_, Infallible>(shown), (api, after, page)));
            }
            // a store that can't be read ends the stream: the reader comes back to where it was
            page = api.exchange.next_events(after, LOOK).await.ok()?.into_iter();
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}
