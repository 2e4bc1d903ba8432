//! inception-init: a minimal PID 1 for containers.
//!
//! `main` is C's, so that Rust's start-up (which polls descriptors, sets handlers and ignores SIGPIPE) takes no part:
//! the first thing that happens is that all signals are blocked, because one that comes before is lost.
#![no_main]

use std::ffi::{OsStr, c_char, c_int};

use inception_init::config::Config;
use inception_init::options::{self, Request};
use inception_init::spawn::Command;
use inception_init::supervise::Supervisor;
#[cfg(feature = "vm")]
use inception_init::vm;
use inception_init::{environment, inherited, report, signal, supervise, sys, warning};

/// So that cargo links anew when it changes.
const _: &str = include_str!("layout.ld");

mod memory;
#[cfg(panic = "abort")]
mod unwinder;

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, argv: *mut *const c_char) -> c_int {
    // Where a filter refuses it, what does not need it still works.
    let _ = sys::set_mask(signal::ALL).or_else(|_| sys::set_mask(signal::ALL));
    inherited::reset_dispositions();
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: C's promise for main: `count` strings, then NULL, for as long as the process lives.
    let words = unsafe { std::slice::from_raw_parts(argv, count) };
    #[cfg(feature = "vm")]
    if options::asks_for_machine(words) || vm::is_machine() {
        machine(words);
    }
    if let Some(first) = options::plain_command(words) {
        return supervise(Config::default(), argv, first);
    }
    with_options(words, argv)
}

/// The kernel's words before its `--` are no words for the init, but of what it does not know; so only those after
/// `--vm` count, which somebody said on purpose.
#[cfg(feature = "vm")]
#[inline(never)]
fn machine(words: &[*const c_char]) -> ! {
    let asked = options::asks_for_machine(words);
    let own = if asked { words.get(2..).unwrap_or_default() } else { &[] };
    // SAFETY: C's promise for main.
    let own: Vec<&'static OsStr> = own.iter().map(|word| unsafe { sys::text(*word) }).collect();
    vm::run(&own)
}

/// By itself, so that the usual case needs no stack for it.
#[inline(never)]
fn with_options(words: &[*const c_char], argv: *mut *const c_char) -> c_int {
    // SAFETY: C's promise for main.
    let args: Vec<&'static OsStr> = words.iter().map(|word| unsafe { sys::text(*word) }).collect();
    match options::read(&args, environment::entries()) {
        Request::Run { config, command, verbose, remarks } => {
            report::be_verbose(verbose);
            remarks.iter().for_each(|remark| warning!("{remark}"));
            // The command's words to the end of argv, in their order: a peer's options may stand between them.
            let start = args.len() - command.len();
            for (place, index) in command.iter().enumerate().rev() {
                // SAFETY: indices of argv, which is the program's own; the words move up, the last one first.
                unsafe { *argv.add(start + place) = *argv.add(*index) };
            }
            supervise(*config, argv, start)
        }
        Request::Pause => sys::exit(supervise::pause()),
        Request::Print(text) => {
            sys::print(1, text.as_bytes());
            sys::exit(0)
        }
        Request::Say(text) => {
            sys::print(2, text.as_bytes());
            sys::exit(0)
        }
        Request::Refuse { message, code } => {
            warning!("{message}");
            sys::exit(code)
        }
    }
}

/// Runs the command that starts at an index of argv, which is not 0; the exit code, to which the process ends.
fn supervise(config: Config, argv: *mut *const c_char, first: usize) -> c_int {
    // SAFETY: C's promise for argv; the init's name stands before the command.
    let command = unsafe { Command::new(argv.add(first)) };
    let mut supervisor = Supervisor::new(config, command);
    // Nothing of it is dropped: the kernel takes all that there is at once.
    sys::exit(supervisor.run())
}
