//! The service's processes as they are: started, forwarded to, reaped, stopped. What the [`crate::machine`] acts on.

use std::ffi::c_int;
use std::time::Duration;

use log::{debug, info};
use nix::errno::Errno;

use crate::config::{Config, Forward};
use crate::environment::{self, Environment};
use crate::events::Value::{self, Flag, Number, Text};
use crate::machine::{Note, Overdue, World};
use crate::notify::{Message, Socket};
use crate::spawn::{self, Birth, Command, Failure};
use crate::sys::{self, Changed};
use crate::tree::{self, Process};
use crate::{terminal, warning};

/// The processes, and who they are to the init.
pub struct Processes {
    pub config: Config,
    pub own_pid: c_int,
    /// The main program's exit code, when it has just ended.
    pub main_code: Option<c_int>,
    command: Command,
    birth: Birth,
    _environment: Option<Environment>,
    socket: Option<Socket>,
    is_ready: bool,
    /// The service's main process, as long as it lives.
    main: Option<c_int>,
    /// The process that was started ended in favour of another main process, with this code.
    handed_over: Option<c_int>,
    /// The process group that the service was given, which may outlive it.
    group: c_int,
    /// Processes that got TERM.
    told: Vec<Process>,
    no_children: bool,
    /// The terminal was handed to the service.
    has_terminal: bool,
    /// Name and age of the child that is being reaped, and the children there were: for the event log.
    about: Option<(String, i64)>,
    adopted: Vec<Process>,
}

impl Processes {
    pub fn new(mut config: Config, command: Command) -> Self {
        let own_pid = sys::own_pid();
        let birth = Birth {
            environment: environment::own(),
            new_session: config.new_session,
            terminal: None,
            // As PID 1 the kernel sees to it.
            death_signal: if own_pid == 1 { 0 } else { libc::SIGKILL },
            #[cfg(feature = "vm")]
            console: config.console.take(),
            identity: std::mem::take(&mut config.identity),
        };
        Self {
            config,
            own_pid,
            main_code: None,
            command,
            birth,
            _environment: None,
            socket: None,
            is_ready: false,
            main: None,
            handed_over: None,
            group: 0,
            told: Vec::new(),
            no_children: false,
            has_terminal: false,
            about: None,
            adopted: Vec::new(),
        }
    }

    /// Makes what the service is told by, and its environment; the init's exit code where that can't be.
    pub fn prepare(&mut self) -> Result<(), c_int> {
        if self.config.notify || !self.config.variables.is_empty() || environment::listens() {
            return self.make_environment();
        }
        Ok(())
    }

    #[cold]
    fn make_environment(&mut self) -> Result<(), c_int> {
        let mut variables = std::mem::take(&mut self.config.variables);
        let mut without: &[&str] = &[];
        if self.config.notify {
            let socket = Socket::open().map_err(|error| {
                warning!("can't make a socket for the service's messages: {}", sys::reason(error));
                self.config.codes.own
            })?;
            variables.push((b"NOTIFY_SOCKET".to_vec(), socket.name().to_vec()));
            let watchdog = self.config.rules.watchdog.as_micros();
            // The number of who is to give signs of life is not known before it lives; without it anyone may. Where the
            // init has a supervisor that waits for them, they are the service's to give.
            let is_wanted = watchdog != 0 || socket.has_outer();
            without = if is_wanted { &["WATCHDOG_PID"] } else { &["WATCHDOG_PID", "WATCHDOG_USEC"] };
            if watchdog != 0 {
                variables.push((b"WATCHDOG_USEC".to_vec(), watchdog.to_string().into_bytes()));
            }
            self.socket = Some(socket);
        }
        self._environment = environment::with(&variables, without);
        if let Some(environment) = &self._environment {
            self.birth.environment = environment.as_ptr();
        }
        Ok(())
    }

    pub fn socket_fd(&self) -> Option<c_int> {
        self.socket.as_ref().map(Socket::fd)
    }

    pub fn next_message(&self) -> Option<Message> {
        self.socket.as_ref()?.next()
    }

    /// The service is ready, or not any more.
    pub fn set_ready(&mut self, ready: bool) {
        if self.is_ready == ready {
            return;
        }
        self.is_ready = ready;
        self.event(if ready { "ready" } else { "unready" }, &[]);
        if let Some(file) = &self.config.ready_file {
            let result = if ready { sys::make_file(file) } else { sys::remove_file(file) };
            if let Err(error) = result {
                warning!("--ready-file {}: {}", file.to_string_lossy(), sys::reason(error));
            }
        }
    }

    /// The service says that another of its processes is the main one.
    pub fn change_main(&mut self, pid: c_int) {
        if self.main.is_none() || self.main == Some(pid) {
            return;
        }
        if !tree::is_descendant(pid) {
            warning!("MAINPID={pid} is not a process of the service");
            return;
        }
        info!("the main program is {pid} now");
        self.event("main", &[("pid", Number(pid.into()))]);
        self.main = Some(pid);
        self.group = sys::group_of(pid).unwrap_or(self.group);
        self.handed_over = Some(0);
    }

    /// The init ends with this code.
    pub fn finish(&mut self, code: c_int) {
        self.set_ready(false);
        if self.has_terminal && self.own_pid != 1 {
            terminal::take_back(self.group);
        }
        info!("exit with {code}");
        self.event("exited", &[("code", Number(code.into()))]);
    }

    /// Stops the service's group, and the init until it is continued.
    pub fn stop_with_service(&self) {
        let _ = sys::kill(-self.group, libc::SIGSTOP);
        sys::stop_self();
    }

    /// A shell that continues its job in the foreground gave the terminal to the init's group.
    pub fn continue_job(&mut self) {
        if self.own_pid == 1 || self.main.is_none() {
            return;
        }
        if let Some(terminal) = terminal::in_foreground() {
            terminal.give_to(self.group);
            self.has_terminal = true;
        }
        let _ = sys::kill(-self.group, libc::SIGCONT);
    }

    /// Takes every child that has ended.
    #[unsafe(link_section = ".text.hot.reap")]
    pub fn reap(&mut self) {
        // Where a shell's job control is about, a service that stopped stops the init too, so that the shell sees it.
        let job = self.has_terminal && self.own_pid != 1 && !self.config.new_session;
        loop {
            let next = if self.config.events.is_some() { self.look_at_next() } else { -1 };
            match sys::reap(next, job) {
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
        // A main program that is somebody else's child is reaped there.
        if let (Some(code), Some(main)) = (self.handed_over, self.main)
            && sys::kill(main, 0) == Err(Errno::ESRCH)
        {
            self.end_main(main, code);
        }
        if self.config.events.is_some() {
            self.tell_of_orphans();
        }
    }

    /// Who is reaped next (-1: nobody in particular): what is known of it is gone with it.
    #[cold]
    fn look_at_next(&mut self) -> c_int {
        let next = sys::next_ended();
        self.about = next.and_then(tree::about);
        next.unwrap_or(-1)
    }

    fn ended(&mut self, changed: Changed) {
        let code = if libc::WIFSIGNALED(changed.status) {
            128 + libc::WTERMSIG(changed.status)
        } else {
            libc::WEXITSTATUS(changed.status)
        };
        let is_main = Some(changed.pid) == self.main;
        if self.config.events.is_some() {
            self.tell_of_end(changed.pid, code, is_main);
        }
        if is_main {
            self.end_main(changed.pid, code);
        } else {
            debug!("reaped {}, which ended with {code}", changed.pid);
            if let Some(handed_over) = &mut self.handed_over {
                *handed_over = code;
            }
        }
    }

    #[cold]
    fn tell_of_start(&self, pid: c_int) {
        let name = self.command.name().to_string_lossy();
        self.event("started", &[("pid", Number(pid.into())), ("name", Text(&name))]);
    }

    #[cold]
    fn tell_of_end(&mut self, pid: c_int, code: c_int, is_main: bool) {
        let (name, age) = self.about.take().unwrap_or_default();
        let fields = [
            ("pid", Number(pid.into())),
            ("name", Text(&name)),
            ("code", Number(code.into())),
            ("age_ms", Number(age)),
            ("main", Flag(is_main)),
        ];
        self.event("reaped", &fields);
    }

    fn end_main(&mut self, pid: c_int, code: c_int) {
        info!("the main program {pid} ended with {code}");
        self.main = None;
        self.handed_over = None;
        self.main_code = Some(code);
        self.set_ready(false);
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

    /// Nobody gets TERM twice: notes who is about to get it.
    fn remember(&mut self, signal: c_int, is_meant: impl Fn(&Process) -> bool) {
        if signal == libc::SIGTERM {
            self.told.extend(tree::descendants().into_iter().filter(is_meant));
        }
    }

    /// As PID 1 all the namespace is the init's; before a restart only what the service left.
    fn owns_namespace(&self, before_restart: bool) -> bool {
        self.own_pid == 1 && !before_restart
    }

    /// In a machine the kernel's threads are in the namespace too, and never leave it: who is left are the children.
    fn is_machine(&self) -> bool {
        #[cfg(feature = "vm")]
        return self.config.requests.is_some();
        #[cfg(not(feature = "vm"))]
        false
    }

    fn signal_rest(&self, signal: c_int, before_restart: bool) {
        if self.owns_namespace(before_restart) {
            let _ = sys::kill(-1, signal);
            return;
        }
        let rest = tree::descendants();
        if rest.is_empty() {
            self.signal_unseen(signal);
        }
        rest.into_iter().for_each(|process| tree::send(process, signal));
    }

    /// Without /proc: the service's group, and who became a child of the init.
    fn signal_unseen(&self, signal: c_int) {
        if !self.no_children && tree::is_blind() {
            let _ = sys::kill(-self.group, signal);
            let newest = spawn::newest_pid().unwrap_or(self.group.saturating_add(10_000));
            for child in tree::children_by_asking(self.group, newest) {
                if sys::group_of(child) != Ok(self.group) {
                    let _ = sys::kill(child, signal);
                }
            }
        }
    }

    /// Says why there is no service; the exit code for it.
    fn failed(&self, failure: Failure) -> c_int {
        let name = self.command.name().display();
        let codes = self.config.codes;
        match failure {
            Failure::Fork(error) => {
                warning!("can't make a process for {name}: {} (limits of processes or memory?)", sys::reason(error));
                codes.own
            }
            Failure::Prepare(step, error) => {
                warning!("can't {step} for {name}: {}", sys::reason(error));
                codes.own
            }
            Failure::Exec(Errno::ENOENT) => {
                warning!("can't run {name}: not found (neither it nor, of a script, the program after #!)");
                codes.not_found
            }
            Failure::Exec(error) => {
                warning!("can't run {name}: {}", sys::reason(error));
                if error == Errno::EACCES { codes.refused } else { codes.not_run }
            }
        }
    }
}

impl World for Processes {
    fn now(&mut self) -> Duration {
        sys::now()
    }

    fn forward(&mut self, signal: c_int) {
        let Some(main) = self.main else { return };
        self.event("forwarded", &[("signal", Number(signal.into())), ("pid", Number(main.into()))]);
        match self.config.forward {
            Forward::Child => {
                let _ = sys::kill(main, signal);
            }
            Forward::Group => {
                let group = self.group;
                self.remember(signal, |process| process.in_group(group));
                // Where the service could not be given a group of its own, there is none of this number.
                if sys::kill(-group, signal).is_err() {
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

    fn forward_to_rest(&mut self, signal: c_int) {
        tree::descendants().into_iter().for_each(|process| tree::send(process, signal));
    }

    fn stop_rest(&mut self, before_restart: bool) -> bool {
        let owns = self.owns_namespace(before_restart);
        // Not PID 1 and no child: no descendant, because orphans become children.
        if self.is_machine() && self.no_children {
            return false;
        } else if owns && self.told.is_empty() {
            match sys::kill(-1, libc::SIGTERM) {
                Ok(()) => {}
                Err(Errno::ESRCH) => return false,
                Err(_) => tree::send_to_all(libc::SIGTERM, tree::namespace, &mut self.told),
            }
        } else if owns && self.no_children {
            // Who is left came in by `docker exec`, and was told nothing.
            return sys::kill(-1, libc::SIGTERM).is_ok();
        } else if self.no_children {
            return false;
        } else {
            tree::send_to_all(libc::SIGTERM, if owns { tree::namespace } else { tree::descendants }, &mut self.told);
            if self.told.is_empty() {
                self.signal_unseen(libc::SIGTERM);
            }
        }
        // Who is stopped can't act on TERM.
        self.signal_rest(libc::SIGCONT, before_restart);
        true
    }

    fn kill_rest(&mut self, before_restart: bool) {
        self.signal_rest(libc::SIGKILL, before_restart);
    }

    fn is_empty(&mut self, before_restart: bool) -> bool {
        // Who has none gets none but from processes that `docker exec` brought in, whose orphans come to PID 1.
        if !self.no_children || self.own_pid == 1 {
            self.reap();
        }
        // Processes that `docker exec` brought in are nobody's children here.
        self.no_children && !(self.owns_namespace(before_restart) && !self.is_machine() && sys::kill(-1, 0).is_ok())
    }

    fn has_no_children(&self) -> bool {
        self.no_children
    }

    fn last_term(&mut self) {
        let _ = sys::kill(-self.group, libc::SIGTERM);
    }

    fn start(&mut self) -> Result<(), c_int> {
        if let Some(file) = &self.config.ready_file {
            // Of a container that was ended by force.
            let _ = sys::remove_file(file);
        }
        if self.has_terminal {
            // The last one's.
            terminal::take_back(self.group);
        }
        let terminal = terminal::in_foreground();
        self.has_terminal = terminal.is_some();
        self.birth.terminal = terminal.as_ref().map(terminal::Terminal::fd);
        let pid = spawn::spawn(self.command, &self.birth).map_err(|failure| self.failed(failure))?;
        self.main = Some(pid);
        self.group = pid;
        self.handed_over = None;
        self.no_children = false;
        self.told.clear();
        info!("started {} as {pid}", self.command.name().display());
        if self.config.events.is_some() {
            self.tell_of_start(pid);
        }
        Ok(())
    }

    fn tell(&mut self, note: Note) {
        match note {
            Note::Waiting => info!("waiting for what the main program left behind"),
            Note::Stopping { grace, unasked } => {
                self.event("stopping", &[("grace_ms", Number(grace.as_millis() as i64))]);
                if unasked {
                    warning!(
                        "the main program ended and left processes behind, which are stopped now; a program that goes \
                         to the background needs its foreground option, or --wait-all"
                    );
                }
            }
            Note::Killing => {
                info!("the grace is over: SIGKILL for the rest");
                self.event("killing", &[]);
            }
            Note::Outlived => warning!("some processes outlive SIGKILL: leaving them to the kernel"),
            Note::Pausing { pause, code } => {
                let pause = pause.as_millis() as i64;
                warning!("the main program ended with {code}: starting it again in {pause}ms");
                self.event("pausing", &[("pause_ms", Number(pause))]);
            }
            Note::Overdue(why) => {
                let (option, says) = match why {
                    Overdue::Runtime => ("--max-runtime", "has run for long enough"),
                    Overdue::Watchdog => ("--watchdog", "gives no sign of life"),
                };
                warning!("{option}: the main program {says}: stopping it");
                self.event("overdue", &[("option", Text(option))]);
            }
        }
    }
}
