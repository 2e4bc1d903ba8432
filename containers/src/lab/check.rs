//! `lab check`: the experiments that apply, on the user's own command as PID 1, with what is wrong and how to mend it.

use super::{
    Lab,
    container::Image,
    processes::{self, stat},
    recording::{Kind, LAB, Recording, RunId, Source},
    stage::{PATIENCE, Stage, shown},
    tracer::Tracer,
};
use crate::error::{Error, Result};
use serde::Serialize;
use std::{ffi::OsString, path::PathBuf, time::Duration};

/// How long the command may take to be what it will be.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a PID 1 may take to wait for an orphan that has ended.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// Programs that only start others: what they start is the program that matters.
const WRAPPERS: [&str; 10] =
    ["sh", "bash", "dash", "ash", "busybox", "tini", "tini-static", "dumb-init", "catatonit", "inception-init"];

/// What was found out about a command.
#[derive(Debug, Serialize)]
pub struct Report {
    pub command: String,
    pub points: Vec<Point>,
    /// How many points are wrong.
    pub wrong: usize,
    pub recording: Recording,
}

/// One point of the check.
#[derive(Debug, Serialize)]
pub struct Point {
    /// `stops at SIGTERM`
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was measured, in words.
    pub measured: String,
    /// The lesson that tells more.
    pub lesson: u32,
    /// Where it is wrong: the line that mends it.
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Right,
    Wrong,
    /// There was nothing to measure.
    NotApplicable,
}

/// What is checked.
pub enum Subject {
    /// A command, in this folder and with these variables; `program` is the name of the process that matters, where it is
    /// known.
    Command { words: Vec<String>, folder: PathBuf, variables: Vec<(OsString, OsString)>, program: Option<String> },
    /// An image's own command, in a container.
    Image(Image),
}

impl Lab<'_> {
    /// Runs the subject as PID 1 and looks at it.
    pub fn check(&self, subject: &Subject) -> Result<Report> {
        self.watched(|tracer| {
            let check =
                Check { lab: self, subject, command: Vec::new(), stop_signal: libc::SIGTERM, points: Vec::new() };
            check.run(tracer)
        })
    }
}

struct Check<'a> {
    lab: &'a Lab<'a>,
    subject: &'a Subject,
    command: Vec<String>,
    stop_signal: i32,
    points: Vec<Point>,
}

impl Check<'_> {
    fn run(mut self, tracer: Option<&Tracer>) -> Result<Report> {
        let id = RunId { lesson: 0, alternative: "check".into() };
        let (folder, variables) = match self.subject {
            Subject::Command { folder, variables, .. } => (folder.clone(), variables.clone()),
            Subject::Image(_) => Default::default(),
        };
        let mut stage = Stage::on(self.lab, &id, folder, variables, tracer);
        let ended = self.start(&mut stage)?;
        match ended {
            Some(code @ (126 | 127)) => {
                let message = format!("`{}` could not be run: it ended with {code}", shown(&self.command));
                return Err(Error::Runtime { message, code });
            }
            Some(status) => self.ended_by_itself(&stage, status),
            None => {
                self.orphan(&mut stage)?;
                self.ctrl_c(&stage);
                self.stop(&mut stage)?;
                self.exit_code(&mut stage)?;
            }
        }
        let (_, recording) = stage.finish()?;
        let wrong = self.points.iter().filter(|point| point.verdict == Verdict::Wrong).count();
        Ok(Report { command: shown(&self.command), points: self.points, wrong, recording })
    }

    /// Starts the subject and gives it time to settle; its status where it ended by itself.
    fn start(&mut self, stage: &mut Stage) -> Result<Option<i32>> {
        match self.subject {
            Subject::Command { words, .. } => {
                self.command.clone_from(words);
                stage.start(words)?;
            }
            Subject::Image(image) => {
                let started = image.start()?;
                (self.command, self.stop_signal) = (started.words, started.stop_signal);
                match started.child {
                    Some(child) => stage.take(child, &self.command)?,
                    None => return Ok(Some(started.exit_code)),
                }
            }
        }
        stage.wait_end(SETTLE)
    }

    fn point(&mut self, name: &'static str, lesson: u32, measured: String, wrong: bool, remedy: &str) {
        let verdict = if wrong { Verdict::Wrong } else { Verdict::Right };
        self.points.push(Point { name, verdict, measured, lesson, remedy: wrong.then(|| remedy.to_owned()) });
    }

    fn not_applicable(&mut self, name: &'static str, lesson: u32, why: &str) {
        let measured = why.to_owned();
        self.points.push(Point { name, verdict: Verdict::NotApplicable, measured, lesson, remedy: None });
    }

    /// The whole Dockerfile line, with the init in front of the command.
    fn with_init(&self, option: &str) -> String {
        let option = if option.is_empty() { String::new() } else { format!("\"{option}\", ") };
        format!("ENTRYPOINT [\"inception-init\", {option}\"--\"]\nCMD {}", self.exec_form())
    }

    /// `CMD ["./app", "-x"]`; of `sh -c 'one command'` that command.
    fn exec_form(&self) -> String {
        // An init that is there already is replaced.
        let command = match &self.command[..] {
            [init, dashes, rest @ ..] if WRAPPERS[5..].contains(&base(init)) && dashes == "--" => rest,
            command => command,
        };
        let words = match command {
            [shell, option, script] if WRAPPERS[..4].contains(&base(shell)) && option == "-c" => {
                let is_plain = !script.contains([';', '&', '|', '<', '>', '$', '`', '(', '*', '\n']);
                is_plain.then(|| shlex::split(script)).flatten().unwrap_or_else(|| command.to_vec())
            }
            words => words.to_vec(),
        };
        serde_json::to_string(&words).unwrap_or_default().replace("\",\"", "\", \"")
    }

    fn ended_by_itself(&mut self, stage: &Stage, status: i32) {
        let root = stage.last_root();
        let mut left = killed_at_the_end(stage.recording(), root);
        // An init may stop what the main program left, where nobody asked for a stop.
        for event in stage.recording().events.iter().filter(|event| event.pid == root && event.other != Some(root)) {
            if event.signal == Some(libc::SIGTERM)
                && let Some(process) = event.other.and_then(|pid| stage.recording().process(pid))
            {
                left.push(process.name.clone());
            }
        }
        let is_service = matches!(self.subject, Subject::Command { program: Some(_), .. });
        let went = is_service || (status == 0 && !left.is_empty());
        let measured = match (went, left.is_empty()) {
            (true, false) => {
                format!("ended with {status} and left {} behind, which did not outlive it", left.join(", "))
            }
            _ => format!("ended by itself with {status}"),
        };
        let remedy = format!("the service's foreground option, or:\n{}", self.with_init("--wait-all"));
        self.point("stays in the foreground", 8, measured, went, &remedy);
        for (name, lesson) in [("waits for orphans", 2), ("stops at SIGTERM", 1)] {
            self.not_applicable(name, lesson, "it ended before it could be asked");
        }
    }

    /// An orphan as a health check or `docker exec` makes one.
    fn orphan(&mut self, stage: &mut Stage) -> Result<()> {
        let (name, root) = ("waits for orphans", stage.root());
        let before = processes::zombies_below(root);
        let known = processes::children(root);
        stage.make_orphan()?;
        let has_ended = |pid: &i32| stat(*pid).is_none_or(|stat| stat.state == 'Z');
        let all_ended =
            |_: &mut Stage| processes::children(root).iter().filter(|child| !known.contains(child)).all(has_ended);
        stage.wait_until(PATIENCE, all_ended)?;
        let reaped = stage.wait_until(REAP_LIMIT, |_| processes::zombies_below(root) == 0)?;
        let now = processes::zombies_below(root);
        if stage.status.is_some() {
            self.not_applicable(name, 2, "it ended meanwhile");
            return Ok(());
        }
        let measured = match reaped {
            true => "an orphan that ended was waited for; no zombies".to_owned(),
            false => {
                format!("{now} zombies after {} s; {before} of them before an orphan was added", REAP_LIMIT.as_secs())
            }
        };
        let remedy = self.with_init("");
        self.point(name, 2, measured, !reaped, &remedy);
        Ok(())
    }

    fn ctrl_c(&mut self, stage: &Stage) {
        let dropped = processes::drops(stage.root(), libc::SIGINT);
        let measured = if dropped { "PID 1 has no handler for SIGINT: it is dropped" } else { "SIGINT reaches PID 1" };
        let remedy = self.with_init("");
        self.point("Ctrl-C is heard", 9, measured.into(), dropped, &remedy);
    }

    fn stop(&mut self, stage: &mut Stage) -> Result<()> {
        if stage.status.is_some() {
            self.not_applicable("stops at SIGTERM", 1, "it ended before it was asked to");
            return Ok(());
        }
        let root = stage.root();
        let no_handler = processes::drops(root, self.stop_signal);
        let is_alive = |pid: &i32| stat(*pid).is_some_and(|stat| stat.state != 'Z');
        let has_children = processes::children(root).iter().any(is_alive);
        let stopped = stage.stop_by(self.stop_signal)?;
        let grace = self.lab.grace;
        let late = stopped.took >= grace.as_millis() as i64;
        let why = match (late, no_handler, has_children) {
            (false, ..) => "",
            (true, true, true) => ": PID 1 has no handler for it, and passes nothing on",
            (true, true, false) => ": PID 1 has no handler for it, and the kernel drops it",
            (true, false, _) => ": it reached PID 1, which did not end",
        };
        let measured = format!("exit status {} after {} ms{why}", stopped.status, stopped.took);
        let remedy = match no_handler {
            true => self.with_init(""),
            // The signal comes to a program that waits for something else: a shell's trap, most often.
            false => format!(
                "in an entrypoint script: exec \"$@\" (or `command & wait`), else:\n{}",
                self.with_init("--forward=group")
            ),
        };
        self.point("stops at SIGTERM", 1, measured, late, &remedy);
        let killed = killed_at_the_end(stage.recording(), root);
        if late {
            self.not_applicable("lets everything clean up", 4, "everything was killed when the grace was over");
        } else if stage.source() == Source::Proc && !killed.is_empty() {
            // What ended just before PID 1 and what was killed by its end look alike in /proc.
            self.not_applicable(
                "lets everything clean up",
                7,
                "only the kernel's tracepoints can tell: run it as root",
            );
        } else {
            let measured = match &killed[..] {
                [] => "nothing was running when PID 1 ended".to_owned(),
                names => format!("killed when PID 1 ended: {}", names.join(", ")),
            };
            let remedy = self.with_init("");
            self.point("lets everything clean up", 7, measured, !killed.is_empty(), &remedy);
        }
        Ok(())
    }

    /// Kills the program behind a shell or an init, and looks whether that is seen outside.
    fn exit_code(&mut self, stage: &mut Stage) -> Result<()> {
        let name = "exit code is seen outside";
        self.start(stage)?;
        let named = match self.subject {
            Subject::Command { program: Some(name), .. } => find_below(stage.root(), name),
            _ => None,
        };
        let Some(program) = named.or_else(|| behind_wrappers(stage.root())) else {
            self.not_applicable(name, 5, "PID 1 is the program itself, or has several children");
            return Ok(());
        };
        stage.signal_process(program, libc::SIGKILL);
        let status = stage.wait_end(SETTLE)?;
        let measured = match status {
            Some(status) => format!("the program was killed (137), and PID 1 ended with {status}"),
            None => "the program was killed (137), and PID 1 goes on without it".to_owned(),
        };
        let remedy = format!("exec form, without a shell after or around it:\n{}", self.with_init(""));
        self.point(name, 5, measured, status.is_none_or(|status| status == 0), &remedy);
        stage.kill_if_alive()
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The program at the end of a chain of shells and inits with one child each; none where PID 1 is none of these.
fn behind_wrappers(root: i32) -> Option<i32> {
    let mut pid = root;
    let mut steps = 0;
    while stat(pid).is_some_and(|stat| WRAPPERS.contains(&stat.name.as_str())) && steps < WRAPPERS.len() {
        match processes::children(pid)[..] {
            [child] => pid = child,
            _ => return None,
        }
        steps += 1;
    }
    (pid != root).then_some(pid)
}

/// The first process below with this name.
fn find_below(root: i32, name: &str) -> Option<i32> {
    processes::descendants(root).into_iter().find(|pid| stat(*pid).is_some_and(|stat| stat.name == name))
}

/// The names of those that were alive when this PID 1 ended.
fn killed_at_the_end(recording: &Recording, root: i32) -> Vec<String> {
    let Some(end) = recording.process(root).and_then(|process| process.end) else { return Vec::new() };
    // Processes of another PID 1 have ended before this one began.
    let was_alive = |process: &&super::recording::Process| {
        process.parent != LAB && process.start <= end && process.end.is_none_or(|at| at > end)
    };
    let asked = |pid: i32| {
        let tells = |event: &&super::recording::Event| {
            event.other == Some(pid) && event.kind != Kind::SignalIgnored && event.signal == Some(libc::SIGKILL)
        };
        recording.events.iter().find(tells).is_none_or(|event| event.at >= end)
    };
    recording
        .processes
        .iter()
        .filter(was_alive)
        .filter(|process| asked(process.pid))
        .map(|it| it.name.clone())
        .collect()
}

/// The report as plain lines, with the lines that mend what is wrong.
pub fn lines(report: &Report) -> String {
    written(report, true)
}

/// The same without these: for who is to find them.
pub fn findings(report: &Report) -> String {
    written(report, false)
}

fn written(report: &Report, with_remedies: bool) -> String {
    let mut text = format!("As PID 1: {}\n\n", report.command);
    for point in &report.points {
        let mark = match point.verdict {
            Verdict::Right => "ok   ",
            Verdict::Wrong => "WRONG",
            Verdict::NotApplicable => "–    ",
        };
        text += &format!("{mark}  {}: {} (lesson {})\n", point.name, point.measured, point.lesson);
        for line in point.remedy.iter().filter(|_| with_remedies).flat_map(|remedy| remedy.lines()) {
            text += &format!("         | {line}\n");
        }
    }
    text + &match report.wrong {
        0 => "\nNothing is wrong with it.\n".to_owned(),
        1 => "\n1 point is wrong.\n".to_owned(),
        wrong => format!("\n{wrong} points are wrong.\n"),
    }
}
