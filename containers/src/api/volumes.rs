//! Routes: volumes.

use crate::engine::Engine;
use axum::Router;
use std::sync::Arc;

pub fn routes() -> Router<Arc<Engine>> {
    Router::new()
}
