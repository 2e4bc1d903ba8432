//! The lab: lessons that run what they teach, and show it.

pub mod recording;
