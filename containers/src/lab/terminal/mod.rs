//! The lab on a terminal: a process tree above a lane of events, live and again, as slowly as one likes.
//!
//! [`tree`] and [`lane`] make lines of a recording at a moment; [`player`] is the moment; [`draw`] puts them on the
//! [`screen`]. [`lesson`] shows a lesson's alternatives side by side, `inception top` the containers of an engine.

pub mod draw;
pub mod lane;
pub mod lesson;
pub mod player;
pub mod screen;
mod theme;
pub mod top;
pub mod tree;

use ratatui::crossterm::event::KeyCode;

/// Moves the first line that is shown, where the key is one for that; whether it is.
fn scroll(first: &mut usize, key: KeyCode) -> bool {
    match key {
        KeyCode::Up => *first = first.saturating_sub(1),
        KeyCode::Down => *first += 1,
        KeyCode::PageUp => *first = first.saturating_sub(10),
        KeyCode::PageDown => *first += 10,
        _ => return false,
    }
    true
}
