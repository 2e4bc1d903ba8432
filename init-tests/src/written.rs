//! Tables in the project's pages, between markers that name the command which makes them.

use std::io::{Error, Result};
use std::path::Path;

/// Puts a text between the markers `<!-- begin: COMMAND -->` and `<!-- end: COMMAND -->` of a page, in the place of what
/// stands there.
pub fn replace(page: &Path, command: &str, text: &str) -> Result<()> {
    let old = std::fs::read_to_string(page)?;
    let (begin, end) = (format!("<!-- begin: {command} -->"), format!("<!-- end: {command} -->"));
    let place = old.find(&begin).map(|at| at + begin.len()).zip(old.find(&end)).filter(|(from, to)| from <= to);
    let (from, to) = place.ok_or_else(|| Error::other(format!("no lines {begin} and {end}")))?;
    std::fs::write(page, format!("{}\n{}\n{}", &old[..from], text.trim(), &old[to..]))
}
