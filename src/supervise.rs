//! The init's one loop: waits for a signal or a deadline, reaps, forwards, and lets the [`Machine`] take the service
//! through its phases.

use std::ffi::c_int;
use std::time::Duration;

use log::debug;
use nix::errno::Errno;

use crate::config::Config;
use crate::machine::{Machine, World};
use crate::notify::Message;
use crate::processes::Processes;
use crate::spawn::Command;
use crate::sys::{self, Arrived};
use crate::{events::Log, signal, warning};

/// Between two looks at the children, where no way to wait for a signal is left.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Runs nothing and reaps, until TERM or INT: what holds a pod's namespaces.
pub fn pause() -> c_int {
    let mut signals = Signals::open(signal::ALL);
    sys::let_pages_go();
    loop {
        match signals.next(None) {
            Ok(Arrived { signal: libc::SIGTERM | libc::SIGINT, .. }) => return 0,
            _ => while matches!(sys::reap(-1, false), Ok(Some(_))) {},
        }
    }
}

/// The way to wait for a signal. A signalfd, because with it the mask stays to be seen in /proc/PID/status, where an
/// engine looks before it sends the first signal: rt_sigtimedwait shows no signal as blocked while it waits.
#[derive(Clone, Copy)]
enum Way {
    Read(c_int),
    /// The way round where a filter refuses signalfd or the read.
    Wait,
}

/// The signals that the init blocks, and how it waits for them.
struct Signals {
    mask: u64,
    way: Way,
}

impl Signals {
    fn open(mask: u64) -> Self {
        // A signal that is not blocked is not read, but waited for. Once more, because the first time may have failed.
        let masked = sys::set_mask(mask);
        let way = masked.and_then(|()| sys::open_signals(mask)).map_or(Way::Wait, Way::Read);
        Self { mask, way }
    }

    /// The next signal; an error where the time is over first, or a look at the children can't hurt.
    #[inline(always)]
    fn next(&mut self, timeout: Option<Duration>) -> Result<Arrived, Errno> {
        let result = match self.way {
            Way::Read(fd) => sys::read_signal(fd, timeout),
            Way::Wait => sys::wait_signal(self.mask, timeout),
        };
        match result {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if timeout.is_some() => {}
            Err(_) => self.change_way(),
        }
        result
    }

    #[cold]
    fn change_way(&mut self) {
        match self.way {
            Way::Read(fd) => {
                sys::close(fd);
                self.way = Way::Wait;
            }
            // Neither way to wait for a signal: children can still be looked at.
            Way::Wait => {
                std::thread::sleep(LOOK_AGAIN);
                *self = Self::open(self.mask);
            }
        }
    }
}

/// The state of the init.
pub struct Supervisor {
    machine: Machine,
    processes: Processes,
    signals: Signals,
}

impl Supervisor {
    /// `config` and the command to supervise. All signals are blocked already.
    pub fn new(config: Config, command: Command) -> Self {
        let mask = config.mask;
        Self {
            machine: Machine::new(config.rules),
            processes: Processes::new(config, command),
            // Until the service is started: what is open by then may be closed.
            signals: Signals { mask, way: Way::Wait },
        }
    }

    /// Supervises until there is nothing more to do; the init's exit code.
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.run")]
    pub fn run(&mut self) -> c_int {
        let config = &self.processes.config;
        if config.parent_death != 0
            && let Err(error) = sys::set_parent_death_signal(config.parent_death)
        {
            warning!("can't ask for a signal at the parent's end: {}", sys::reason(error));
        }
        if self.processes.own_pid != 1
            && config.subreaper
            && let Err(error) = sys::become_subreaper()
        {
            warning!(
                "can't adopt orphans (PR_SET_CHILD_SUBREAPER: {}): they go to this namespace's PID 1",
                sys::reason(error)
            );
        }
        if let Err(code) = self.processes.prepare().and_then(|()| self.machine.start(&mut self.processes)) {
            return code;
        }
        self.let_go();
        self.signals = Signals::open(self.signals.mask);
        sys::let_pages_go();
        loop {
            self.turn();
            if let Some(code) = self.machine.advance(&mut self.processes) {
                self.processes.finish(code);
                return code;
            }
        }
    }

    #[inline(always)]
    /// The init pins nothing that the service may want to be rid of; with a restart, folder and descriptors are the next
    /// start's too.
    fn let_go(&self) {
        // In a machine nothing was inherited, and it is at / already.
        #[cfg(feature = "vm")]
        if let Some(requests) = &self.processes.config.requests {
            return requests.say_started();
        }
        if self.processes.config.rules.restart == crate::policy::Restart::No {
            let kept = [self.processes.config.events.map(Log::fd), self.processes.socket_fd()];
            let (least, most) = (kept[0].min(kept[1]), kept[0].max(kept[1]));
            let mut first = 3;
            let mut keep = |fd: Option<c_int>| {
                if let Some(fd) = fd.filter(|fd| *fd >= 3) {
                    // Refused where there is none between, which is as well.
                    if first < fd {
                        sys::close_range(first, fd as u32 - 1);
                    }
                    first = fd + 1;
                }
            };
            keep(least);
            keep(most);
            sys::close_range(first, u32::MAX);
            let _ = sys::change_folder(c"/");
        }
    }

    #[inline(always)]
    /// Waits for one thing and does what it asks for.
    fn turn(&mut self) {
        let timeout =
            self.machine.deadline(&mut self.processes).map(|deadline| deadline.saturating_sub(self.processes.now()));
        match self.signals.next(timeout) {
            Ok(arrived) if arrived.signal != libc::SIGCHLD => self.on_signal(arrived),
            _ => {
                // What a process said before its end counts.
                self.listen();
                self.processes.reap();
            }
        }
        if let Some(code) = self.processes.main_code.take() {
            self.machine.main_ended(code);
        }
    }

    fn on_signal(&mut self, arrived: Arrived) {
        let Arrived { signal, by_kernel, sender } = arrived;
        #[cfg(feature = "vm")]
        if let Some(requests) = &self.processes.config.requests
            && requests.is_one(arrived)
        {
            let stop_signal = requests.stop_signal;
            debug!("got {}: the machine is to stop", signal::name(signal));
            self.processes.set_ready(false);
            return self.machine.signal(libc::SIGTERM, stop_signal, &mut self.processes);
        }
        if signal == libc::SIGIO && by_kernel && self.processes.socket_fd().is_some() {
            return self.listen();
        }
        // In a session of its own the service is out of the terminal's reach: Ctrl-Z stops the init's group only.
        if signal == libc::SIGTSTP && by_kernel && self.processes.config.new_session && self.processes.own_pid != 1 {
            return self.processes.stop_with_service();
        }
        // By the init itself: SIGPIPE, when nobody reads its diagnostics.
        let own_pipe = signal == libc::SIGPIPE && sender == self.processes.own_pid;
        if !signal::is_forwarded(signal, by_kernel) || own_pipe {
            return;
        }
        let passed = self.processes.config.rewrite.get(signal as usize).map_or(signal, |passed| c_int::from(*passed));
        debug!(
            "got {}, passing on {}",
            signal::name(signal),
            if passed == 0 { "nothing".into() } else { signal::name(passed) }
        );
        if signal == libc::SIGCONT {
            self.processes.continue_job();
        }
        if signal::asks_to_stop(signal, passed) {
            self.processes.set_ready(false);
        }
        self.machine.signal(signal, passed, &mut self.processes);
    }

    /// Hears what the service has to say by sd_notify.
    fn listen(&mut self) {
        while let Some(message) = self.processes.next_message() {
            let Message { ready, stopping, alive, stuck, watchdog, main } = message;
            if let Some(main) = main {
                self.processes.change_main(main);
            }
            if ready || stopping {
                self.processes.set_ready(ready && !stopping);
            }
            if let Some(time) = watchdog {
                self.machine.set_watchdog(time, &mut self.processes);
            }
            if alive {
                self.machine.alive(&mut self.processes);
            }
            if stuck {
                self.machine.stuck();
            }
        }
    }
}
