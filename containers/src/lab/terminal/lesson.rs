//! A lesson on the screen: its alternatives side by side, while they run and as often afterwards as one likes.

use super::{
    draw::{self, Panel, Scene, WIDTH},
    lane,
    player::Player,
    screen::{Input, Screen},
    scroll,
    tree::{self, Show},
};
use crate::{
    error::{Error, Result},
    lab::{
        Lab,
        alternative::Alternative,
        columns,
        lesson::Lesson,
        recording::{Outcome, Recording, Run, RunId, Source, Update},
    },
};
use ratatui::crossterm::event::KeyCode;
use std::{
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

const KEYS: &str = "q explanation   space pause   s speed   ←/→ step   r replay   Home/End   Tab, 1-9 choose   \
                    z one/all   g gone ones   ↑/↓ scroll";

/// How often there is a new frame.
const FRAME: Duration = Duration::from_millis(40);

/// Runs the lesson, shown as it goes; the runs, when the person has seen enough. Without `stay` it is over when the runs
/// are, unless a key was pressed.
pub fn run(lab: &Lab, lesson: &Lesson, alternatives: &[Alternative], stay: bool) -> Result<Vec<Run>> {
    let (sender, receiver) = channel();
    let watched = Lab { grace: lab.grace, watcher: &sender, interrupt: lab.interrupt.clone(), controls: lab.controls };
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || watched.run(lesson, alternatives));
        let mut view = View::new(lesson, alternatives);
        let shown = Screen::open().and_then(|screen| view.show(screen, &receiver, lab, stay, || runs.is_finished()));
        let runs = runs.join().unwrap_or_else(|_| Err(Error::Failed("the lab panicked; see above".into())));
        shown.and(runs)
    })
}

/// One alternative.
struct Lane {
    name: String,
    command: String,
    source: Option<Source>,
    recording: Recording,
    run: Option<Box<Run>>,
}

struct View {
    head: String,
    lanes: Vec<Lane>,
    selected: usize,
    alone: bool,
    with_gone: bool,
    scroll: usize,
    player: Player,
    /// Since the first run's start.
    began: Option<Instant>,
    touched: bool,
}

impl View {
    fn new(lesson: &Lesson, alternatives: &[Alternative]) -> View {
        let lane =
            |(name, _)| Lane { name, command: String::new(), source: None, recording: Recording::default(), run: None };
        View {
            head: format!("Lesson {}, {}: {}", lesson.number, lesson.name, lesson.title),
            lanes: columns(lesson, alternatives).into_iter().map(lane).collect(),
            selected: 0,
            alone: false,
            with_gone: false,
            scroll: 0,
            player: Player::default(),
            began: None,
            touched: false,
        }
    }

    fn show(
        &mut self,
        mut screen: Screen,
        news: &Receiver<(RunId, Update)>,
        lab: &Lab,
        stay: bool,
        has_ended: impl Fn() -> bool,
    ) -> Result<()> {
        let mut last = Instant::now();
        loop {
            // First the question, then the news: nothing comes after the end.
            let is_over = has_ended();
            for (id, update) in news.try_iter() {
                self.take(&id, update);
            }
            lab.interrupt.check()?;
            let edge = self.edge();
            self.player.pass(last.elapsed(), edge);
            last = Instant::now();
            let state = match (is_over, self.player.at() >= edge) {
                (false, _) => "live",
                (true, true) => "the end: r shows it again",
                (true, false) => "replay",
            };
            screen.draw(|frame| draw::draw(frame, &self.scene(frame.area().width, frame.area().height, state)))?;
            let failed = is_over && self.lanes.iter().all(|lane| lane.run.is_none());
            if failed || (is_over && !stay && !self.touched && self.player.at() >= edge) {
                return Ok(());
            }
            match screen.input(FRAME)? {
                Input::Interrupt => lab.interrupt.raise(libc::SIGINT),
                Input::Key(KeyCode::Char('q') | KeyCode::Enter | KeyCode::Esc) => return Ok(()),
                Input::Key(key) => self.key(key),
                Input::Nothing => {}
            }
        }
    }

    fn take(&mut self, id: &RunId, update: Update) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == id.alternative) else { return };
        lane.recording.apply(&update);
        // Runs begin a moment before their first news.
        let length = Duration::from_micros(lane.recording.length);
        let began = Instant::now().checked_sub(length).unwrap_or_else(Instant::now);
        self.began = Some(self.began.map_or(began, |known| known.min(began)));
        match update {
            Update::Started { command, source } => {
                (lane.command, lane.source) = (command, Some(source));
            }
            Update::Finished(run) => {
                lane.source = Some(run.source);
                lane.command.clone_from(&run.command);
                lane.run = Some(run);
            }
            Update::Process(_) | Update::Event(_) => {}
        }
    }

    /// As far as there is something to see.
    fn edge(&self) -> u64 {
        let recorded = self.lanes.iter().map(|lane| lane.recording.length).max().unwrap_or(0);
        match self.began {
            Some(began) if self.lanes.iter().any(|lane| lane.run.is_none()) => {
                recorded.max(began.elapsed().as_micros() as u64)
            }
            _ => recorded,
        }
    }

    fn key(&mut self, key: KeyCode) {
        self.touched = true;
        let count = self.lanes.len();
        match key {
            KeyCode::Tab => self.selected = (self.selected + 1) % count,
            KeyCode::BackTab => self.selected = (self.selected + count - 1) % count,
            KeyCode::Char(digit @ '1'..='9') => {
                let wanted = digit as usize - '1' as usize;
                self.selected = if wanted < count { wanted } else { self.selected };
            }
            KeyCode::Char('z') => self.alone = !self.alone,
            KeyCode::Char('g') => self.with_gone = !self.with_gone,
            key if scroll(&mut self.scroll, key) => {}
            key => {
                let events = &self.lanes[self.selected].recording.events;
                let times: Vec<u64> = events.iter().map(|event| event.at).collect();
                let edge = self.edge();
                self.player.key(key, &times, edge);
            }
        }
    }

    fn scene<'a>(&'a mut self, width: u16, height: u16, state: &'a str) -> Scene<'a> {
        let fit = if self.alone { 1 } else { usize::from(width.div_ceil(WIDTH + 2)).clamp(1, self.lanes.len()) };
        // Those beside the chosen one; the whole screen is used at both ends.
        let first = self.selected.saturating_sub(fit - 1).max(self.selected / fit * fit).min(self.lanes.len() - fit);
        let at = self.player.at();
        let panels: Vec<Panel> =
            self.lanes[first..first + fit].iter().map(|lane| lane.panel(at, self.with_gone, height)).collect();
        let longest = panels.iter().map(|panel| panel.tree.len()).max().unwrap_or(0);
        self.scroll = self.scroll.min(longest.saturating_sub(1));
        Scene {
            head: self.head.clone(),
            tabs: self.lanes.iter().map(|lane| (lane.name.clone(), lane.end())).collect(),
            selected: self.selected,
            panels,
            first,
            scroll: self.scroll,
            player: &self.player,
            edge: self.edge(),
            state,
            keys: KEYS,
        }
    }
}

impl Lane {
    /// How it ended.
    fn end(&self) -> String {
        match self.run.as_ref().map(|run| (&run.outcome, run.exit_status)) {
            None => "…".into(),
            Some((Outcome::Ran, status)) => status.map(|status| status.to_string()).unwrap_or_default(),
            Some(_) => "–".into(),
        }
    }

    fn panel(&self, at: u64, with_gone: bool, height: u16) -> Panel {
        let mut about = vec![self.command.clone()];
        match self.run.as_ref().map(|run| (&run.outcome, run.lost_events)) {
            Some((Outcome::NotInstalled(how), _)) => about = vec!["not installed; to get it:".into(), how.clone()],
            Some((Outcome::NotApplicable(why), _)) => about = vec!["not run:".into(), why.clone()],
            Some((Outcome::Failed(why), _)) => about.push(format!("could not be run: {why}")),
            Some((Outcome::Ran, lost)) if lost > 0 => about.push(format!("(!) {lost} events lost")),
            _ => {}
        }
        let source = match self.source {
            Some(Source::Tracepoints) => "seen by tracepoints",
            Some(Source::Proc) => "seen in /proc",
            None => "",
        };
        Panel {
            title: format!("{}  {source}", self.name),
            about,
            tree: tree::lines(&self.recording, at, Show { gone: with_gone, fold: true, of: &|_| true }),
            events: lane::lines(&self.recording, at, usize::from(height), "lab"),
        }
    }
}
