//! A RUN's output on its way to the client, and its last lines for the error message.

use super::{Progress, voice::Voice};
use std::collections::VecDeque;

/// Lines that an error shows, and how much of each.
const LINES: usize = 12;
const LINE_BYTES: usize = 400;

/// Takes bytes as they come and hands on text: a character cut in two waits for its end.
pub struct Output {
    voice: Voice,
    quiet: bool,
    /// The beginning of a character.
    cut: Vec<u8>,
    lines: VecDeque<String>,
    /// The last line is not ended.
    open: bool,
}

impl Output {
    pub fn new(voice: Voice, quiet: bool) -> Output {
        Output { voice, quiet, cut: Vec::new(), lines: VecDeque::new(), open: false }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.cut.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.cut) {
            Ok(text) => text.len(),
            // Four bytes are the longest character: more than that at the end is none.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.cut.len(),
        };
        let rest = self.cut.split_off(whole);
        let text = String::from_utf8_lossy(&std::mem::replace(&mut self.cut, rest)).into_owned();
        self.text(text).await;
    }

    /// What is left of a cut character is shown all the same.
    pub async fn end(&mut self) {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.cut)).into_owned();
        self.text(text).await;
    }

    async fn text(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        for piece in text.split_inclusive('\n') {
            if !self.open {
                self.lines.push_back(String::new());
                if self.lines.len() > LINES {
                    self.lines.pop_front();
                }
            }
            self.open = !piece.ends_with('\n');
            if let Some(line) = self.lines.back_mut() {
                let room = LINE_BYTES.saturating_sub(line.len());
                line.extend(piece.char_indices().take_while(|(at, _)| *at < room).map(|(_, character)| character));
            }
        }
        if !self.quiet {
            self.voice.send(Progress::Stream { stream: text }).await;
        }
    }

    /// The last lines, to go behind a message; empty where there was no output.
    pub fn tail(&self) -> String {
        let lines: String = self
            .lines
            .iter()
            .filter(|line| !line.trim().is_empty())
            .map(|line| format!("\n  {}", line.trim_end()))
            .collect();
        if lines.is_empty() { lines } else { format!("; its last output:{lines}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::voice::{conduct, voice};

    #[tokio::test]
    async fn characters_stay_whole_and_the_last_lines_are_kept() {
        let (voice, listener) = voice();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(99);
        let mut output = Output::new(voice, false);
        output.write("a\nü".as_bytes().split_at(3).0).await;
        output.write(&"ü".as_bytes()[1..]).await;
        output.write(b"\xff\n").await;
        for number in 0..20 {
            output.write(format!("line {number}\n").as_bytes()).await;
        }
        output.end().await;
        let tail = output.tail();
        drop(output);
        conduct(vec![listener], &sender, &Default::default()).await;
        let mut all = String::new();
        while let Ok(Progress::Stream { stream }) = receiver.try_recv() {
            all.push_str(&stream);
        }
        assert!(all.starts_with("a\nü\u{fffd}\nline 0\n"), "{all}");
        assert!(tail.starts_with("; its last output:\n  line 8\n") && tail.ends_with("\n  line 19"), "{tail}");
    }
}
