//! The containers of an engine on the screen, as one tree above one lane of events.

use super::{
    draw::{self, Panel, Scene},
    lane,
    player::Player,
    screen::{Input, Screen},
    scroll,
    tree::{self, Look, Show},
};
use crate::{
    error::Result,
    lab::{
        interrupt::Interrupt,
        recording::{Process, Source, State},
        watch::{Container, Watch},
    },
};
use ratatui::crossterm::event::KeyCode;
use std::{
    collections::HashMap,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

const KEYS: &str = "q quit   space pause   s speed   ←/→ step   End live   g gone ones   ↑/↓ scroll";

/// How often there is a new look and a new frame.
const FRAME: Duration = Duration::from_millis(50);

/// Shows the containers, at first these, then those that `news` tells of, until the person has seen enough.
pub fn run(
    first: Result<Vec<Container>>,
    news: &Receiver<Result<Vec<Container>>>,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut screen = Screen::open()?;
    let mut view =
        View { watch: Watch::start(true), player: Player::default(), with_gone: false, scroll: 0, trouble: None };
    view.take(first);
    view.player.jump(view.watch.now());
    let mut last = Instant::now();
    loop {
        news.try_iter().for_each(|news| view.take(news));
        view.watch.look();
        interrupt.check()?;
        let edge = view.watch.now();
        view.player.pass(last.elapsed(), edge);
        last = Instant::now();
        screen.draw(|frame| draw::draw(frame, &view.scene(frame.area().height)))?;
        match screen.input(FRAME)? {
            Input::Interrupt => interrupt.raise(libc::SIGINT),
            Input::Key(KeyCode::Char('q') | KeyCode::Esc) => return Ok(()),
            Input::Key(key) => view.key(key),
            Input::Nothing => {}
        }
    }
}

struct View {
    watch: Watch,
    player: Player,
    with_gone: bool,
    scroll: usize,
    /// What the engine said instead of its containers.
    trouble: Option<String>,
}

impl View {
    fn take(&mut self, news: Result<Vec<Container>>) {
        let (containers, trouble) = match news {
            Ok(containers) => (containers, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        self.trouble = trouble;
        self.watch.run_now(containers);
    }

    fn key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('g') => self.with_gone = !self.with_gone,
            key if scroll(&mut self.scroll, key) => {}
            key => {
                let times: Vec<u64> = self.watch.recording().events.iter().map(|event| event.at).collect();
                let edge = self.watch.now();
                self.player.key(key, &times, edge);
            }
        }
    }

    fn scene(&mut self, height: u16) -> Scene<'_> {
        let (at, edge) = (self.player.at(), self.watch.now());
        let tree = lines(&self.watch, at, Show { gone: self.with_gone, fold: true, of: &|_| true });
        self.scroll = self.scroll.min(tree.len().saturating_sub(1));
        let running = self.watch.containers().iter().filter(|container| self.watch.is_running(container)).count();
        let is_zombie = |process: &&Process| process.state(at) == Some(State::Zombie);
        let zombies = self.watch.recording().processes.iter().filter(is_zombie).count();
        let source = match self.watch.source() {
            Source::Tracepoints => format!("events by tracepoints, {} lost", self.watch.lost()),
            Source::Proc => "events by /proc, 20 looks a second".into(),
        };
        let head = format!("inception top: {running} containers, {zombies} zombies; {source}");
        let names: HashMap<&String, &String> =
            self.watch.containers().iter().map(|container| (&container.id, &container.name)).collect();
        let mut events = lane::lines(self.watch.recording(), at, usize::from(height), "outside");
        for event in &mut events {
            let container = event.pid.and_then(|pid| self.watch.container_of(pid)).and_then(|id| names.get(id));
            if let Some(name) = container {
                event.text = format!("{name}: {}", event.text);
            }
        }
        Scene {
            head,
            tabs: Vec::new(),
            selected: 0,
            panels: vec![Panel {
                title: "process[pid inside] pid outside".into(),
                about: self.trouble.iter().cloned().collect(),
                tree,
                events,
            }],
            first: 0,
            scroll: self.scroll,
            player: &self.player,
            edge,
            state: if self.player.is_playing() && edge - at < 500_000 { "live" } else { "behind: End is live" },
            keys: KEYS,
        }
    }
}

/// Projects, their services' containers, and these ones' processes.
fn lines(watch: &Watch, at: u64, show: Show) -> Vec<tree::Line> {
    let mut lines = Vec::new();
    let mut project = "";
    for container in watch.containers() {
        if container.project != project {
            project = &container.project;
            lines.push(tree::Line::heading(format!("project {project}"), ""));
        }
        let title = match container.service.is_empty() {
            true => container.name.clone(),
            false => format!("  {}: {}", container.service, container.name),
        };
        let ended = if watch.is_running(container) { "" } else { " ENDED" };
        lines.push(tree::Line::heading(title, format!("({}){ended}", container.image)));
        let of = |pid| watch.container_of(pid) == Some(&container.id);
        let mut own = tree::lines(watch.recording(), at, Show { of: &of, ..show });
        for line in &mut own {
            line.name.insert_str(0, "  ");
            let age = line.pid.filter(|_| line.look == Look::Alive).and_then(crate::lab::watch::age);
            if let Some(age) = age {
                let comma = if line.words.is_empty() { "" } else { ", " };
                line.words += &format!("{comma}up {}", up(age));
            }
        }
        lines.extend(own);
    }
    lines
}

/// `7 s`, `3 min`, `2 h`, `4 days`
fn up(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86400),
    }
}
