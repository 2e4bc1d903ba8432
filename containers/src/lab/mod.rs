//! The lab: lessons that run what they teach, and show it.
//!
//! A [`lesson::Lesson`] is a text (its question, its programs, what is expected and why) and an experiment that is run
//! under each [`alternative::Alternative`], all of them at once, each in pid namespaces of its own. What was seen is a
//! [`recording::Run`].

pub mod alternative;
pub mod check;
mod clock;
pub mod connection;
pub mod container;
pub mod controls;
mod daemons;
mod engine;
pub mod exercise;
mod experiments;
mod folder;
pub mod interrupt;
mod launch;
mod layers;
mod leftover;
pub mod lesson;
pub mod network_map;
mod networks;
pub mod page;
mod parts;
mod picture;
pub mod plain;
mod plain_network;
mod processes;
pub mod recording;
pub mod serve;
pub mod signals;
mod stage;
mod storage;
pub mod terminal;
mod trace_line;
mod tracer;
pub mod watch;

use crate::error::{Error, Result};
use alternative::Alternative;
use controls::Controls;
use engine::SharedEngine;
use folder::Folder;
use interrupt::Interrupt;
use lesson::{Experiment, Lesson};
use recording::{Outcome, Run, RunId, Update, Watcher};
use stage::Stage;
use std::{ffi::OsString, path::Path, time::Duration};
use tracer::Tracer;

/// How long a stop waits for the program, unless asked otherwise. Docker's is 10 s, which teaches no more.
pub const GRACE: Duration = Duration::from_secs(3);

/// How runs are made, and who sees them.
pub struct Lab<'a> {
    /// From a stop's TERM to its KILL.
    pub grace: Duration,
    pub watcher: &'a dyn Watcher,
    pub interrupt: Interrupt,
    pub controls: &'a Controls,
}

impl Lab<'_> {
    /// Runs a lesson under the alternatives, side by side; the runs in their order. A lesson that compares something else
    /// runs with all that it compares. An error where it could not be run at all, or the lab was asked to end.
    pub fn run(&self, lesson: &Lesson, alternatives: &[Alternative]) -> Result<Vec<Run>> {
        let folder = Folder::new(&lesson.programs)?;
        let folder = folder.path();
        let columns = columns(lesson, alternatives);
        // Ends after the runs.
        let shared = SharedEngine::default();
        let shared = &shared;
        self.watched(|tracer| {
            std::thread::scope(|scope| {
                let start = |(name, alternative)| {
                    scope.spawn(move || self.run_one(lesson, name, alternative, (folder, shared), tracer))
                };
                let threads: Vec<_> = columns.into_iter().map(start).collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
            })
        })
    }

    /// Runs the body on a thread whose descendants are watched by tracepoints, where these can be had.
    fn watched<T: Send>(&self, body: impl FnOnce(Option<&Tracer>) -> Result<T> + Send) -> Result<T> {
        let watched = || {
            let tracer = Tracer::start().inspect_err(|error| log::debug!("no tracepoints: {error}")).ok();
            body(tracer.as_ref())
        };
        std::thread::scope(|scope| scope.spawn(watched).join().unwrap_or_else(|_| Err(panicked())))
    }

    fn run_one(
        &self,
        lesson: &Lesson,
        column: String,
        alternative: Alternative,
        (folder, shared): (&Path, &SharedEngine),
        tracer: Option<&Tracer>,
    ) -> Result<Run> {
        let id = RunId { lesson: lesson.number, alternative: column };
        let mut stage = Stage::new(self, &id, alternative, folder, tracer);
        stage.share(shared);
        let source = stage.source();
        let measured = match (alternative.program(), lesson.experiment) {
            (None, _) => stage.not_run(Outcome::NotInstalled(alternative.install().to_owned())),
            (Some(_), Experiment::Under(experiment)) => experiment(&mut stage),
            (Some(_), Experiment::With(experiment)) => experiment(&mut stage, &id.alternative),
        };
        let outcome = match measured {
            Ok(()) => stage.outcome.clone(),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.interrupt.check()?;
        let (command, exit_status) = (stage.command.clone(), stage.status);
        let network = stage.network.take();
        let (observations, recording) = stage.finish()?;
        let run = Run {
            lesson: lesson.number,
            name: lesson.name.clone(),
            alternative: id.alternative.clone(),
            command,
            observations: lesson.judge(observations, &id.alternative, self.grace, &outcome),
            outcome,
            exit_status,
            source,
            lost_events: tracer.map_or(0, Tracer::lost),
            network,
            recording,
        };
        self.watcher.update(&id, Update::Finished(Box::new(run.clone())));
        Ok(run)
    }

    /// The environment of a lesson's programs: the lab's own would make runs differ from machine to machine.
    fn variables(&self, folder: &Path) -> Vec<(OsString, OsString)> {
        let mut path = folder.join("bin").into_os_string();
        path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        vec![("PATH".into(), path), ("HOME".into(), "/".into()), ("LC_ALL".into(), "C".into())]
    }
}

/// What a lesson is run under, or with: its runs' names.
fn columns(lesson: &Lesson, alternatives: &[Alternative]) -> Vec<(String, Alternative)> {
    match lesson.experiment {
        Experiment::Under(_) => alternatives.iter().map(|one| (one.name().to_owned(), *one)).collect(),
        Experiment::With(_) => lesson.columns.iter().map(|name| (name.clone(), Alternative::None)).collect(),
    }
}

fn panicked() -> Error {
    Error::Failed("a thread of the lab panicked; its message is above".into())
}
