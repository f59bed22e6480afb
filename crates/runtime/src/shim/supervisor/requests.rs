//! What clients ask for.

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::{
    Attachment, Call, Connection, Context, CreateCall, Ends, ExecCall, Failure, Job, JobKind,
    Reply, Request, Role, StatusReply, Supervisor, Task, VERSION, Wanted, creator, stdio,
};
use crate::cgroup::CgroupVersion;
use crate::request::{AttachRequest, RuntimeKind};
use crate::shim::log::ContainerLog;

impl Supervisor {
    pub(super) fn serve(&mut self, at: usize, events: PollFlags) {
        match &self.connections[at].role {
            Role::Asking(_) => {
                if let Some(request) = self.connections[at].read_request() {
                    self.answer(at, request);
                }
            }
            Role::Attached(_) => self.serve_attached(at, events),
            _ => {
                // It only waits; anything that happens on it is its end.
                if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
                    self.connections[at].dead = true;
                }
            }
        }
    }

    fn answer(&mut self, at: usize, request: Request) {
        if request.version > VERSION {
            let text = format!("this shim speaks version {VERSION} of the protocol");
            return self.refuse(at, text);
        }
        match request.call {
            Call::Create(call) => self.create(at, call),
            Call::Start => self.start(at),
            Call::Kill { signal } => self.signal(at, signal),
            Call::Resize {
                exec,
                rows,
                columns,
            } => self.resize(at, exec.as_deref(), rows, columns),
            Call::Attach(wanted) => self.attach(at, wanted),
            Call::CloseStdin => {
                if let Some(process) = self.container_process() {
                    process.close_input();
                }
                self.connections[at].finish(&Reply::Done);
            }
            Call::Wait => self.connections[at].role = Role::Exit,
            Call::WaitOom { seen } => {
                self.connections[at].role = Role::Oom(seen);
                self.tell_oom();
            }
            Call::Exec(call) => self.exec(at, call),
            Call::ExecWait { id } => self.exec_wait(at, &id),
            Call::Status => self.status(at),
            Call::Delete => {
                self.connections[at].role = Role::Deleted;
                self.kill_container();
            }
        }
    }

    fn refuse(&mut self, at: usize, message: impl Into<String>) {
        self.connections[at].finish(&Reply::Failed(Failure::refused(message)));
    }

    fn done_or_refuse(&mut self, at: usize, result: Result<(), String>) {
        match result {
            Ok(()) => self.connections[at].finish(&Reply::Done),
            Err(text) => self.refuse(at, text),
        }
    }

    fn create(&mut self, at: usize, call: CreateCall) {
        if self.container.is_some() || !self.jobs.is_empty() {
            return self.refuse(at, "this shim has its container already");
        }
        match ContainerLog::open(&call.log) {
            Ok(log) => self.log = Some(log),
            Err(error) => {
                let text = format!("failed to initialize logging driver: {error}");
                return self.refuse(at, text);
            }
        }
        let wanted = Wanted {
            stdin: call.stdio.open_stdin,
            stdout: true,
            stderr: true,
        };
        let task = Task::Container(&call);
        match self.launch(&task, wanted, call.uid, call.gid) {
            Ok((result, ends)) => {
                let asker = self.connections[at].id;
                let kind = JobKind::Container(call);
                self.connections[at].role = Role::Creation;
                self.jobs.push(Job {
                    result,
                    asker,
                    ends,
                    kind,
                    done: false,
                });
            }
            Err(error) => self.refuse(at, format!("cannot make the container: {error}")),
        }
    }

    fn exec(&mut self, at: usize, call: ExecCall) {
        let running = self
            .container_process()
            .is_some_and(|process| process.status.is_none());
        let Some(container) = self
            .container
            .as_ref()
            .filter(|container| running && container.started)
        else {
            return self.refuse(at, "the container is not running");
        };
        if self
            .processes
            .iter()
            .any(|process| process.exec.as_ref() == Some(&call.id))
        {
            return self.refuse(at, format!("exec {} exists already", call.id));
        }
        let AttachRequest {
            stdin,
            stdout,
            stderr,
        } = call.streams;
        let wanted = Wanted {
            stdin,
            stdout,
            stderr,
        };
        let context = Context {
            id: &container.call.id,
            runtime: &container.call.runtime,
        };
        let task = Task::Exec {
            call: &call,
            container: context,
        };
        match self.launch(&task, wanted, call.uid, call.gid) {
            Ok((result, ends)) => {
                let asker = self.connections[at].id;
                self.connections[at].role = Role::Creation;
                let kind = JobKind::Exec(call);
                self.jobs.push(Job {
                    result,
                    asker,
                    ends,
                    kind,
                    done: false,
                });
            }
            Err(error) => self.refuse(at, format!("cannot start a process: {error}")),
        }
    }

    /// Pipes and a creator; a terminal comes back from the container with the result.
    fn launch(
        &self,
        task: &Task<'_>,
        wanted: Wanted,
        uid: u32,
        gid: u32,
    ) -> std::io::Result<(std::os::fd::OwnedFd, Ends)> {
        let (ends, child) = if task.tty() {
            (Ends::default(), None)
        } else {
            let (ends, child) = stdio::pipes(wanted, uid, gid)?;
            (ends, Some(child))
        };
        let result = creator::start(&self.directory, task, child)?;
        Ok((result, ends))
    }

    /// Lets the program run. With an OCI runtime the daemon has called it; this only takes note.
    fn start(&mut self, at: usize) {
        let Some(container) = &mut self.container else {
            return self.refuse(at, "there is no container");
        };
        if container.started {
            return self.refuse(at, "the container is started already");
        }
        let result = match container.call.runtime {
            RuntimeKind::Oci { .. } => Ok(()),
            RuntimeKind::Builtin => {
                let notify = self.directory.join("oci").join(&container.call.id);
                notify_start(&notify)
                    .map_err(|error| format!("cannot start the container: {error}"))
            }
        };
        container.started = result.is_ok();
        self.done_or_refuse(at, result);
    }

    fn signal(&mut self, at: usize, signal: i32) {
        let result = match self.container_process() {
            Some(process) if process.status.is_none() => {
                // By number, for real-time signals have no name. The process is our child and not
                // reaped, so the pid is still its own.
                crate::shim::sys::send_signal(process.pid, signal).map_err(|error| {
                    match error.raw_os_error() {
                        Some(libc::EINVAL) => format!("invalid signal {signal}"),
                        _ => error.to_string(),
                    }
                })
            }
            _ => Ok(()),
        };
        if signal == libc::SIGKILL {
            self.thaw_for_death();
        }
        self.done_or_refuse(at, result);
    }

    /// On v1 the frozen cannot die; on v2 the kernel sees to it.
    fn thaw_for_death(&self) {
        if let Some(container) = &self.container
            && container.cgroup.version == CgroupVersion::V1
        {
            let _ = container.cgroup.start_thaw();
        }
    }

    pub(super) fn kill_container(&mut self) {
        if let Some(process) = self.container_process()
            && process.status.is_none()
        {
            let pid = Pid::from_raw(process.pid);
            if matches!(
                kill(pid, nix::sys::signal::Signal::SIGKILL),
                Err(Errno::ESRCH) | Ok(())
            ) {
                self.thaw_for_death();
            }
        }
    }

    fn resize(&mut self, at: usize, exec: Option<&str>, rows: u16, columns: u16) {
        let found = self
            .processes
            .iter()
            .find(|process| process.exec.as_deref() == exec);
        let result = match found {
            Some(process) => process
                .resize(rows, columns)
                .map_err(|error| format!("cannot resize: {error}")),
            None => Err("no such process".to_owned()),
        };
        self.done_or_refuse(at, result);
    }

    fn attach(&mut self, at: usize, wanted: AttachRequest) {
        let Some(key) = self.container_process().map(|process| process.key) else {
            return self.refuse(at, "there is no container");
        };
        self.join(at, key, wanted, &Reply::Done);
    }

    /// Turns a connection into a client of a process.
    pub(super) fn join(
        &mut self,
        at: usize,
        process: super::ProcessKey,
        wanted: AttachRequest,
        reply: &Reply,
    ) {
        let over = self.process(process).is_none_or(|process| process.complete);
        let connection: &mut Connection = &mut self.connections[at];
        connection.reply(reply);
        connection.role = Role::Attached(Attachment {
            process,
            wanted,
            output: Vec::new(),
            input: Vec::new(),
            input_ended: false,
            closing: over,
        });
        connection.flush_output();
    }

    fn exec_wait(&mut self, at: usize, id: &str) {
        let found = self
            .processes
            .iter()
            .position(|process| process.exec.as_deref() == Some(id));
        let Some(index) = found else {
            let failure = Failure {
                no_such_exec: true,
                ..Failure::refused(id)
            };
            return self.connections[at].finish(&Reply::Failed(failure));
        };
        let process = &self.processes[index];
        if let (true, Some(status)) = (process.complete, process.status.clone()) {
            return self.connections[at].finish(&Reply::Exited(status));
        }
        self.connections[at].role = Role::ExecExit(process.key);
    }

    fn status(&mut self, at: usize) {
        let pid = self.container_process().map_or(0, |process| process.pid);
        let dropped = self.log.as_ref().map_or(0, |log| log.dropped);
        let Some(container) = &self.container else {
            return self.refuse(at, "there is no container yet");
        };
        let reply = Reply::Status(StatusReply {
            pid,
            started: container.started,
            runtime: container.call.runtime.clone(),
            cgroup: container.cgroup.clone(),
            oom_kills: container.cgroup.oom_kills(),
            log_lines_dropped: dropped,
        });
        self.connections[at].finish(&reply);
    }
}

/// libcontainer's sign to the waiting process.
fn notify_start(directory: &std::path::Path) -> std::io::Result<()> {
    let handle = std::fs::File::open(directory)?;
    let short = format!("/proc/self/fd/{}/notify.sock", handle.as_raw_fd());
    UnixStream::connect(short)?.write_all(b"start container")
}
