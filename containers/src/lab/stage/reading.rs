//! What a stage reads while it waits: the tracepoints, the programs' output, and inception-init's event log.

use super::Stage;
use crate::{
    error::Result,
    lab::{recording::Kind, tracer::until_mark},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{self, Read},
    os::fd::AsFd,
};

impl Stage<'_> {
    pub(super) fn take_events(&mut self) {
        if let Some((_, receiver)) = &self.tracer {
            while let Ok(event) = receiver.try_recv() {
                self.picture.trace(event);
            }
        }
    }

    /// PID 1 has ended: takes its status and what is still to be read.
    pub(super) fn end(&mut self, now: u64) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let Some(status) = child.status()? else {
            self.child = Some(child);
            return Ok(());
        };
        (self.ended, self.status) = (now, Some(status));
        let pid = child.pid;
        self.child = Some(child);
        while self.output_is_open && self.can_read() {
            self.read_output();
        }
        self.read_events();
        if let Some((tracer, receiver)) = &self.tracer {
            let mark = format!("end of {pid}");
            tracer.mark(&mark);
            until_mark(receiver, &mark, |event| self.picture.trace(event));
        }
        self.picture.root_exits(pid, now);
        self.picture.look();
        self.picture.root_ended(pid, status);
        self.child = None;
        Ok(())
    }

    fn can_read(&self) -> bool {
        let Some(child) = &self.child else { return false };
        let mut wanted = [PollFd::new(child.output.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    pub(super) fn read_output(&mut self) {
        let Some(child) = &mut self.child else { return };
        let mut buffer = [0; 4096];
        match child.output.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal that nobody has open any more is an error.
            Ok(0) | Err(_) => self.output_is_open = false,
            Ok(length) => self.partial.extend_from_slice(&buffer[..length]),
        }
        let pid = child.pid;
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.picture.say(Kind::Output, pid, line.clone());
            self.lines.push(line);
        }
    }

    /// inception-init's event log.
    pub(super) fn read_events(&mut self) {
        let root = self.root();
        let Some(events) = self.child.as_mut().and_then(|child| child.events.as_mut()) else { return };
        let mut wanted = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            return;
        }
        let mut buffer = [0; 4096];
        let length = events.read(&mut buffer).unwrap_or(0);
        if length == 0 {
            // Closed at the init's exit.
            if let Some(child) = &mut self.child {
                child.events = None;
            }
            return;
        }
        self.events_partial.extend_from_slice(&buffer[..length]);
        while let Some(end) = self.events_partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.events_partial.drain(..=end).collect();
            if let Ok(event) = serde_json::from_slice::<serde_json::Value>(&line) {
                self.init_says(root, &event);
            }
        }
    }

    fn init_says(&mut self, root: i32, event: &serde_json::Value) {
        let number = |name: &str| event[name].as_i64().map(|number| number as i32);
        match (event["event"].as_str().unwrap_or_default(), number("pid")) {
            ("forwarded", Some(pid)) => self.picture.forwarded(root, pid, number("signal").unwrap_or(0)),
            ("reaped", Some(pid)) => self.picture.told_status(root, pid, number("code").unwrap_or(0)),
            // /proc shows these.
            ("started" | "adopted" | "exited", _) => {}
            (name, _) => self.picture.say(Kind::Note, root, format!("inception-init: {name}")),
        }
    }
}
