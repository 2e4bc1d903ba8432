//! Routes: volumes.

use super::{blocking, filters::Filters};
use crate::{engine::Engine, error::Result};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use bollard_stubs::models;
use serde::Deserialize;
use std::sync::Arc;

pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

#[derive(Deserialize)]
struct ListQuery {
    filters: Option<String>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<models::VolumeListResponse>> {
    let filters = Filters::parse(query.filters.as_deref(), &["dangling", "driver", "label", "name"])?;
    let used = engine.containers.volumes_in_use();
    let dangling = filters.flag("dangling")?;
    let volumes = blocking(move || engine.volumes.list()).await?;
    let volumes = volumes
        .into_iter()
        .filter(|volume| dangling.is_none_or(|dangling| dangling != used.iter().any(|(name, _)| *name == volume.name)))
        .filter(|volume| filters.any("name", |name| volume.name.contains(name)))
        .filter(|volume| filters.any("driver", |driver| volume.driver == driver))
        .filter(|volume| filters.labels(&volume.labels))
        .collect();
    Ok(Json(models::VolumeListResponse { volumes: Some(volumes), warnings: Some(Vec::new()) }))
}

async fn create(
    State(engine): State<Arc<Engine>>,
    Json(request): Json<models::VolumeCreateRequest>,
) -> Result<(StatusCode, Json<models::Volume>)> {
    let volume = blocking(move || engine.volumes.create(request)).await?;
    Ok((StatusCode::CREATED, Json(volume)))
}

async fn inspect(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> Result<Json<models::Volume>> {
    blocking(move || engine.volumes.get(&name)).await.map(Json)
}

#[derive(Deserialize)]
struct RemoveQuery {
    #[serde(default, deserialize_with = "super::flag")]
    force: bool,
}

async fn remove(
    State(engine): State<Arc<Engine>>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode> {
    let used = engine.containers.volumes_in_use();
    blocking(move || engine.volumes.remove(&name, query.force, &used)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Anonymous volumes that no container uses; with the filter `all` named ones as well.
async fn prune(
    State(engine): State<Arc<Engine>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<models::VolumePruneResponse>> {
    let filters = Filters::parse(query.filters.as_deref(), &["all", "label", "label!"])?;
    let all = filters.flag("all")?.unwrap_or(false);
    let used = engine.containers.volumes_in_use();
    let deleted = blocking(move || {
        let mut deleted = Vec::new();
        for volume in engine.volumes.list()? {
            let wanted = (all || engine.volumes.is_anonymous(&volume.name)) && filters.labels(&volume.labels);
            if wanted && engine.volumes.remove(&volume.name, false, &used).is_ok() {
                deleted.push(volume.name);
            }
        }
        Ok(deleted)
    })
    .await?;
    Ok(Json(models::VolumePruneResponse { volumes_deleted: Some(deleted), space_reclaimed: Some(0) }))
}
