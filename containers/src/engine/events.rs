//! What happened, for `docker events`: kept in memory, the last 256 for `--since`.

/// The events of this engine.
pub struct Events {}
