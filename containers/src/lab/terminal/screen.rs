//! The terminal while it is drawn on, and as it was before: at the end, on an error, on a panic of any thread, and on the
//! signals that [`crate::lab::interrupt`] catches.

use crate::error::{Context, Result};
use ratatui::{
    DefaultTerminal, Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use std::{
    io::{self, IsTerminal, stdout},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Whether there is something to give back. A panic may end it, from whatever thread.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// The alternate screen, raw. Dropping it gives the terminal back.
pub struct Screen {
    terminal: DefaultTerminal,
}

/// What the person at the terminal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Key(KeyCode),
    /// Ctrl-C: in raw mode it is a key and no signal.
    Interrupt,
    /// Nothing that matters; the screen may have another size.
    Nothing,
}

impl Screen {
    /// Whether there is a terminal that can be drawn on.
    pub fn is_possible() -> bool {
        let is_dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
        !is_dumb && io::stdin().is_terminal() && stdout().is_terminal()
    }

    pub fn open() -> Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        IS_OPEN.store(true, Ordering::SeqCst);
        let open = || {
            enable_raw_mode()?;
            execute!(stdout(), EnterAlternateScreen)?;
            Terminal::new(CrosstermBackend::new(stdout()))
        };
        match open().doing("draw on the terminal") {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws a frame, in the size that the terminal has now; nothing once a panic has given the terminal back.
    pub fn draw(&mut self, body: impl FnOnce(&mut Frame)) -> Result<()> {
        if IS_OPEN.load(Ordering::SeqCst) {
            self.terminal.draw(body).doing("draw on the terminal")?;
        }
        Ok(())
    }

    /// The next input, if one comes in time.
    pub fn input(&self, wait: Duration) -> Result<Input> {
        let read = || -> io::Result<Input> {
            if !event::poll(wait)? {
                return Ok(Input::Nothing);
            }
            Ok(match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Release => Input::Nothing,
                Event::Key(KeyEvent { code: KeyCode::Char('c'), modifiers, .. })
                    if modifiers.contains(KeyModifiers::CONTROL) =>
                {
                    Input::Interrupt
                }
                Event::Key(key) => Input::Key(key.code),
                _ => Input::Nothing,
            })
        };
        match read() {
            // A signal: who waits looks for it.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Input::Nothing),
            result => result.doing("read the keyboard"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if IS_OPEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs nothing back.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    }
}
