//! The moment that is shown. It follows a run that goes on, or goes its own way: slower, event by event, or back.

use ratatui::crossterm::event::KeyCode;
use std::time::Duration;

/// How much slower than it was.
const SLOWER: [u32; 4] = [1, 10, 100, 1000];

/// A position in the time of a recording, microseconds from its start.
#[derive(Debug, Clone)]
pub struct Player {
    at: u64,
    /// What is left of a microsecond.
    rest: f64,
    speed: usize,
    plays: bool,
}

impl Default for Player {
    fn default() -> Self {
        Player { at: 0, rest: 0.0, speed: 0, plays: true }
    }
}

impl Player {
    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn is_playing(&self) -> bool {
        self.plays
    }

    /// `1/10`
    pub fn speed(&self) -> String {
        format!("1/{}", SLOWER[self.speed])
    }

    /// `time` has passed; `edge` is as far as there is something to see.
    pub fn pass(&mut self, time: Duration, edge: u64) {
        if self.plays {
            let step = time.as_secs_f64() * 1e6 / f64::from(SLOWER[self.speed]) + self.rest;
            self.rest = step.fract();
            self.at = (self.at + step as u64).min(edge);
        }
    }

    /// The newest that there is.
    pub fn jump(&mut self, edge: u64) {
        self.at = edge;
    }

    /// Whether the key was one of the player's. `times` are those of the events, in order.
    pub fn key(&mut self, key: KeyCode, times: &[u64], edge: u64) -> bool {
        match key {
            // At the end, playing again is what is meant.
            KeyCode::Char(' ') if !self.plays && self.at >= edge => (self.at, self.plays) = (0, true),
            KeyCode::Char(' ') => self.plays = !self.plays,
            KeyCode::Char('s') => self.speed = (self.speed + 1) % SLOWER.len(),
            KeyCode::Char('r') | KeyCode::Home => (self.at, self.plays) = (0, key != KeyCode::Home),
            KeyCode::Right | KeyCode::Char('n') => {
                self.plays = false;
                let next = times.partition_point(|time| *time <= self.at);
                self.at = times.get(next).copied().unwrap_or(edge);
            }
            KeyCode::Left | KeyCode::Char('p') => {
                self.plays = false;
                let before = times.partition_point(|time| *time < self.at);
                self.at = before.checked_sub(1).map_or(0, |place| times[place]);
            }
            KeyCode::End => {
                (self.at, self.speed, self.plays) = (edge, 0, true);
            }
            _ => return false,
        }
        self.rest = 0.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_and_to_the_edge() {
        let mut player = Player::default();
        player.pass(Duration::from_millis(5), 1_000_000);
        assert_eq!(player.at(), 5_000);
        player.key(KeyCode::Char('s'), &[], 1_000_000);
        player.pass(Duration::from_millis(5), 1_000_000);
        assert_eq!((player.at(), player.speed()), (5_500, "1/10".into()));
        for _ in 0..2 {
            player.key(KeyCode::Char('s'), &[], 1_000_000);
        }
        for _ in 0..4 {
            player.pass(Duration::from_micros(250), 1_000_000);
        }
        assert_eq!(player.at(), 5_501);
        player.pass(Duration::from_secs(10_000), 1_000_000);
        assert_eq!(player.at(), 1_000_000);
    }

    #[test]
    fn steps_and_back() {
        let (times, edge) = ([10, 20, 20, 30], 40);
        let mut player = Player::default();
        let mut after = |key| {
            assert!(player.key(key, &times, edge));
            player.at()
        };
        let keys = [KeyCode::Right, KeyCode::Right, KeyCode::Right, KeyCode::Left, KeyCode::Left, KeyCode::Left];
        assert_eq!(keys.map(&mut after), [10, 20, 30, 20, 10, 0]);
        assert_eq!([KeyCode::End, KeyCode::Left, KeyCode::Right, KeyCode::Home].map(&mut after), [40, 30, 40, 0]);
        assert!(!player.key(KeyCode::Char('x'), &times, edge));
    }
}
