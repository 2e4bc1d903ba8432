//! What the init is to do: one validated value, made from arguments and environment; nothing reads those afterwards.

use std::ffi::{CString, c_int};
use std::time::Duration;

use crate::events::Log;
use crate::policy::Restart;
use crate::signal;
use crate::spawn::Identity;

/// Whom a forwarded signal reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    Child,
    Group,
    Session,
}

/// The rules of stopping and starting again, apart from processes and time.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long the first request to stop is held back, for load balancers to drain.
    pub stop_delay: Duration,
    /// From TERM to KILL for what is left after the main program.
    pub grace: Duration,
    /// What is left after the main program is stopped; some peers exit at once.
    pub stop_rest: bool,
    /// Where the rest is not stopped: its process group still gets TERM at the end, as dumb-init does it.
    pub last_term: bool,
    /// Go on until the last descendant has ended, for a main program that daemonizes.
    pub wait_all: bool,
    /// Exit codes that count as success.
    pub success: CodeSet,
    pub restart: Restart,
    /// The main program is stopped after this time; zero: never.
    pub max_runtime: Duration,
    /// The main program is stopped when it gives no sign of life for this time; zero: it need not.
    pub watchdog: Duration,
    /// The main program is killed when it has not ended this long after a request to stop; zero: never, because the
    /// engine outside does that.
    pub stop_timeout: Duration,
}

/// A set of exit codes.
#[derive(Clone, Copy, Debug)]
pub struct CodeSet([u64; 4]);

impl CodeSet {
    /// 0 alone.
    pub const ZERO: Self = Self([1, 0, 0, 0]);

    pub fn insert(&mut self, code: u8) {
        self.0[usize::from(code / 64)] |= 1 << (code % 64);
    }

    pub fn contains(&self, code: u8) -> bool {
        self.0[usize::from(code / 64)] >> (code % 64) & 1 == 1
    }
}

/// The settings.
pub struct Config {
    pub rules: Rules,
    pub forward: Forward,
    /// The service gets a session of its own instead of a process group.
    pub new_session: bool,
    /// What is passed on for each signal; 0 drops it.
    pub rewrite: [u8; signal::HIGHEST as usize + 1],
    /// The signal that the init gets when its own parent ends; 0 for none.
    pub parent_death: c_int,
    /// Adopt orphans when not PID 1.
    pub subreaper: bool,
    pub identity: Identity,
    /// Variables for the service only.
    pub variables: Vec<(Vec<u8>, Vec<u8>)>,
    pub events: Option<Log>,
    /// The service is handed a socket for its messages (sd_notify(3)).
    pub notify: bool,
    /// A file that is there while the service is ready; an absolute path.
    pub ready_file: Option<CString>,
    /// The exit codes of what goes wrong before the service runs.
    pub codes: Codes,
    /// The signals that the init blocks, and waits for.
    pub mask: u64,
    /// The device that becomes the controlling terminal of the service's session, and its 0, 1 and 2.
    #[cfg(feature = "vm")]
    pub console: Option<CString>,
    /// What asks a machine to stop; `None` in a container.
    #[cfg(feature = "vm")]
    pub requests: Option<crate::vm::power::Requests>,
}

/// Exit codes of the init's own failures.
#[derive(Clone, Copy)]
pub struct Codes {
    /// The program is not there.
    pub not_found: c_int,
    /// The program is there and may not be run.
    pub refused: c_int,
    /// Any other answer of exec.
    pub not_run: c_int,
    /// Everything else: options, limits.
    pub own: c_int,
}

impl Codes {
    /// As shells, env(1), timeout(1) and Docker have them.
    pub const USUAL: Self = Self { not_found: 127, refused: 126, not_run: 126, own: 125 };
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            stop_delay: Duration::ZERO,
            grace: Duration::from_secs(5),
            stop_rest: true,
            last_term: false,
            wait_all: false,
            success: CodeSet::ZERO,
            restart: Restart::No,
            max_runtime: Duration::ZERO,
            watchdog: Duration::ZERO,
            stop_timeout: Duration::ZERO,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            forward: Forward::Child,
            new_session: false,
            rewrite: std::array::from_fn(|signal| signal as u8),
            parent_death: 0,
            subreaper: true,
            identity: Identity::default(),
            variables: Vec::new(),
            events: None,
            notify: false,
            ready_file: None,
            codes: Codes::USUAL,
            mask: signal::ALL,
            #[cfg(feature = "vm")]
            console: None,
            #[cfg(feature = "vm")]
            requests: None,
        }
    }
}

impl Rules {
    /// The exit code to the outside: what counts as success is 0.
    pub fn exit_code(&self, code: c_int) -> c_int {
        if self.is_success(code) { 0 } else { code }
    }

    pub fn is_success(&self, code: c_int) -> bool {
        u8::try_from(code).is_ok_and(|code| self.success.contains(code))
    }
}
