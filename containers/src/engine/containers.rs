//! Containers and their lives.

/// Every container of this engine.
pub struct Containers {}
