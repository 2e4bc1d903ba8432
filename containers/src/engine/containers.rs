//! Containers and their lives.

/// Every container of this engine.
pub struct Containers {}

impl Containers {
    /// How many run and how many do not.
    pub fn count(&self) -> [usize; 2] {
        todo!()
    }
}
