//! What happened, for `docker events`: the last 256 in memory for `--since`, and a channel for those who listen.

/// What an event is about.
pub use bollard_stubs::models::EventMessageTypeEnum as Kind;
use bollard_stubs::models::{EventActor, EventMessage, EventMessageScopeEnum};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};
use tokio::sync::broadcast;

/// Events kept for `--since`; as many as Docker keeps.
const KEPT: usize = 256;

/// The events of this engine.
pub struct Events {
    past: Mutex<VecDeque<EventMessage>>,
    sender: broadcast::Sender<EventMessage>,
}

impl Events {
    pub fn new() -> Events {
        Events { past: Mutex::default(), sender: broadcast::channel(KEPT).0 }
    }

    /// Tells that `action` happened to object `id`.
    pub fn emit(&self, kind: Kind, action: &str, id: &str, attributes: HashMap<String, String>) {
        let now = chrono::Utc::now();
        let event = EventMessage {
            typ: Some(kind),
            action: Some(action.into()),
            actor: Some(EventActor { id: Some(id.into()), attributes: Some(attributes) }),
            scope: Some(EventMessageScopeEnum::LOCAL),
            time: Some(now.timestamp()),
            time_nano: now.timestamp_nanos_opt(),
        };
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Sent under the lock, so that who subscribes sees each event once. Nobody listening is no failure.
        let _ = self.sender.send(event);
    }

    /// What is kept, and everything from now on, without a gap.
    pub fn subscribe(&self) -> (Vec<EventMessage>, broadcast::Receiver<EventMessage>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.iter().cloned().collect(), self.sender.subscribe())
    }
}
