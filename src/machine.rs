//! The phases that the service goes through, and what takes it from one to the next. Time and processes are behind
//! [`World`], so that the rules can be tested without either.
//!
//! ```text
//! start ─▶ Running ──main program ended──▶ Stopping (TERM, grace, KILL) ──all gone──▶ exit with its code
//!            ▲    └──────wait-all────────▶ Waiting ──last one ended──▶ exit, or Stopping where a restart is due
//!            └──────── Pausing ◀── another start is due ──┘
//! ```

use std::ffi::c_int;
use std::time::Duration;

use crate::config::Rules;
use crate::policy::{History, Restart};
use crate::signal;

/// Between two looks, where nothing tells of an end: processes that are not the init's children (`docker exec`), and
/// descendants that fork while they are killed.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long after KILL the init waits for processes that the kernel can't end at once.
pub const AFTER_KILL: Duration = Duration::from_secs(2);

/// What the rules act on.
pub trait World {
    /// Time since an arbitrary start.
    fn now(&mut self) -> Duration;
    /// Passes a signal on to the service, to whom of it the options say.
    fn forward(&mut self, signal: c_int);
    /// Passes a signal on to everybody who is left of a service whose main program has ended.
    fn forward_to_rest(&mut self, signal: c_int);
    /// TERM, and CONT for who is stopped, for everybody who is left and did not get TERM before; false where nobody is
    /// left. Before a restart only what the service left is meant, not what else is in the namespace.
    fn stop_rest(&mut self, before_restart: bool) -> bool;
    /// KILL for everybody who is left.
    fn kill_rest(&mut self, before_restart: bool);
    /// Takes who has ended; whether nobody is left.
    fn is_empty(&mut self, before_restart: bool) -> bool;
    /// No child is left, as far as the last look at them says.
    fn has_no_children(&self) -> bool;
    /// One TERM to the service's process group, with no wait for what comes of it.
    fn last_term(&mut self);
    /// Starts the service; an exit code where that can't be.
    fn start(&mut self) -> Result<(), c_int>;
    /// Tells who watches.
    fn tell(&mut self, note: Note);
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The main program has ended; the init waits for what it left.
    Waiting,
    /// TERM went to what is left; KILL follows after the grace. Unasked: the main program ended well, by itself.
    Stopping { grace: Duration, unasked: bool },
    /// The grace is over.
    Killing,
    /// Some outlive SIGKILL.
    Outlived,
    /// The service is started again after a pause.
    Pausing { pause: Duration, code: c_int },
    /// The main program is being stopped.
    Overdue(Overdue),
}

/// Why a main program that did nothing wrong by itself is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It ran for as long as it may.
    Runtime,
    /// It gave no sign of life.
    Watchdog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Waiting,
    Stopping {
        deadline: Duration,
        killed: bool,
    },
    Pausing {
        until: Duration,
    },
    /// Nothing more to do.
    Over,
}

/// The state.
pub struct Machine {
    rules: Rules,
    phase: Phase,
    /// The main program's exit code, once it has ended.
    ended: Option<c_int>,
    /// The exit code of the last main program that ended.
    code: c_int,
    started: Duration,
    history: History,
    /// The pause after which the service is started again, when the rest is gone.
    again: Option<Duration>,
    /// How often someone asked to stop.
    stops: u32,
    /// A request to stop that is held back, and until when.
    delayed: Option<(c_int, Duration)>,
    /// When the main program has run for long enough.
    limit: Option<Duration>,
    /// When it has been silent for too long.
    watchdog: Option<Duration>,
    /// It was overdue, and is killed then.
    kill_at: Option<Duration>,
}

impl Machine {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            phase: Phase::Running,
            ended: None,
            code: 0,
            started: Duration::ZERO,
            history: History::default(),
            again: None,
            stops: 0,
            delayed: None,
            limit: None,
            watchdog: None,
            kill_at: None,
        }
    }

    /// Starts the service; an exit code where that can't be.
    pub fn start(&mut self, world: &mut impl World) -> Result<(), c_int> {
        self.phase = Phase::Running;
        self.ended = None;
        world.start()?;
        let Rules { max_runtime, watchdog, restart, .. } = self.rules;
        if restart != Restart::No || !max_runtime.is_zero() || !watchdog.is_zero() {
            self.started = world.now();
        }
        self.limit = (!max_runtime.is_zero()).then(|| self.started + max_runtime);
        self.watchdog = (!watchdog.is_zero()).then(|| self.started + watchdog);
        self.kill_at = None;
        Ok(())
    }

    /// The main program has ended.
    pub fn main_ended(&mut self, code: c_int) {
        self.ended = Some(code);
        self.code = code;
    }

    /// The main program has shown that it lives.
    pub fn alive(&mut self, world: &mut impl World) {
        if self.watchdog.is_some() {
            self.watchdog = Some(world.now() + self.rules.watchdog);
        }
    }

    /// The main program asks for another watchdog time, from now on.
    pub fn set_watchdog(&mut self, time: Duration, world: &mut impl World) {
        if self.watchdog.is_some() && !time.is_zero() {
            self.rules.watchdog = time;
            self.alive(world);
        }
    }

    /// The main program says itself that it is stuck.
    pub fn stuck(&mut self) {
        self.watchdog = self.watchdog.map(|_| Duration::ZERO);
    }

    /// A signal came that is passed on as `passed` (0: not at all).
    pub fn signal(&mut self, signal: c_int, passed: c_int, world: &mut impl World) {
        let stop = signal::asks_to_stop(signal, passed);
        self.stops += u32::from(stop);
        match self.phase {
            Phase::Running if stop && self.stops == 1 && !self.rules.stop_delay.is_zero() => {
                self.delayed = Some((passed, world.now() + self.rules.stop_delay));
            }
            Phase::Running => {
                if stop {
                    self.delayed = None;
                    self.limit_stop(world);
                }
                if passed != 0 {
                    world.forward(passed);
                }
            }
            Phase::Waiting if stop => self.stop_rest(world),
            Phase::Waiting if passed != 0 => world.forward_to_rest(passed),
            Phase::Stopping { deadline, killed } if stop => {
                // No restart follows, so that now all else that is there is meant too.
                if self.again.take().is_some() {
                    world.stop_rest(false);
                }
                // Who asks again does not want to wait.
                if self.stops > 1 && !killed {
                    self.phase = Phase::Stopping { deadline: deadline.min(world.now()), killed };
                }
            }
            Phase::Pausing { .. } if stop => self.phase = Phase::Over,
            _ => {}
        }
    }

    /// From a request to stop on the main program has so much time.
    #[inline(never)]
    fn limit_stop(&mut self, world: &mut impl World) {
        if !self.rules.stop_timeout.is_zero() && self.kill_at.is_none() {
            self.kill_at = Some(world.now() + self.rules.stop_timeout);
        }
    }

    /// When the init has to act without being told.
    #[inline(always)]
    pub fn deadline(&self, world: &mut impl World) -> Option<Duration> {
        // By itself before the others, so that an idle init needs no table of jumps in its memory.
        if self.phase == Phase::Running && self.is_untimed() { None } else { self.timed(world) }
    }

    #[inline(always)]
    fn is_untimed(&self) -> bool {
        self.delayed.is_none() && self.limit.is_none() && self.watchdog.is_none() && self.kill_at.is_none()
    }

    #[inline(never)]
    fn timed(&self, world: &mut impl World) -> Option<Duration> {
        let delayed = self.delayed.map(|(_, until)| until);
        match self.phase {
            Phase::Running if self.kill_at.is_some() => [delayed, self.kill_at].into_iter().flatten().min(),
            Phase::Running => [delayed, self.limit, self.watchdog].into_iter().flatten().min(),
            Phase::Waiting | Phase::Over => None,
            Phase::Stopping { deadline, killed } if killed || world.has_no_children() => {
                Some(deadline.min(world.now() + LOOK_AGAIN))
            }
            Phase::Stopping { deadline, .. } => Some(deadline),
            Phase::Pausing { until } => Some(until),
        }
    }

    /// Goes on to the next phase where that is due; the init's exit code where there is none.
    pub fn advance(&mut self, world: &mut impl World) -> Option<c_int> {
        match self.phase {
            Phase::Running if self.ended.is_some() => self.after_main(world),
            Phase::Running => {
                self.keep_time(world);
                None
            }
            Phase::Waiting if world.has_no_children() => {
                self.decide(world);
                if self.again.is_some() { self.stop_and_go_on(world) } else { Some(self.exit_code()) }
            }
            Phase::Waiting => None,
            Phase::Stopping { deadline, killed } => self.keep_stopping(deadline, killed, world),
            Phase::Pausing { until } if world.now() >= until => self.start(world).err(),
            Phase::Pausing { .. } => None,
            Phase::Over => Some(self.exit_code()),
        }
    }

    fn exit_code(&self) -> c_int {
        self.rules.exit_code(self.code)
    }

    fn keep_time(&mut self, world: &mut impl World) {
        if self.is_untimed() {
            return;
        }
        let now = world.now();
        if let Some((signal, until)) = self.delayed
            && now >= until
        {
            self.delayed = None;
            self.limit_stop(world);
            world.forward(signal);
        }
        if let Some(kill_at) = self.kill_at {
            if now >= kill_at {
                (self.kill_at, self.limit, self.watchdog) = (None, None, None);
                world.forward(libc::SIGKILL);
            }
            return;
        }
        let is_due = |time: Option<Duration>| time.is_some_and(|time| now >= time);
        let (why, signal) = if is_due(self.limit) {
            (Overdue::Runtime, libc::SIGTERM)
        } else if is_due(self.watchdog) {
            // As systemd does: a core shows where it hung.
            (Overdue::Watchdog, libc::SIGABRT)
        } else {
            return;
        };
        self.kill_at = Some(now + self.rules.grace);
        world.tell(Note::Overdue(why));
        world.forward(signal);
    }

    fn after_main(&mut self, world: &mut impl World) -> Option<c_int> {
        self.delayed = None;
        let Rules { wait_all, stop_rest, last_term, .. } = self.rules;
        // A main program that goes to the background has not ended the run: what it left is the service.
        if self.stops == 0 && wait_all && !world.has_no_children() {
            world.tell(Note::Waiting);
            self.phase = Phase::Waiting;
            return None;
        }
        self.decide(world);
        if self.again.is_none() && !stop_rest {
            if last_term {
                world.last_term();
            }
            return Some(self.exit_code());
        }
        self.stop_and_go_on(world)
    }

    /// Whether the run that has ended is followed by another one, and after which pause.
    fn decide(&mut self, world: &mut impl World) {
        let restart = self.rules.restart;
        self.again = if self.stops == 0 && restart != Restart::No {
            let success = self.rules.is_success(self.code);
            self.history.next(restart, success, world.now().saturating_sub(self.started))
        } else {
            None
        };
    }

    fn stop_and_go_on(&mut self, world: &mut impl World) -> Option<c_int> {
        self.stop_rest(world);
        match self.phase {
            Phase::Stopping { deadline, killed } => self.keep_stopping(deadline, killed, world),
            _ => None,
        }
    }

    /// TERM, once, to every process that is left.
    fn stop_rest(&mut self, world: &mut impl World) {
        let mut deadline = Duration::ZERO;
        if world.stop_rest(self.again.is_some()) {
            deadline = world.now() + self.rules.grace;
            let unasked = self.stops == 0 && self.again.is_none() && self.rules.is_success(self.code);
            world.tell(Note::Stopping { grace: self.rules.grace, unasked });
        }
        self.phase = Phase::Stopping { deadline, killed: false };
    }

    fn keep_stopping(&mut self, deadline: Duration, killed: bool, world: &mut impl World) -> Option<c_int> {
        let before_restart = self.again.is_some();
        if world.is_empty(before_restart) {
            return self.all_gone(world);
        }
        let now = world.now();
        if killed {
            world.kill_rest(before_restart);
        }
        if now < deadline {
            return None;
        }
        if killed {
            world.tell(Note::Outlived);
            return self.all_gone(world);
        }
        world.tell(Note::Killing);
        world.kill_rest(before_restart);
        self.phase = Phase::Stopping { deadline: now + AFTER_KILL, killed: true };
        if world.is_empty(before_restart) { self.all_gone(world) } else { None }
    }

    fn all_gone(&mut self, world: &mut impl World) -> Option<c_int> {
        let Some(pause) = self.again.take() else { return Some(self.exit_code()) };
        world.tell(Note::Pausing { pause, code: self.code });
        self.phase = Phase::Pausing { until: world.now() + pause };
        None
    }
}
