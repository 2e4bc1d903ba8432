//! Properties: of the parsers for any input, and of the rules of stopping and starting again for any service.

use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::config::{Codes, Rules};
use crate::machine::{AFTER_KILL, LOOK_AGAIN, Machine, Note, World};
use crate::options::{self, Request};
use crate::personality::{self, Peer};
use crate::policy::Restart;
use crate::{inherited, notify, signal, sys, tree};

/// The arguments of a program live as long as it does; so do these.
fn argument(bytes: Vec<u8>) -> &'static OsStr {
    Box::leak(std::ffi::OsString::from_vec(bytes.into_iter().filter(|byte| *byte != 0).collect()).into_boxed_os_str())
}

/// Words that look like options, and any others.
fn words() -> impl Strategy<Value = Vec<&'static OsStr>> {
    let known = prop::sample::select(vec![
        "-",
        "--",
        "-v",
        "-vg",
        "-e",
        "-e3",
        "-p",
        "-pSIGTERM",
        "-P",
        "-r",
        "15:3",
        "--rewrite",
        "--rewrite=1:0",
        "--grace",
        "--grace=1",
        "--wait-all",
        "--env",
        "A=b",
        "--restart",
        "on-failure:3",
        "--as",
        "tini",
        "--as=catatonit",
        "--notify",
        "--watchdog=5",
        "-g",
        "sh",
        "é",
        "",
    ]);
    let word = prop_oneof![4 => known.prop_map(|word| word.as_bytes().to_vec()), 1 => vec(any::<u8>(), 0..8)];
    vec(word.prop_map(argument), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No arguments make a parser panic; a command is a part of the arguments, in their order, and never the init's name.
    #[test]
    fn any_arguments_are_read_or_refused(args in words(), environment in words()) {
        let requests = [Peer::Tini, Peer::DumbInit, Peer::Catatonit]
            .map(|peer| personality::read(peer, &args, 1, |_| environment.first().copied()));
        for request in requests.into_iter().chain([options::read(&args, environment.iter().copied())]) {
            match request {
                Request::Run { command, .. } => {
                    prop_assert!(command.is_sorted() && command[0] >= 1 && command[command.len() - 1] < args.len());
                }
                Request::Refuse { message, code } => {
                    prop_assert!(!message.is_empty() && (code == 1 || code == Codes::USUAL.own));
                }
                Request::Print(text) | Request::Say(text) => prop_assert!(!text.is_empty()),
                Request::Pause => {}
            }
        }
    }

    /// What stands after `--` is the command, byte for byte.
    #[test]
    fn the_command_is_nobodys_business(command in vec(vec(any::<u8>(), 0..9).prop_map(argument), 1..6)) {
        for start in [&["init", "--"][..], &["init", "-v", "--grace=3", "--"]] {
            let args: Vec<&'static OsStr> = start.iter().map(|word| OsStr::new(*word)).chain(command.iter().copied()).collect();
            match options::read(&args, std::iter::empty()) {
                Request::Run { command: read, .. } => prop_assert_eq!(read, (start.len()..args.len()).collect::<Vec<_>>()),
                _ => prop_assert!(false, "not run"),
            }
        }
    }

    #[test]
    fn every_time_reads_back(ms in 0u64..31_536_000_000) {
        let time = Some(Duration::from_millis(ms));
        prop_assert_eq!(options::seconds(&format!("{ms}ms")), time);
        prop_assert_eq!(options::seconds(&format!("{}.{:03}", ms / 1000, ms % 1000)), time);
    }

    #[test]
    fn small_parsers_take_anything(text in ".{0,40}", bytes in vec(any::<u8>(), 0..200)) {
        let _ = options::seconds(&text);
        let _ = Restart::parse(&text);
        prop_assert!(signal::parse(&text).is_none_or(|signal| (1..=signal::HIGHEST).contains(&signal)));
        prop_assert!(notify::parse(&bytes).main.is_none_or(|pid| pid > 0));
        let _ = tree::parse(1, &bytes);
        let _ = inherited::parse(&bytes);
        let _ = sys::names(&bytes).count();
    }
}

/// A process that is thought up.
#[derive(Clone, Debug)]
struct Being {
    main: bool,
    /// When it ends by itself.
    ends: Option<Duration>,
    code: c_int,
    /// How long it takes to end after TERM; `None`: it ignores TERM.
    obeys: Option<Duration>,
    terms: u32,
}

/// What a main program does when it is started: its own fate, and those whom it leaves behind.
#[derive(Clone, Debug)]
struct Script {
    main: Being,
    others: Vec<Being>,
}

struct Simulation {
    now: Duration,
    living: Vec<Being>,
    scripts: Vec<Script>,
    starts: usize,
    /// A request to stop has come.
    stopped: bool,
    /// The exit code of the last main program.
    code: c_int,
    main_ended: Option<c_int>,
    /// When TERM went to the rest, and after which grace KILL may follow.
    killed_early: bool,
    grace_began: Option<Duration>,
    grace: Duration,
    hurried: bool,
    faults: Vec<&'static str>,
}

impl Simulation {
    fn send(being: &mut Being, now: Duration, signal: c_int) {
        let ends = match signal {
            libc::SIGKILL => Some((now, 137)),
            libc::SIGTERM => {
                being.terms += 1;
                being.obeys.map(|time| (now + time, 143))
            }
            libc::SIGABRT => being.obeys.map(|time| (now + time, 134)),
            _ => None,
        };
        if let Some((end, code)) = ends
            && being.ends.is_none_or(|known| end < known)
        {
            (being.ends, being.code) = (Some(end), code);
        }
    }

    fn let_die(&mut self) {
        let now = self.now;
        for being in self.living.iter().filter(|being| being.main && being.ends.is_some_and(|end| end <= now)) {
            self.code = being.code;
            self.main_ended = Some(being.code);
        }
        self.living.retain(|being| being.ends.is_none_or(|end| end > now));
    }
}

impl World for Simulation {
    fn now(&mut self) -> Duration {
        self.now
    }

    fn forward(&mut self, signal: c_int) {
        let now = self.now;
        self.living.iter_mut().filter(|being| being.main).for_each(|being| Self::send(being, now, signal));
    }

    fn forward_to_rest(&mut self, signal: c_int) {
        let now = self.now;
        self.living.iter_mut().for_each(|being| Self::send(being, now, signal));
    }

    fn stop_rest(&mut self, _: bool) -> bool {
        if self.living.iter().any(|being| being.main) {
            self.faults.push("the rest is stopped while the main program lives");
        }
        let now = self.now;
        self.living.iter_mut().filter(|being| being.terms == 0).for_each(|being| Self::send(being, now, libc::SIGTERM));
        self.grace_began.get_or_insert(now);
        !self.living.is_empty()
    }

    fn kill_rest(&mut self, _: bool) {
        let now = self.now;
        if !self.hurried && self.grace_began.is_some_and(|begin| now < begin + self.grace) {
            self.killed_early = true;
        }
        self.living.iter_mut().for_each(|being| Self::send(being, now, libc::SIGKILL));
    }

    fn is_empty(&mut self, _: bool) -> bool {
        self.let_die();
        self.living.is_empty()
    }

    fn has_no_children(&self) -> bool {
        self.living.is_empty()
    }

    fn last_term(&mut self) {}

    fn start(&mut self) -> Result<(), c_int> {
        if self.stopped {
            self.faults.push("started after a request to stop");
        }
        if !self.living.is_empty() {
            self.faults.push("started while something of the run before lives");
        }
        let script = self.scripts[self.starts % self.scripts.len()].clone();
        self.starts += 1;
        self.grace_began = None;
        let begin = self.now;
        let born = std::iter::once(script.main).chain(script.others);
        self.living = born.map(|being| Being { ends: being.ends.map(|time| begin + time), ..being }).collect();
        Ok(())
    }

    fn tell(&mut self, note: Note) {
        if note == Note::Outlived {
            self.faults.push("said to outlive KILL, which nobody here does");
        }
    }
}

fn time(most: u64) -> impl Strategy<Value = Duration> {
    (0..most).prop_map(Duration::from_millis)
}

fn being(main: bool) -> impl Strategy<Value = Being> {
    let code = if main { (0..4i32).boxed() } else { Just(0).boxed() };
    (prop::option::weighted(0.7, time(20_000)), code, prop::option::weighted(0.7, time(8000)))
        .prop_map(move |(ends, code, obeys)| Being { main, ends, code, obeys, terms: 0 })
}

fn rules() -> impl Strategy<Value = Rules> {
    let restart = prop_oneof![
        Just(Restart::No),
        Just(Restart::Always),
        Just(Restart::OnFailure(None)),
        (0u32..4).prop_map(|most| Restart::OnFailure(Some(most)))
    ];
    let optional = |most| prop_oneof![Just(Duration::ZERO), time(most)];
    (restart, time(6000), optional(3000), optional(30_000), optional(9000), any::<bool>()).prop_map(
        |(restart, grace, stop_delay, max_runtime, watchdog, wait_all)| Rules {
            restart,
            grace,
            stop_delay,
            max_runtime,
            watchdog,
            wait_all,
            ..Rules::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the service does and whenever someone asks to stop: nothing is started afterwards, nobody is there when
    /// the service is started again, the rest gets KILL no sooner than the grace is over (unless someone asked
    /// twice), and the exit code is the last main program's. A main program that ends lets the init end within bounds.
    #[test]
    fn stopping_and_starting_again(
        rules in rules(),
        scripts in vec((being(true), vec(being(false), 0..4)).prop_map(|(main, others)| Script { main, others }), 1..4),
        stops in vec((time(60_000), prop_oneof![Just(libc::SIGTERM), Just(libc::SIGHUP), Just(37)]), 0..4),
    ) {
        let mut stops = stops;
        // At the end someone asks for good, and the main program obeys.
        stops.push((Duration::from_secs(600), libc::SIGTERM));
        stops.sort();
        let mut scripts = scripts;
        scripts.iter_mut().for_each(|script| _ = script.main.obeys.get_or_insert(Duration::from_secs(3)));
        let mut world = Simulation {
            now: Duration::ZERO,
            living: Vec::new(),
            scripts,
            starts: 0,
            stopped: false,
            code: 0,
            main_ended: None,
            killed_early: false,
            grace_began: None,
            grace: rules.grace,
            hurried: false,
            faults: Vec::new(),
        };
        let mut machine = Machine::new(rules);
        prop_assert_eq!(machine.start(&mut world), Ok(()));
        let mut stops = stops.into_iter().peekable();
        let mut ended = None;
        // Restarts without end stop at ten minutes; every turn of the loop goes on in time or in phase.
        for _ in 0..100_000 {
            let deadline = machine.deadline(&mut world);
            let death = world.living.iter().filter_map(|being| being.ends).min();
            let request = stops.peek().map(|(at, _)| *at);
            let Some(next) = [deadline, death, request].into_iter().flatten().min() else { break };
            world.now = world.now.max(next);
            if request.is_some_and(|at| at <= world.now) {
                let (_, signal) = stops.next().unwrap();
                if signal::asks_to_stop(signal, signal) {
                    world.hurried |= world.stopped;
                    world.stopped = true;
                }
                machine.signal(signal, signal, &mut world);
            }
            world.let_die();
            if let Some(code) = world.main_ended.take() {
                machine.main_ended(code);
            }
            if let Some(code) = machine.advance(&mut world) {
                ended = Some(code);
                break;
            }
        }
        prop_assert_eq!(&world.faults, &Vec::<&str>::new());
        prop_assert_eq!(ended, Some(world.code));
        prop_assert!(world.living.is_empty(), "left: {:?}", world.living);
        prop_assert!(!world.killed_early);
        // The last request, held back; 8 s that the main program takes at most; the rest's grace and KILL.
        let bound = Duration::from_secs(600) + rules.stop_delay + Duration::from_secs(8) + rules.grace * 2 + AFTER_KILL;
        prop_assert!(world.now <= bound + LOOK_AGAIN * 2, "ended at {:?}", world.now);
        if let Restart::OnFailure(Some(most)) = rules.restart
            // With --wait-all who was left behind makes a run a long one too.
            && world.scripts.iter().all(|script| {
                let others = script.others.iter().filter(|_| rules.wait_all);
                others.chain([&script.main]).all(|being| being.ends.is_some_and(|end| end < Duration::from_secs(10)))
            })
            && rules.max_runtime.is_zero() && rules.watchdog.is_zero()
        {
            prop_assert!(world.starts <= most as usize + 1, "{} starts", world.starts);
        }
        if rules.restart == Restart::No {
            prop_assert_eq!(world.starts, 1);
        }
    }
}
