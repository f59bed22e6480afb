//! Feeds the core with what is queued and with ticks of the clock.

use super::Command;
use super::core::Core;
use crate::Ticks;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

/// Commands taken into one round at most, so that a flood does not keep followers waiting.
const ROUND: usize = 4096;

/// A member at work. [`crate::RaftNode::start`] gives it a thread; a simulation holds it itself and
/// decides when it runs. Dropped, the member stops where it is, as in a crash.
pub struct Driver {
    core: Core,
    queue: Receiver<Command>,
    ticks: Ticks,
    next_tick: Option<Instant>,
}

impl Driver {
    pub(super) fn new(core: Core, queue: Receiver<Command>, ticks: Ticks) -> Self {
        Self {
            core,
            queue,
            ticks,
            next_tick: None,
        }
    }

    /// Works off what is queued, without waiting. False: the member has stopped, and why can be asked
    /// of its handle. Answers may wake others, who may queue more.
    pub fn turn(&mut self) -> bool {
        let queued: Vec<Command> = self.queue.try_iter().take(ROUND).collect();
        self.core.work(queued)
    }

    /// Until told to stop, or everyone who could tell is gone.
    pub(super) fn run(mut self) {
        let mut alive = self.core.work([]);
        while alive && let Some(first) = self.next() {
            let more: Vec<Command> = self.queue.try_iter().take(ROUND).collect();
            alive = self.core.work(std::iter::once(first).chain(more));
        }
        self.core.halt();
    }

    /// The next command; ticks come from the clock in between. A lone leader has nobody to hear
    /// from, so it sleeps until there is work.
    fn next(&mut self) -> Option<Command> {
        let period = match self.ticks {
            Ticks::Every(_) if !self.core.leads_alone() => self.core.pace(),
            _ => {
                self.next_tick = None;
                return self.queue.recv().ok();
            }
        };
        let now = Instant::now();
        let at = *self.next_tick.get_or_insert(now + period);
        match self.queue.recv_timeout(at.saturating_duration_since(now)) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                // After a pause (a suspended machine) one tick, not one for each that was missed.
                self.next_tick = Some((at + period).max(now));
                Some(Command::Tick)
            }
        }
    }
}
