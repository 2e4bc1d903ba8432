//! The lab and `top` on a terminal: tmux is the terminal, so that what is asserted is what a person would see.
//! As root, with tmux and the inits installed (`make test` sees to it).

#[allow(dead_code, reason = "the screen is tried by itself, too")]
#[path = "../../src/error.rs"]
mod error;
#[path = "../e2e/harness.rs"]
mod harness;
mod lesson;
#[path = "../e2e/peers.rs"]
mod peers;
mod restored;
#[path = "../../src/lab/terminal/screen.rs"]
#[allow(dead_code, reason = "the screen is tried by itself, too")]
mod screen;
mod top;
mod window;
