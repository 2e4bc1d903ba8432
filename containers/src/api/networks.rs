//! Routes: networks.

use super::{filters::Filters, json};
use crate::{
    engine::{Engine, events},
    error::Result,
    network::is_predefined,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use bollard_stubs::models;
use serde::Deserialize;
use std::{collections::HashMap, sync::Arc};

pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(disconnect))
}

#[derive(Deserialize)]
struct ListQuery {
    filters: Option<String>,
}

const FILTERS: [&str; 8] = ["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];

async fn list(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<models::NetworkInspect>>> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let used = engine.networks_in_use();
    let networks = engine.networks.list().into_iter().filter(|network| {
        let (name, id) = (text(&network.name), text(&network.id));
        let kind = if is_predefined(&name) { "builtin" } else { "custom" };
        filters.any("name", |part| name.contains(part))
            && filters.any("id", |part| id.contains(part))
            && filters.any("driver", |driver| text(&network.driver) == driver)
            && filters.any("scope", |scope| text(&network.scope) == scope)
            && filters.any("type", |wanted| wanted == kind)
            && filters.labels(network.labels.as_ref().unwrap_or(&HashMap::new()))
            && dangling.is_none_or(|dangling| dangling != (used.contains(&name) || is_predefined(&name)))
    });
    // The list of dockerd does not say who is on a network: `inspect` does.
    Ok(Json(networks.map(|network| models::NetworkInspect { containers: Some(HashMap::new()), ..network }).collect()))
}

async fn create(
    State(engine): State<Arc<Engine>>,
    body: Bytes,
) -> Result<(StatusCode, Json<models::NetworkCreateResponse>)> {
    let request: models::NetworkCreateRequest = json(&body)?;
    let (name, driver) = (request.name.clone(), request.driver.clone());
    let id = engine.networks.create(request).await?;
    tell(&engine, "create", &id, &name, driver.as_deref().unwrap_or("bridge"));
    Ok((StatusCode::CREATED, Json(models::NetworkCreateResponse { id, warning: String::new() })))
}

async fn inspect(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> Result<Json<models::NetworkInspect>> {
    engine.networks.get(&name).map(Json)
}

async fn remove(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> Result<StatusCode> {
    let network = engine.networks.get(&name)?;
    engine.networks.remove(&name).await?;
    tell_of(&engine, "destroy", &network);
    Ok(StatusCode::NO_CONTENT)
}

async fn connect(State(engine): State<Arc<Engine>>, Path(name): Path<String>, body: Bytes) -> Result<StatusCode> {
    let request: models::NetworkConnectRequest = json(&body)?;
    let container = engine.containers.get(&request.container)?;
    engine.connect_container(&container, &name, request.endpoint_config.unwrap_or_default()).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(State(engine): State<Arc<Engine>>, Path(name): Path<String>, body: Bytes) -> Result<StatusCode> {
    let request: models::NetworkDisconnectRequest = json(&body)?;
    let container = engine.containers.get(&request.container)?;
    engine.disconnect_container(&container, &name).await?;
    Ok(StatusCode::OK)
}

/// Networks that no container uses, running or not.
async fn prune(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<models::NetworkPruneResponse>> {
    let filters = Filters::parse(query.filters.as_deref(), &["label", "label!"])?;
    let used = engine.networks_in_use();
    let mut deleted = Vec::new();
    for network in engine.networks.list() {
        let name = network.name.clone().unwrap_or_default();
        let wanted = filters.labels(network.labels.as_ref().unwrap_or(&HashMap::new()));
        if wanted && !is_predefined(&name) && !used.contains(&name) && engine.networks.remove(&name).await.is_ok() {
            tell_of(&engine, "destroy", &network);
            deleted.push(name);
        }
    }
    Ok(Json(models::NetworkPruneResponse { networks_deleted: Some(deleted) }))
}

fn tell_of(engine: &Engine, action: &str, network: &models::NetworkInspect) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    tell(engine, action, &text(&network.id), &text(&network.name), &text(&network.driver));
}

fn tell(engine: &Engine, action: &str, id: &str, name: &str, driver: &str) {
    let attributes = HashMap::from([("name".to_string(), name.to_string()), ("type".to_string(), driver.to_string())]);
    engine.events.emit(events::Kind::NETWORK, action, id, attributes);
}
