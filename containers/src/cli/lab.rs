//! `inception lab`: the lessons, on a terminal's screen, in plain lines or JSON.

use super::{Globals, connect::connect, output};
use crate::{
    error::{Context, Error, Result},
    lab::{
        self, Lab,
        alternative::Alternative,
        check::Subject,
        connection::Connection,
        container::Image,
        controls::Controls,
        exercise::{self, Exercise},
        interrupt::Interrupt,
        lesson::{self, Lesson},
        page, plain,
        recording::{NoWatcher, Outcome, Run},
        serve,
        terminal::{self, screen::Screen},
    },
};
use argh::{ArgsInfo, FromArgs};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{BufRead, IsTerminal},
    net::SocketAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

/// Something was measured that is not as the lesson expects.
const DIFFERS: u8 = 3;

/// Learn what PID 1 does by running it: zombies, orphans, signals, exit codes.
///
/// Without an argument: the list of lessons.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "lab",
    example = "inception lab\ninception lab 2\ninception lab sigterm --alternative none --alternative tini\ninception lab all --yes --html lab.html\ninception lab serve\ninception lab check -- ./entrypoint.sh nginx\ninception lab check nginx:latest\ninception lab exercise tail-f\ninception lab 5 --json | jq -c '[.alternative, .exit_status]'",
    error_code(0, "everything was as the lesson expects"),
    error_code(1, "a lesson could not be run"),
    error_code(2, "a bad command line"),
    error_code(
        3,
        "something was measured that is not as expected, or a checked command does something wrong; it is said what"
    ),
    note = "The lessons need no image, no engine and no network. As root the picture comes from the kernel's tracepoints, otherwise from /proc and inception-init's event log. Ended by a signal n, the exit code is 128+n, and nothing is left behind."
)]
pub struct LabCommand {
    /// one JSON object a run, a line each
    #[argh(switch)]
    json: bool,
    /// lines and no screen, on a terminal too
    #[argh(switch)]
    plain: bool,
    /// do not ask what is expected, nor wait for a key at the end
    #[argh(switch, short = 'y')]
    yes: bool,
    /// seconds that a stop waits for the program (default: 3)
    #[argh(option)]
    grace: Option<f64>,
    /// also write the lessons, with pictures of their runs, as one page into this file
    #[argh(option)]
    html: Option<PathBuf>,
    /// also write the pictures of the runs alone, as SVG, into this file
    #[argh(option)]
    svg: Option<PathBuf>,
    /// serve: the address to listen on (default: 127.0.0.1:8484); one that others can reach needs --token
    #[argh(option)]
    listen: Option<SocketAddr>,
    /// serve: let in only who has the token in the printed address
    #[argh(switch)]
    token: bool,
    /// only under none, sh, tini, dumb-init, catatonit or inception-init; repeatable
    #[argh(option)]
    alternative: Vec<String>,
    /// which hint an exercise that is not solved gives (default: 1, a nudge; the last one is the solution)
    #[argh(option)]
    hint: Option<usize>,
    /// a lesson's number or name, all, exercise [NAME], or check IMAGE, check -- COMMAND: what it does wrong as PID 1, and the lines that mend it; or serve: the lessons as a web page
    #[argh(positional, arg_name = "lesson")]
    words: Vec<String>,
}

impl LabCommand {
    /// Its exit code.
    pub fn run(self, globals: &Globals) -> Result<u8> {
        let is_served = self.words.first().is_some_and(|word| word == "serve");
        if !is_served && (self.listen.is_some() || self.token) {
            return Err(Error::invalid("--listen and --token belong to `inception lab serve`"));
        }
        let lessons = match self.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => return list().map(|()| 0),
            ["check", ..] => return self.check(globals),
            ["serve"] => return self.serve(),
            ["exercise"] => return exercises().map(|()| 0),
            ["exercise", name] => return self.exercise(name),
            ["all"] => lesson::all().iter().collect(),
            ref words => words.iter().map(|word| find(word)).collect::<Result<Vec<_>>>()?,
        };
        let alternatives = match &self.alternative[..] {
            [] => Alternative::ALL.to_vec(),
            names => names.iter().map(|name| named(name)).collect::<Result<_>>()?,
        };
        self.in_lab(|lab| self.lessons(lab, &lessons, &alternatives))
    }

    /// Has the work done by a lab that ends with a signal; the exit code.
    fn in_lab(&self, work: impl FnOnce(&Lab) -> Result<u8>) -> Result<u8> {
        let grace = self.read_grace()?;
        let interrupt = Interrupt::catch()?;
        let controls = Controls::default();
        let done = work(&Lab { grace, watcher: &NoWatcher, interrupt: interrupt.clone(), controls: &controls });
        interrupt.exit_code(done)
    }

    fn read_grace(&self) -> Result<Duration> {
        let Some(seconds) = self.grace else { return Ok(lab::GRACE) };
        let is_sensible = (0.5..=60.0).contains(&seconds);
        let grace = Duration::try_from_secs_f64(seconds).ok().filter(|_| is_sensible);
        grace.ok_or_else(|| Error::Invalid(format!("--grace {seconds}: it is 0.5 to 60 seconds")))
    }

    /// `lab serve`: until a signal ends it, which is how it is meant to end.
    fn serve(&self) -> Result<u8> {
        if self.json || self.html.is_some() || self.svg.is_some() || !self.alternative.is_empty() {
            return Err(Error::invalid(
                "`inception lab serve` takes --listen, --token and --grace: the rest is chosen on its page",
            ));
        }
        let (listen, token) = (self.listen.unwrap_or(serve::ADDRESS), self.token);
        let interrupt = Interrupt::catch()?;
        let ready = |link: &str| output::print(&format!("The lessons are at {link}\nCtrl-C ends them.\n"));
        serve::serve(&serve::Options { listen, token, grace: self.read_grace()? }, &interrupt, ready)?;
        interrupt.exit_code(Ok(0))
    }

    /// `lab check IMAGE`, `lab check -- COMMAND`
    fn check(&self, globals: &Globals) -> Result<u8> {
        let subject = match (&self.words[1..], globals.before_dashes) {
            (words @ [_, ..], Some(1)) => Subject::Command {
                words: words.to_vec(),
                folder: std::env::current_dir().doing("find the current folder")?,
                variables: std::env::vars_os().collect(),
                program: None,
            },
            ([image], None) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = Arc::new(runtime.doing("start the async runtime")?);
                let docker = runtime.block_on(connect(globals))?;
                Subject::Image(Image { engine: Connection { docker, runtime }, name: image.clone() })
            }
            _ => {
                return Err(Error::invalid(
                    "write it as `inception lab check IMAGE` or `inception lab check -- COMMAND`",
                ));
            }
        };
        self.in_lab(|lab| {
            let report = lab.check(&subject)?;
            lab.interrupt.check()?;
            match self.json {
                true => output::json(&report)?,
                false => output::print(&lab::check::lines(&report))?,
            }
            Ok(if report.wrong > 0 { DIFFERS } else { 0 })
        })
    }

    /// `lab exercise NAME`: lays it out in the folder NAME, has it edited, and judges it.
    fn exercise(&self, name: &str) -> Result<u8> {
        let exercise = exercise::find(name).ok_or_else(|| {
            let names: Vec<&str> = exercise::all().iter().map(|exercise| exercise.name.as_str()).collect();
            Error::Invalid(format!("there is no exercise {name:?}; there are {}", names.join(", ")))
        })?;
        let folder = Path::new(name);
        let is_new = exercise.lay_out(folder)?;
        if !self.json {
            output::print(&format!("Exercise {name}: {}\n\n{}\n\n", exercise.title, exercise.task))?;
        }
        if !self.yes && !self.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            edit(folder, exercise)?;
        } else if is_new && !self.json {
            output::print(&format!("Its files are in ./{name}. As it is:\n\n"))?;
        }
        self.in_lab(|lab| {
            let report = exercise.judge(lab, folder)?;
            lab.interrupt.check()?;
            let is_solved = exercise::is_solved(&report);
            if self.json {
                output::json(&report)?;
            } else {
                output::print(&lab::check::findings(&report))?;
                output::print(&match is_solved {
                    true => "\nSolved.\n".to_owned(),
                    false => format!(
                        "\nA hint: {}\nMend it in ./{name}, then `inception lab exercise {name}` again (--hint 1 to {} for more).\n",
                        exercise.hint(self.hint.unwrap_or(1).saturating_sub(1)).unwrap_or_default(),
                        exercise.hints.len()
                    ),
                })?;
            }
            Ok(if is_solved { 0 } else { DIFFERS })
        })
    }

    fn lessons(&self, lab: &Lab, lessons: &[&'static Lesson], alternatives: &[Alternative]) -> Result<u8> {
        let mut seen = Vec::new();
        for lesson in lessons {
            let runs = if self.json {
                self.as_json(lab, lesson, alternatives)
            } else {
                self.as_text(lab, lesson, alternatives)
            };
            seen.push((*lesson, runs?));
        }
        if !self.json && seen.len() > 1 {
            output::print(&plain::summary(&seen))?;
        }
        if let Some(file) = &self.html {
            std::fs::write(file, page::page(&seen)).at("write", file)?;
        }
        if let Some(file) = &self.svg {
            std::fs::write(file, page::svg(&seen)).at("write", file)?;
        }
        Ok(seen.iter().flat_map(|(_, runs)| runs).map(verdict).max().unwrap_or(0))
    }

    fn as_json(&self, lab: &Lab, lesson: &Lesson, alternatives: &[Alternative]) -> Result<Vec<Run>> {
        let runs = lab.run(lesson, alternatives)?;
        for run in &runs {
            let line = serde_json::to_string(run).map_err(|error| Error::Failed(format!("write JSON: {error}")))?;
            output::print(&(line + "\n"))?;
        }
        Ok(runs)
    }

    fn as_text(&self, lab: &Lab, lesson: &Lesson, alternatives: &[Alternative]) -> Result<Vec<Run>> {
        output::print(&plain::before(lesson))?;
        if !self.yes && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let right = ask(lab, lesson)?;
            output::print(if right { "We will see: it runs now.\n" } else { "Let us see: it runs now.\n" })?;
        }
        let runs = match !self.plain && Screen::is_possible() {
            true => terminal::lesson::run(lab, lesson, alternatives, !self.yes)?,
            false => lab.run(lesson, alternatives)?,
        };
        output::print(&format!("\nWhat happened\n{}\n{}\n", plain::happened(&runs), plain::after(lesson)))?;
        Ok(runs)
    }
}

fn list() -> Result<()> {
    let rows: Vec<Vec<String>> = lesson::all()
        .iter()
        .map(|lesson| vec![lesson.number.to_string(), lesson.name.clone(), lesson.title.clone()])
        .collect();
    output::table(&["LESSON", "NAME", "WHAT IT SHOWS"], &rows)
}

fn exercises() -> Result<()> {
    let rows: Vec<Vec<String>> =
        exercise::all().iter().map(|exercise| vec![exercise.name.clone(), exercise.title.clone()]).collect();
    output::table(&["EXERCISE", "WHAT IS WRONG"], &rows)
}

/// Opens the exercise's files in the user's editor, and waits for it.
fn edit(folder: &Path, exercise: &Exercise) -> Result<()> {
    let named = ["VISUAL", "EDITOR"].iter().filter_map(std::env::var_os).find(|name| !name.is_empty());
    let editor = named.unwrap_or_else(|| "vi".into());
    let files = exercise.files.iter().map(|file| folder.join(&file.file));
    // An editor may be given with options: EDITOR="code --wait".
    let mut command = Command::new("sh");
    command.args(["-c", "exec $0 \"$@\""]).arg(&editor).args(files);
    let status = command.status().doing("start an editor")?;
    match status.success() {
        true => Ok(()),
        false => {
            Err(Error::Failed(format!("the editor {} ended with {status}; set EDITOR, or use --yes", editor.display())))
        }
    }
}

fn find(word: &str) -> Result<&'static Lesson> {
    lesson::find(word).ok_or_else(|| {
        let names: Vec<&str> = lesson::all().iter().map(|lesson| lesson.name.as_str()).collect();
        Error::Invalid(format!("there is no lesson {word:?}; there are 1 to {}: {}", names.len(), names.join(", ")))
    })
}

fn named(name: &str) -> Result<Alternative> {
    Alternative::named(name).ok_or_else(|| {
        let names: Vec<&str> = Alternative::ALL.iter().map(|alternative| alternative.name()).collect();
        Error::Invalid(format!("--alternative {name}: it is one of {}", names.join(", ")))
    })
}

/// The exit code that a run stands for.
fn verdict(run: &Run) -> u8 {
    match run.outcome {
        Outcome::Failed(_) => 1,
        _ if run.observations.iter().any(|observation| !observation.agrees) => DIFFERS,
        _ => 0,
    }
}

/// What the learner expects; whether that is right. An empty line is an answer too.
fn ask(lab: &Lab, lesson: &Lesson) -> Result<bool> {
    loop {
        output::print(&format!("Your choice (1 to {}, Enter to skip): ", lesson.choices.len()))?;
        std::io::Write::flush(&mut std::io::stdout()).doing("write to stdout")?;
        let stdin = std::io::stdin();
        // A signal must end the waiting, which a blocking read would not let it.
        while poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100u8)) == Ok(0) {
            lab.interrupt.check()?;
        }
        lab.interrupt.check()?;
        let mut line = String::new();
        if stdin.lock().read_line(&mut line).doing("read your choice")? == 0 || line.trim().is_empty() {
            return Ok(false);
        }
        let chosen = line.trim().parse::<usize>().ok().and_then(|number| lesson.choices.get(number.checked_sub(1)?));
        if let Some(choice) = chosen {
            return Ok(choice.is_right);
        }
    }
}
