//! Routes: events.

use super::{filters::Filters, stream};
use crate::{engine::Engine, error::Result};
use axum::{
    Router,
    extract::{Query, State},
    response::Response,
    routing::get,
};
use bollard_stubs::models::EventMessage;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

pub fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/events", get(events))
}

#[derive(Deserialize)]
struct EventsQuery {
    since: Option<String>,
    until: Option<String>,
    filters: Option<String>,
}

const FILTERS: [&str; 9] = ["container", "daemon", "event", "image", "label", "network", "scope", "type", "volume"];

async fn events(State(engine): State<Arc<Engine>>, Query(query): Query<EventsQuery>) -> Result<Response> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    let since = super::timestamp(query.since.as_deref())?;
    let until: Option<DateTime<Utc>> = super::timestamp(query.until.as_deref())?;
    let (past, mut coming) = engine.events.subscribe();
    let (lines, response) = stream::lines();
    tokio::spawn(async move {
        let time = |event: &EventMessage| DateTime::from_timestamp_nanos(event.time_nano.unwrap_or_default());
        for event in past {
            let wanted =
                since.is_some_and(|since| time(&event) >= since) && until.is_none_or(|until| time(&event) <= until);
            if wanted && matches(&filters, &event) && !lines.send(&event) {
                return;
            }
        }
        let end = async {
            match until {
                Some(until) => tokio::time::sleep((until - Utc::now()).to_std().unwrap_or_default()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                () = &mut end => return,
                () = lines.closed() => return,
                event = coming.recv() => event,
            };
            match event {
                Ok(event) if matches(&filters, &event) => {
                    if !lines.send(&event) {
                        return;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => log::warn!("a client of /events was too slow: {count} events lost"),
                Err(RecvError::Closed) => return,
            }
        }
    });
    Ok(response)
}

fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let actor = event.actor.clone().unwrap_or_default();
    let (id, attributes) = (actor.id.unwrap_or_default(), actor.attributes.unwrap_or_default());
    let kind = event.typ.map(|kind| kind.to_string()).unwrap_or_default();
    let action = event.action.clone().unwrap_or_default();
    let named = |name: &str| {
        filters.any(name, |asked| {
            kind == name
                && (id == asked || id.starts_with(asked) || attributes.get("name").is_some_and(|name| name == asked))
                || (name == "image" && attributes.get("image").is_some_and(|image| image == asked))
        })
    };
    filters.any("type", |asked| asked == kind)
        && filters.any("event", |asked| action == asked || action.split(':').next() == Some(asked))
        && filters.any("scope", |asked| asked == "local")
        && filters.labels(&attributes)
        && ["container", "image", "network", "volume", "daemon"].iter().all(|name| named(name))
}
