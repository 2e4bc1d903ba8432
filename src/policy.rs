//! When the service is started again, and after how long: pure, so that it can be tested by itself.

use std::time::Duration;

/// The first pause before a restart; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A run of this length was a good one: pauses and count start anew after it.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// When the service is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    No,
    /// After a failure, at most so many times in a row; `None`: without end.
    OnFailure(Option<u32>),
    Always,
}

impl Restart {
    /// `no`, `on-failure`, `on-failure:N` or `always`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "no" => Some(Self::No),
            "on-failure" => Some(Self::OnFailure(None)),
            "always" => Some(Self::Always),
            _ => text.strip_prefix("on-failure:")?.parse().ok().map(|most| Self::OnFailure(Some(most))),
        }
    }
}

/// Counts the restarts in a row.
#[derive(Debug, Default)]
pub struct History {
    in_a_row: u32,
}

impl History {
    /// The pause before the next start, after a run that lasted `lasted`; `None` where it was the last one.
    pub fn next(&mut self, policy: Restart, success: bool, lasted: Duration) -> Option<Duration> {
        if lasted >= GOOD_RUN {
            self.in_a_row = 0;
        }
        let again = match policy {
            Restart::No => false,
            Restart::Always => true,
            Restart::OnFailure(most) => !success && most.is_none_or(|most| self.in_a_row < most),
        };
        if !again {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.in_a_row.min(20)).min(LONGEST_PAUSE);
        self.in_a_row = self.in_a_row.saturating_add(1);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn pauses_grow_to_the_cap_and_start_anew_after_a_good_run() {
        let mut history = History::default();
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            let pause = history.next(Restart::Always, true, SHORT).unwrap();
            assert!(pause == (last * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE), "{last:?} {pause:?}");
            last = pause;
        }
        assert_eq!(last, LONGEST_PAUSE);
        assert_eq!(history.next(Restart::Always, true, GOOD_RUN), Some(FIRST_PAUSE));
    }

    #[test]
    fn on_failure_counts() {
        let mut history = History::default();
        let policy = Restart::OnFailure(Some(2));
        assert!(history.next(policy, false, SHORT).is_some());
        assert!(history.next(policy, false, SHORT).is_some());
        assert_eq!(history.next(policy, false, SHORT), None);
        assert!(history.next(policy, false, GOOD_RUN).is_some());
        assert_eq!(history.next(policy, true, SHORT), None);
        assert_eq!(History::default().next(Restart::No, false, SHORT), None);
        assert_eq!(History::default().next(Restart::OnFailure(Some(0)), false, SHORT), None);
    }

    #[test]
    fn words() {
        assert_eq!(Restart::parse("on-failure:3"), Some(Restart::OnFailure(Some(3))));
        for wrong in ["", "yes", "on-failure:", "on-failure:-1", "on-failure:x", "always:3"] {
            assert_eq!(Restart::parse(wrong), None, "{wrong}");
        }
    }
}
