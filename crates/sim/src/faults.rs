//! What goes wrong, and what people do meanwhile: one thing at a time, several at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use skep_ca::SecretKey;
use skep_proto::RaftMember;
use skep_raft::IfNew;

use crate::disk::Ending;
use crate::manager::raft_member;
use crate::network::{MILLIS, SECONDS};
use crate::world::World;

/// So many managers at most, those that have left not counted.
const MOST: usize = 7;

impl World {
    pub(crate) fn do_something_bad(&mut self) {
        let mut running = self.running();
        running.shuffle(&mut self.rng);
        let Some(&victim) = running.first() else {
            return;
        };
        match self.rng.random_range(0..20) {
            0 | 1 => self.crash(victim, Ending::Kill),
            2 | 3 => self.crash(victim, Ending::PowerCut),
            4 | 5 => self.die_in_the_middle(victim),
            6 => self.part_in_two(&running),
            7 => self.cut_off(victim, &running),
            8 => self.lose_messages(&running),
            9 => self.slow_down(&running),
            10 | 11 => {
                self.note(|| "the network is repaired".to_owned());
                self.network.heal();
            }
            12 => self.stand_still(victim),
            13 => self.turn_the_clock(victim),
            14 => self.hand_over(victim),
            15 => self.compact_or_rotate(victim),
            16 | 17 => self.join_member(true),
            18 => self.remove_member(victim),
            _ => self.network.disorder = self.rng.random_range(0.0..0.3),
        }
    }

    fn die_in_the_middle(&mut self, victim: u64) {
        let operations = self.rng.random_range(0..12);
        self.note(|| {
            format!("manager {victim} dies after {operations} more operations of its disk")
        });
        if let Some(manager) = self.managers.get(&victim) {
            manager.disk.die_after(operations);
        }
    }

    fn part_in_two(&mut self, running: &[u64]) {
        let at = self.rng.random_range(0..running.len());
        let (one, other) = running.split_at(at);
        self.note(|| format!("{one:?} and {other:?} are parted"));
        self.network.part(one, other);
    }

    /// One direction only: it still hears the others, or they it.
    fn cut_off(&mut self, victim: u64, running: &[u64]) {
        let hears = self.rng.random_bool(0.5);
        self.note(|| format!("manager {victim} is cut off, hears: {hears}"));
        for &other in running {
            let link = if hears {
                (victim, other)
            } else {
                (other, victim)
            };
            self.network.cut.insert(link);
        }
    }

    fn lose_messages(&mut self, running: &[u64]) {
        for &from in running {
            for &to in running {
                let loss = self.rng.random_range(0.0..0.9);
                if self.rng.random_bool(0.4) {
                    self.network.loss.insert((from, to), loss);
                }
            }
        }
        self.note(|| format!("losses {:?}", self.network.loss));
    }

    fn slow_down(&mut self, running: &[u64]) {
        for &from in running {
            for &to in running {
                let delay = self.rng.random_range(0..400 * MILLIS);
                if self.rng.random_bool(0.4) {
                    self.network.delay.insert((from, to), delay);
                }
            }
        }
    }

    fn stand_still(&mut self, victim: u64) {
        let span = self.rng.random_range(50 * MILLIS..3 * SECONDS);
        let until = self.now + span;
        self.note(|| format!("manager {victim} stands still for {} ms", span / MILLIS));
        if let Some(manager) = self.managers.get_mut(&victim) {
            manager.busy_until = until;
        }
    }

    fn turn_the_clock(&mut self, victim: u64) {
        let error = self
            .rng
            .random_range(-3_600_000_000_000..3_600_000_000_000_i64);
        let tick = self.rng.random_range(40 * MILLIS..160 * MILLIS);
        self.note(|| {
            format!("manager {victim} has the time wrong by {error} ns, ticks in {tick} us")
        });
        if let Some(manager) = self.managers.get_mut(&victim) {
            manager.clock_error.store(error, Ordering::Relaxed);
            manager.tick = tick;
        }
    }

    fn hand_over(&mut self, to: u64) {
        let Some(leader) = self.some_leader() else {
            return;
        };
        self.note(|| format!("manager {leader} hands over to {to}"));
        if let Some(node) = self.node(leader) {
            node.transfer_leadership(to);
        }
    }

    fn compact_or_rotate(&mut self, victim: u64) {
        let Some(node) = self.node(victim).cloned() else {
            return;
        };
        if self.rng.random_bool(0.5) {
            tokio::spawn(async move { node.compact().await.is_ok() });
            return;
        }
        let Some(manager) = self.managers.get(&victim) else {
            return;
        };
        let keys = manager.keys();
        let drawn: [u8; SecretKey::LENGTH] = self.rng.random();
        let mut known = keys.lock();
        // As a node does: an unfinished rotation is finished before another one begins.
        let new = known
            .pending
            .get_or_insert_with(|| {
                SecretKey::from_slice(&drawn).expect("a key of the right length")
            })
            .clone();
        drop(known);
        self.note(|| format!("manager {victim} gets another key"));
        tokio::spawn(async move {
            if node.rotate_dek(new.clone()).await.is_ok() {
                let mut keys = keys.lock();
                keys.current = new;
                keys.pending = None;
            }
        });
    }

    /// A new machine joins through whoever leads.
    pub(crate) fn join_member(&mut self, only_if_few: bool) {
        let present = self.managers.values().filter(|m| !m.left).count();
        let Some(leader) = self.some_leader() else {
            return;
        };
        if (only_if_few && present >= MOST) || self.changing.swap(true, Ordering::Relaxed) {
            return;
        }
        let Some(node) = self.node(leader).cloned() else {
            return;
        };
        // The answer may get lost; whoever joins asks again and is given the same id.
        let members: Vec<RaftMember> = node.members().borrow().iter().cloned().collect();
        let raft_id = self.next_id;
        self.note(|| format!("manager {raft_id} joins"));
        self.add_manager(IfNew::Join { raft_id, members });
        let changing = Arc::clone(&self.changing);
        tokio::spawn(async move {
            let _ = node.add_member(raft_member(raft_id)).await;
            changing.store(false, Ordering::Relaxed);
        });
    }

    fn remove_member(&mut self, victim: u64) {
        let Some(leader) = self.some_leader() else {
            return;
        };
        let Some(node) = self.node(leader).cloned() else {
            return;
        };
        // The rule of `RaftMember::can_remove`: those who remain and live are a majority.
        let members = node.members().borrow().clone();
        let others = || members.iter().filter(|m| m.raft_id != victim);
        let live = others().filter(|m| self.node(m.raft_id).is_some()).count();
        if others().count() < 2 || live <= others().count() / 2 {
            return;
        }
        if self.changing.swap(true, Ordering::Relaxed) {
            return;
        }
        self.note(|| format!("manager {victim} is removed"));
        let changing = Arc::clone(&self.changing);
        tokio::spawn(async move {
            let _ = node.remove_member(victim).await;
            changing.store(false, Ordering::Relaxed);
        });
    }
}
