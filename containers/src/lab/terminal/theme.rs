//! Colours, where they are wanted. They only repeat what marks and words say: with NO_COLOR nothing is lost.

use super::tree::Look;
use crate::lab::recording::Kind;
use ratatui::style::{Color, Modifier, Style};

#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colours: bool,
}

impl Theme {
    /// See no-color.org: set to anything but nothing.
    pub fn of_environment() -> Theme {
        Theme { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn style(self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.colours { style.fg(colour) } else { style }
    }

    pub fn look(self, look: Look) -> Style {
        match look {
            Look::Alive => Style::new(),
            Look::Zombie => self.style(Color::Magenta, Modifier::BOLD),
            Look::Stopped => self.style(Color::Yellow, Modifier::BOLD),
            Look::Killed => self.style(Color::Red, Modifier::BOLD),
            Look::Gone => self.style(Color::DarkGray, Modifier::DIM),
            Look::Heading => self.style(Color::Cyan, Modifier::BOLD),
        }
    }

    pub fn kind(self, kind: Kind) -> Style {
        match kind {
            Kind::SignalSent | Kind::SignalForwarded => self.style(Color::Yellow, Modifier::empty()),
            Kind::SignalIgnored => self.style(Color::Red, Modifier::BOLD),
            Kind::Exit => self.style(Color::Magenta, Modifier::empty()),
            Kind::Reap | Kind::Adopt => self.style(Color::Green, Modifier::empty()),
            Kind::Stop | Kind::Continue => self.style(Color::Yellow, Modifier::BOLD),
            Kind::Phase => self.style(Color::Cyan, Modifier::empty()),
            Kind::Output | Kind::Note => self.style(Color::Blue, Modifier::empty()),
            Kind::Fork | Kind::Exec => Style::new(),
        }
    }

    pub fn title(self, selected: bool) -> Style {
        match selected {
            true => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            false => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    pub fn quiet(self) -> Style {
        self.style(Color::DarkGray, Modifier::empty())
    }

    /// The newest event.
    pub fn newest(self, style: Style) -> Style {
        style.add_modifier(Modifier::BOLD)
    }
}
