//! The init's one loop: waits for a signal or a deadline, reaps, forwards, and takes the service through its phases.
//!
//! ```text
//! start ─▶ Running ──main program ended──▶ Stopping (TERM, grace, KILL) ──all gone──▶ exit with its code
//!            ▲    └──────wait-all────────▶ Waiting ──last one ended──▶ exit
//!            └──────── Pausing ◀── another start is due ──┘
//! ```

use std::ffi::c_int;
use std::time::Duration;

use log::{debug, info};
use nix::errno::Errno;

use crate::config::{Config, Forward};
use crate::environment::{self, Environment};
use crate::events::Log;
use crate::events::Value::{self, Flag, Number, Text};
use crate::policy::History;
use crate::spawn::{self, Birth, Command, Failure, Identity};
use crate::sys::{self, Arrived, Changed};
use crate::tree::{self, Process};
use crate::{signal, terminal, warning};

/// Runs nothing and reaps, until TERM or INT: what holds a pod's namespaces.
pub fn pause() -> c_int {
    loop {
        match sys::wait_signal(signal::ALL, None) {
            Ok(Arrived { signal: libc::SIGTERM | libc::SIGINT, .. }) => return 0,
            _ => while matches!(sys::reap(-1, false), Ok(Some(_))) {},
        }
    }
}

/// Between two looks, where nothing tells of an end: processes that are not the init's children (`docker exec`), and
/// descendants that fork while they are killed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long after KILL the init waits for processes that the kernel can't end at once.
const AFTER_KILL: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Waiting,
    Stopping { deadline: Duration, killed: bool },
    Pausing { until: Duration },
}

/// The state of the init.
pub struct Supervisor {
    config: Config,
    command: Command,
    birth: Birth,
    _environment: Option<Environment>,
    own_pid: c_int,
    phase: Phase,
    /// The service's first process, as long as it lives.
    main: Option<c_int>,
    /// The process group that the service was given, which may outlive it.
    group: c_int,
    started: Duration,
    history: History,
    /// The main program's exit code, after it has ended.
    code: c_int,
    /// The pause after which the service is started again, when the rest is gone.
    again: Option<Duration>,
    /// How often someone asked to stop.
    stops: u32,
    /// A request to stop that is held back, and until when.
    delayed: Option<(c_int, Duration)>,
    /// When the main program has run for long enough, and then when it is killed.
    limit: Option<Duration>,
    overdue: bool,
    /// Processes that got TERM.
    told: Vec<Process>,
    no_children: bool,
    /// The terminal was handed to the service.
    has_terminal: bool,
    /// Name and age of the child that is being reaped, and the children there were: for the event log.
    about: Option<(String, i64)>,
    adopted: Vec<Process>,
    /// The way round where rt_sigtimedwait is refused.
    signals: Option<c_int>,
}

impl Supervisor {
    /// `config` and the command to supervise. All signals are blocked already.
    pub fn new(mut config: Config, command: Command, mask: u64) -> Self {
        let own_pid = sys::own_pid();
        let environment = environment::with(&config.variables);
        let identity: Identity = std::mem::take(&mut config.identity);
        let birth = Birth {
            environment: environment.as_ref().map_or_else(environment::own, Environment::as_ptr),
            new_session: config.new_session,
            terminal: None,
            mask,
            // As PID 1 the kernel sees to it.
            death_signal: if own_pid == 1 { 0 } else { libc::SIGKILL },
            identity,
        };
        Self {
            config,
            command,
            birth,
            _environment: environment,
            own_pid,
            phase: Phase::Running,
            main: None,
            group: 0,
            started: Duration::ZERO,
            history: History::default(),
            code: 0,
            again: None,
            stops: 0,
            delayed: None,
            limit: None,
            overdue: false,
            told: Vec::new(),
            no_children: false,
            has_terminal: false,
            about: None,
            adopted: Vec::new(),
            signals: None,
        }
    }

    /// Supervises until there is nothing more to do; the init's exit code.
    pub fn run(mut self) -> c_int {
        if self.config.parent_death != 0 && sys::set_parent_death_signal(self.config.parent_death).is_err() {
            warning!("can't ask for a signal at the parent's end: {}", Errno::last().desc());
        }
        if self.own_pid != 1
            && self.config.subreaper
            && let Err(error) = sys::become_subreaper()
        {
            warning!(
                "can't adopt orphans (PR_SET_CHILD_SUBREAPER: {}): they go to this namespace's PID 1",
                error.desc()
            );
        }
        if let Err(failure) = self.start() {
            return self.failed(failure);
        }
        if self.again_is_possible() {
            // The folder and the descriptors are the next start's too.
        } else {
            // The init pins nothing that the service may want to be rid of.
            match self.config.events.map(Log::fd) {
                Some(fd @ 3..) => {
                    // Ends before it begins where there is none between.
                    sys::close_range(3, fd as u32 - 1);
                    sys::close_range(fd + 1, u32::MAX);
                }
                _ => sys::close_range(3, u32::MAX),
            }
            let _ = sys::change_folder(c"/");
        }
        sys::let_pages_go();
        loop {
            match self.wait() {
                Ok(arrived) if arrived.signal == libc::SIGCHLD => self.reap(),
                Ok(arrived) => self.on_signal(arrived),
                Err(_) => self.reap(),
            }
            if let Some(code) = self.advance() {
                if self.has_terminal && self.own_pid != 1 {
                    terminal::take_back(self.group);
                }
                info!("exit with {code}");
                self.event("exited", &[("code", Number(code.into()))]);
                return code;
            }
        }
    }

    fn again_is_possible(&self) -> bool {
        self.config.restart != crate::policy::Restart::No
    }

    fn start(&mut self) -> Result<(), Failure> {
        let terminal = terminal::in_foreground();
        self.has_terminal = terminal.is_some();
        self.birth.terminal = terminal.as_ref().map(terminal::Terminal::fd);
        let pid = spawn::spawn(self.command, &self.birth)?;
        self.phase = Phase::Running;
        self.main = Some(pid);
        self.group = pid;
        self.no_children = false;
        self.told.clear();
        self.overdue = false;
        if self.again_is_possible() || !self.config.max_runtime.is_zero() {
            self.started = sys::now();
        }
        self.limit = (!self.config.max_runtime.is_zero()).then(|| self.started + self.config.max_runtime);
        info!("started {} as {pid}", self.command.name().display());
        self.event("started", &[("pid", Number(pid.into())), ("name", Text(&self.command.name().to_string_lossy()))]);
        Ok(())
    }

    /// Says why there is no service; the exit code for it.
    fn failed(&self, failure: Failure) -> c_int {
        let name = self.command.name().display();
        let codes = self.config.codes;
        match failure {
            Failure::Fork(error) => {
                warning!("can't make a process for {name}: {} (limits of processes or memory?)", error.desc());
                codes.own
            }
            Failure::Prepare(step, error) => {
                warning!("can't {step} for {name}: {}", error.desc());
                codes.own
            }
            Failure::Exec(Errno::ENOENT) => {
                warning!("can't run {name}: not found (neither it nor, of a script, the program after #!)");
                codes.not_found
            }
            Failure::Exec(error) => {
                warning!("can't run {name}: {}", error.desc());
                if error == Errno::EACCES { codes.refused } else { codes.not_run }
            }
        }
    }

    /// The next signal; an error where a deadline came first, or a look at the children can't hurt.
    fn wait(&mut self) -> Result<Arrived, Errno> {
        let timeout = self.deadline().map(|deadline| deadline.saturating_sub(sys::now()));
        if let Some(fd) = self.signals {
            return sys::read_signal(fd, timeout);
        }
        let result = sys::wait_signal(signal::ALL, timeout);
        if matches!(result, Err(Errno::EPERM | Errno::ENOSYS | Errno::EACCES)) {
            match sys::open_signals(signal::ALL) {
                Ok(fd) => self.signals = Some(fd),
                // Neither way to wait for a signal: children can still be looked at.
                Err(_) => std::thread::sleep(LOOK_AGAIN),
            }
        }
        result
    }

    /// When the init has to act without being told.
    fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Running => [self.delayed.map(|(_, until)| until), self.limit].into_iter().flatten().min(),
            Phase::Waiting => None,
            Phase::Stopping { deadline, killed } if killed || self.no_children => {
                Some(deadline.min(sys::now() + LOOK_AGAIN))
            }
            Phase::Stopping { deadline, .. } => Some(deadline),
            Phase::Pausing { until } => Some(until),
        }
    }

    /// Takes every child that has ended.
    fn reap(&mut self) {
        // Where a shell's job control is about, a service that stopped stops the init too, so that the shell sees it.
        let job = self.has_terminal && self.own_pid != 1 && !self.config.new_session;
        loop {
            // What is known of it is gone with it.
            let next = self.config.events.and_then(|_| sys::next_ended());
            self.about = next.and_then(tree::about);
            match sys::reap(next.unwrap_or(-1), job) {
                Ok(Some(changed)) if libc::WIFSTOPPED(changed.status) => {
                    if Some(changed.pid) == self.main {
                        debug!("the main program stopped: so does the init");
                        sys::stop_self();
                    }
                }
                Ok(Some(changed)) => self.ended(changed),
                Ok(None) => break self.no_children = false,
                Err(_) => break self.no_children = true,
            }
        }
        if self.config.events.is_some() {
            self.tell_of_orphans();
        }
    }

    /// Children that the init did not start came to it when their parents ended.
    fn tell_of_orphans(&mut self) {
        let children = tree::children();
        for child in children.iter().filter(|child| Some(child.pid) != self.main && !self.adopted.contains(child)) {
            let name = tree::about(child.pid).map_or_else(String::new, |(name, _)| name);
            self.event("adopted", &[("pid", Number(child.pid.into())), ("name", Text(&name))]);
        }
        self.adopted = children;
    }

    fn event(&self, event: &str, fields: &[(&str, Value)]) {
        if let Some(log) = self.config.events {
            log.write(event, fields);
        }
    }

    fn ended(&mut self, changed: Changed) {
        let code = if libc::WIFSIGNALED(changed.status) {
            128 + libc::WTERMSIG(changed.status)
        } else {
            libc::WEXITSTATUS(changed.status)
        };
        let (name, age) = self.about.take().unwrap_or_default();
        let is_main = Some(changed.pid) == self.main;
        let fields = [
            ("pid", Number(changed.pid.into())),
            ("name", Text(&name)),
            ("code", Number(code.into())),
            ("age_ms", Number(age)),
            ("main", Flag(is_main)),
        ];
        self.event("reaped", &fields);
        if is_main {
            info!("the main program {} ended with {code}", changed.pid);
            self.main = None;
            self.code = code;
        } else {
            debug!("reaped {}, which ended with {code}", changed.pid);
        }
    }

    fn on_signal(&mut self, arrived: Arrived) {
        let Arrived { signal, by_kernel, sender } = arrived;
        // In a session of its own the service is out of the terminal's reach: Ctrl-Z stops the init's group only.
        if signal == libc::SIGTSTP && by_kernel && self.config.new_session && self.own_pid != 1 {
            let _ = sys::kill(-self.group, libc::SIGSTOP);
            sys::stop_self();
            return;
        }
        // By the init itself: SIGPIPE, when nobody reads its diagnostics.
        if !signal::is_forwarded(signal, by_kernel) || (signal == libc::SIGPIPE && sender == self.own_pid) {
            return;
        }
        let passed = self.config.rewrite.get(signal as usize).map_or(signal, |passed| c_int::from(*passed));
        debug!(
            "got {}, passing on {}",
            signal::name(signal),
            if passed == 0 { "nothing".into() } else { signal::name(passed) }
        );
        let stop = signal::asks_to_stop(signal) && passed != 0;
        self.stops += u32::from(stop);
        match self.phase {
            Phase::Running if stop && self.stops == 1 && !self.config.stop_delay.is_zero() => {
                self.delayed = Some((passed, sys::now() + self.config.stop_delay));
            }
            Phase::Running => {
                self.delayed = None;
                self.continue_job(signal);
                self.forward(passed);
            }
            Phase::Waiting if stop => self.stop_rest(),
            Phase::Waiting => tree::descendants().into_iter().for_each(|process| tree::send(process, passed)),
            // No restart follows; and who asks again does not want to wait.
            Phase::Stopping { killed: false, .. } if stop => {
                self.again = None;
                if self.stops > 1 {
                    self.phase = Phase::Stopping { deadline: sys::now(), killed: false };
                }
            }
            Phase::Stopping { .. } => {}
            Phase::Pausing { .. } if stop => self.phase = Phase::Pausing { until: Duration::MAX },
            Phase::Pausing { .. } => {}
        }
    }

    /// A shell that continues its job in the foreground gave the terminal to the init's group.
    fn continue_job(&mut self, signal: c_int) {
        if signal != libc::SIGCONT || self.own_pid == 1 {
            return;
        }
        if let Some(terminal) = terminal::in_foreground() {
            terminal.give_to(self.group);
            self.has_terminal = true;
        }
        let _ = sys::kill(-self.group, libc::SIGCONT);
    }

    fn forward(&mut self, signal: c_int) {
        let Some(main) = self.main else { return };
        if signal == 0 {
            return;
        }
        self.event("forwarded", &[("signal", Number(signal.into())), ("pid", Number(main.into()))]);
        match self.config.forward {
            Forward::Child => {
                let _ = sys::kill(main, signal);
            }
            Forward::Group => {
                self.remember(signal, |process| process.in_group(main));
                // Where the service could not be given a group of its own, there is none of this number.
                if sys::kill(-main, signal).is_err() {
                    let _ = sys::kill(main, signal);
                }
            }
            Forward::Session => {
                let session = sys::session_of(main).unwrap_or(main);
                let members: Vec<_> =
                    tree::descendants().into_iter().filter(|process| process.in_session(session)).collect();
                self.remember(signal, |process| process.in_session(session));
                members.iter().filter(|process| process.pid != main).for_each(|process| tree::send(*process, signal));
                let _ = sys::kill(main, signal);
            }
        }
    }

    /// Nobody gets TERM twice: notes who is about to get it.
    fn remember(&mut self, signal: c_int, is_meant: impl Fn(&Process) -> bool) {
        if signal == libc::SIGTERM {
            self.told.extend(tree::descendants().into_iter().filter(is_meant));
        }
    }

    /// Goes on to the next phase where that is due; the exit code where there is none.
    fn advance(&mut self) -> Option<c_int> {
        match self.phase {
            Phase::Running if self.main.is_none() => self.after_main(),
            Phase::Running => {
                self.keep_time();
                None
            }
            Phase::Waiting => self.no_children.then(|| self.config.exit_code(self.code)),
            Phase::Stopping { deadline, killed } => self.keep_stopping(deadline, killed),
            Phase::Pausing { until: Duration::MAX } => Some(self.config.exit_code(self.code)),
            Phase::Pausing { until } if sys::now() >= until => self.start().err().map(|failure| self.failed(failure)),
            Phase::Pausing { .. } => None,
        }
    }

    fn keep_time(&mut self) {
        let now = self.deadline().map_or(Duration::ZERO, |_| sys::now());
        if let Some((signal, until)) = self.delayed
            && now >= until
        {
            self.delayed = None;
            self.forward(signal);
        }
        if let Some(limit) = self.limit
            && now >= limit
        {
            if self.overdue {
                self.limit = None;
                self.forward(libc::SIGKILL);
            } else {
                warning!("the main program has run for --max-runtime: stopping it");
                self.overdue = true;
                self.limit = Some(now + self.config.grace);
                self.forward(libc::SIGTERM);
            }
        }
    }

    /// The main program has ended.
    fn after_main(&mut self) -> Option<c_int> {
        self.delayed = None;
        let success = self.config.is_success(self.code);
        self.again = if self.stops == 0 && self.again_is_possible() {
            self.history.next(self.config.restart, success, sys::now().saturating_sub(self.started))
        } else {
            None
        };
        if self.again.is_none() && self.stops == 0 && self.config.wait_all && !self.no_children {
            info!("waiting for what the main program left behind");
            self.phase = Phase::Waiting;
            return None;
        }
        if self.again.is_none() && !self.config.stop_rest {
            if self.config.last_term {
                let _ = sys::kill(-self.group, libc::SIGTERM);
            }
            return Some(self.config.exit_code(self.code));
        }
        self.stop_rest();
        match self.phase {
            Phase::Stopping { deadline, killed } => self.keep_stopping(deadline, killed),
            _ => None,
        }
    }

    /// TERM, once, to every process that is left.
    fn stop_rest(&mut self) {
        // Not PID 1 and no child: no descendant, because orphans become children.
        // Who was told already is a descendant; where there is none, the rest came in by `docker exec`.
        let somebody = if self.owns_namespace() && (self.told.is_empty() || self.no_children) {
            sys::kill(-1, libc::SIGTERM).is_ok()
        } else if self.no_children {
            false
        } else {
            tree::send_to_all(libc::SIGTERM, &mut self.told);
            if self.told.is_empty() {
                // No /proc: the service's group is what can be reached.
                let _ = sys::kill(-self.group, libc::SIGTERM);
            }
            true
        };
        let mut deadline = Duration::ZERO;
        if somebody {
            deadline = sys::now() + self.config.grace;
            self.event("stopping", &[("grace_ms", Number(self.config.grace.as_millis() as i64))]);
            // Who is stopped can't act on TERM.
            self.signal_rest(libc::SIGCONT);
            if self.stops == 0 && self.again.is_none() && self.config.is_success(self.code) {
                warning!(
                    "the main program ended and left processes behind, which are stopped now; a program that goes to \
                     the background needs its foreground option, or --wait-all"
                );
            }
        }
        self.phase = Phase::Stopping { deadline, killed: false };
    }

    /// As PID 1 all the namespace is the init's; before a restart only what the service left.
    fn owns_namespace(&self) -> bool {
        self.own_pid == 1 && self.again.is_none()
    }

    fn signal_rest(&self, signal: c_int) {
        if self.owns_namespace() {
            let _ = sys::kill(-1, signal);
            return;
        }
        let rest = tree::descendants();
        if rest.is_empty() {
            let _ = sys::kill(-self.group, signal);
        }
        rest.into_iter().for_each(|process| tree::send(process, signal));
    }

    fn keep_stopping(&mut self, deadline: Duration, killed: bool) -> Option<c_int> {
        // Processes that `docker exec` brought in are nobody's children here.
        let gone = self.no_children && !(self.owns_namespace() && sys::kill(-1, 0).is_ok());
        if gone {
            return self.all_gone();
        }
        let now = sys::now();
        if killed {
            self.signal_rest(libc::SIGKILL);
        }
        if now < deadline {
            return None;
        }
        if killed {
            warning!("some processes outlive SIGKILL: leaving them to the kernel");
            return self.all_gone();
        }
        info!("the grace is over: SIGKILL for the rest");
        self.event("killing", &[]);
        self.signal_rest(libc::SIGKILL);
        self.phase = Phase::Stopping { deadline: now + AFTER_KILL, killed: true };
        self.reap();
        None
    }

    fn all_gone(&mut self) -> Option<c_int> {
        let Some(pause) = self.again.take() else { return Some(self.config.exit_code(self.code)) };
        warning!("the main program ended with {}: starting it again in {pause:?}", self.code);
        self.event("pausing", &[("pause_ms", Number(pause.as_millis() as i64))]);
        self.phase = Phase::Pausing { until: sys::now() + pause };
        None
    }
}
