//! From a creator's result to the end of everything.

use std::time::Instant;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{
    Cgroup, Container, CreateCall, DRAIN_LIMIT, ExecCall, ExitStatus, FINISHED_EXECS, Failure,
    JobKind, OomWatch, Outcome, Process, ProcessKey, Reply, Role, STATE_FILE, ShimState,
    Supervisor, TEARDOWN_LIMIT, VERSION, clock, code_of, creator, stdio, sys,
};
use crate::request::AttachRequest;

impl Supervisor {
    /// Collects every child that has ended: processes, creators, orphans of the container.
    pub(super) fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => self.ended(status),
                Err(_) => {}
            }
        }
    }

    fn ended(&mut self, status: WaitStatus) {
        let (Some(pid), Some(code)) = (status.pid().map(Pid::as_raw), code_of(status)) else {
            return;
        };
        if let Some(log) = &mut self.log {
            log.reaped(pid);
        }
        match self
            .processes
            .iter()
            .position(|process| process.pid == pid && process.status.is_none())
        {
            Some(index) => self.process_ended(index, code),
            None if !self.jobs.is_empty() => self.unclaimed.push((pid, status)),
            None => {}
        }
    }

    fn process_ended(&mut self, index: usize, code: i32) {
        let container = self.processes[index].is_container();
        let mut status = ExitStatus {
            code,
            oom_killed: false,
            exited_at: clock::now_rfc3339(),
            log_lines_dropped: self.log.as_ref().map_or(0, |log| log.dropped),
        };
        if container {
            self.note_oom_kills();
            status.oom_killed = self
                .container
                .as_ref()
                .is_some_and(|container| container.oom_kills > 0);
            self.record(&status);
            if let Some(container) = &mut self.container {
                container.teardown = Some(Instant::now());
            }
        }
        let process = &mut self.processes[index];
        process.status = Some(status);
        process.drain_until = Some(Instant::now() + DRAIN_LIMIT);
        process.close_input();
    }

    /// On disk before anybody hears of it.
    fn record(&self, status: &ExitStatus) {
        let Some(container) = &self.container else {
            return;
        };
        let awaited = self
            .connections
            .iter()
            .any(|connection| matches!(connection.role, Role::Exit));
        if let Err(error) = status.write(&container.call.bundle, !awaited) {
            // Those who are connected will still be told; there is nowhere else to write it.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("cannot record the exit: {error}\n"),
            );
        }
    }

    /// A creator has something to say, or has died.
    pub(super) fn finish_job(&mut self, index: usize) {
        let received = creator::receive(&self.jobs[index].result);
        self.jobs[index].done = true;
        let job = &mut self.jobs[index];
        let ends = std::mem::take(&mut job.ends);
        let (outcome, terminal) = match received {
            Ok(Some(received)) => received,
            Ok(None) => (failed("it ended without a word"), None),
            Err(error) => (failed(&error.to_string()), None),
        };
        match outcome {
            Outcome::Made { pid } => {
                let ends = terminal.map_or(Ok(ends), stdio::terminal);
                match ends {
                    Ok(ends) => self.made(index, pid, ends),
                    Err(error) => {
                        let _ = sys::send_signal(pid, libc::SIGKILL);
                        self.not_made(index, 128, &error.to_string());
                    }
                }
            }
            Outcome::Failed { code, message } => self.not_made(index, code, &message),
        }
        if self.jobs.iter().all(|job| job.done) {
            self.unclaimed = Vec::new();
        }
    }

    fn not_made(&mut self, index: usize, code: i32, message: &str) {
        let asker = self.jobs[index].asker;
        let failure = Failure {
            code: Some(code),
            no_such_exec: false,
            message: message.to_owned(),
        };
        if let Some(at) = self.creation_asker(asker) {
            self.connections[at].finish(&Reply::Failed(failure));
        }
        if matches!(self.jobs[index].kind, JobKind::Container(_)) {
            self.listener = None;
            self.finished = true;
            sys::kill_children();
        }
    }

    fn creation_asker(&self, id: u64) -> Option<usize> {
        self.connections
            .iter()
            .position(|connection| connection.id == id && matches!(connection.role, Role::Creation))
    }

    fn made(&mut self, index: usize, pid: i32, ends: super::Ends) {
        let asker = self.jobs[index].asker;
        let kind = std::mem::replace(&mut self.jobs[index].kind, JobKind::Taken);
        let key = self.new_key();
        match kind {
            JobKind::Container(call) => self.container_made(asker, key, pid, ends, call),
            JobKind::Exec(call) => self.exec_made(asker, key, pid, ends, call),
            JobKind::Taken => return,
        }
        // It may have ended before its creator told us which one it is.
        let claimed = self.unclaimed.iter().position(|&(child, _)| child == pid);
        if let Some(at) = claimed {
            let (_, status) = self.unclaimed.remove(at);
            self.ended(status);
        }
    }

    fn container_made(
        &mut self,
        asker: u64,
        key: ProcessKey,
        pid: i32,
        ends: super::Ends,
        call: CreateCall,
    ) {
        let cgroup = Cgroup::of_process(pid, &call.cgroup_name).unwrap_or_default();
        let process = Process {
            key,
            exec: None,
            pid,
            ends,
            tty: call.stdio.tty,
            stdin_once: call.stdio.stdin_once,
            status: None,
            drain_until: None,
            complete: false,
        };
        if let Some((rows, columns)) = call.console_size {
            let _ = process.resize(rows, columns);
        }
        self.processes.push(process);
        let state = ShimState {
            version: VERSION,
            shim_pid: std::process::id() as i32,
            pid,
            bundle: call.bundle.clone(),
            cgroup: cgroup.clone(),
            runtime: call.runtime.clone(),
        };
        let written = serde_json::to_vec(&state)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(self.directory.join(STATE_FILE), bytes));
        let oom = OomWatch::new(&cgroup).ok();
        let reply = Reply::Created {
            pid,
            cgroup: cgroup.clone(),
        };
        self.container = Some(Container {
            call,
            cgroup,
            oom,
            oom_kills: 0,
            started: false,
            teardown: None,
            torn_down: false,
        });
        let at = self.creation_asker(asker);
        match (at, written) {
            (Some(at), Ok(())) => self.connections[at].finish(&reply),
            (Some(at), Err(error)) => {
                let text = format!("cannot write the container's state: {error}");
                self.connections[at].finish(&Reply::Failed(Failure::refused(text)));
                self.kill_container();
            }
            // The daemon has died meanwhile. It will find the container, or remove it.
            (None, _) => {}
        }
        self.busy = true;
    }

    fn exec_made(
        &mut self,
        asker: u64,
        key: ProcessKey,
        pid: i32,
        ends: super::Ends,
        call: ExecCall,
    ) {
        let process = Process {
            key,
            exec: Some(call.id),
            pid,
            ends,
            tty: call.tty,
            stdin_once: true,
            status: None,
            drain_until: None,
            complete: false,
        };
        if let Some((rows, columns)) = call.console_size {
            let _ = process.resize(rows, columns);
        }
        self.processes.push(process);
        if let Some(at) = self.creation_asker(asker) {
            let AttachRequest {
                stdin,
                stdout,
                stderr,
            } = call.streams;
            let wanted = AttachRequest {
                stdin,
                stdout: stdout || call.tty && stderr,
                stderr,
            };
            self.join(at, key, wanted, &Reply::Pid(pid));
        }
        self.busy = true;
    }

    pub(super) fn out_of_memory(&mut self) {
        if let Some(oom) = self
            .container
            .as_ref()
            .and_then(|container| container.oom.as_ref())
        {
            oom.acknowledge();
        }
        self.note_oom_kills();
        self.tell_oom();
    }

    fn note_oom_kills(&mut self) {
        if let Some(container) = &mut self.container {
            container.oom_kills = container.oom_kills.max(container.cgroup.oom_kills());
        }
    }

    pub(super) fn tell_oom(&mut self) {
        let count = self
            .container
            .as_ref()
            .map_or(0, |container| container.oom_kills);
        for connection in &mut self.connections {
            if matches!(connection.role, Role::Oom(seen) if count > seen) {
                connection.finish(&Reply::OomKills(count));
            }
        }
    }

    /// After each round: whatever has become possible by what happened, or by the time that passed.
    pub(super) fn advance(&mut self) {
        self.tear_down();
        let now = Instant::now();
        for index in 0..self.processes.len() {
            let process = &self.processes[index];
            if process.status.is_none() || process.complete {
                continue;
            }
            if process.drain_until.is_some_and(|until| until <= now) {
                self.abandon_outputs(index);
            }
            if self.processes[index].is_drained() {
                self.complete(index);
            }
        }
        self.forget_old_execs();
        self.end();
    }

    /// Ends what the first process left behind, and removes the cgroup.
    fn tear_down(&mut self) {
        let Some(container) = &mut self.container else {
            return;
        };
        let Some(since) = container.teardown.filter(|_| !container.torn_down) else {
            return;
        };
        // The watch holds the cgroup's file on v1.
        container.oom = None;
        container.torn_down = match container.cgroup.destroy_step() {
            Ok(done) => done || since.elapsed() > TEARDOWN_LIMIT,
            Err(_) => since.elapsed() > TEARDOWN_LIMIT,
        };
    }

    fn complete(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.complete = true;
        process.drain_until = None;
        let (key, status) = (process.key, process.status.clone());
        for connection in &mut self.connections {
            if let Some(attachment) = connection.attachment().filter(|a| a.process == key) {
                attachment.closing = true;
                connection.flush_output();
            }
        }
        for connection in &mut self.connections {
            if matches!(connection.role, Role::ExecExit(waited) if waited == key)
                && let Some(status) = &status
            {
                connection.finish(&Reply::Exited(status.clone()));
            }
        }
    }

    fn forget_old_execs(&mut self) {
        let finished = |process: &Process| process.complete && !process.is_container();
        let mut excess = self
            .processes
            .iter()
            .filter(|process| finished(process))
            .count()
            .saturating_sub(FINISHED_EXECS);
        self.processes.retain(|process| {
            let forget = excess > 0 && finished(process);
            excess -= usize::from(forget);
            !forget
        });
    }

    /// Once the container is over and nothing is left to do for it: traces first, then the news, so
    /// that whoever hears it may make a container of the same name at once.
    fn end(&mut self) {
        if !self
            .container
            .as_ref()
            .is_some_and(|container| container.torn_down)
        {
            return;
        }
        let everything_complete = self.processes.iter().all(|process| process.complete);
        if self.finished || !everything_complete || self.jobs.iter().any(|job| !job.done) {
            return;
        }
        if let Some(log) = &mut self.log {
            log.close();
        }
        let Some(mut status) = self
            .container_process()
            .and_then(|process| process.status.clone())
        else {
            return;
        };
        let dropped = self.log.as_ref().map_or(0, |log| log.dropped);
        if status.log_lines_dropped != dropped {
            status.log_lines_dropped = dropped;
            self.record(&status);
        }
        self.release_runtime();
        self.listener = None;
        let _ = std::fs::remove_dir_all(&self.directory);
        for connection in &mut self.connections {
            match connection.role {
                Role::Exit => connection.finish(&Reply::Exited(status.clone())),
                Role::Deleted => connection.finish(&Reply::Done),
                Role::Attached(_) => {}
                _ => connection.dead = true,
            }
        }
        self.finished = true;
    }

    /// An OCI runtime has a state of its own to remove.
    fn release_runtime(&self) {
        use crate::request::RuntimeKind;
        let Some(container) = &self.container else {
            return;
        };
        if let RuntimeKind::Oci { path, args } = &container.call.runtime {
            let client =
                crate::oci::OciClient::new(path, args, &self.directory, &container.call.id);
            client.delete_blocking();
        }
    }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed {
        code: 128,
        message: format!(
            "failed to create task for container: failed to create shim task: the process that makes containers failed: {reason}: unknown"
        ),
    }
}
