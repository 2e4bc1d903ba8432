//! The stack: cold and cached builds, sizes, and the time from `up` to the first page.

use crate::report::Report;

pub fn measure(_report: &mut Report) {}
