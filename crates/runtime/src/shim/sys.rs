//! The few system calls that have no safe wrapper in the crates we use.
#![expect(
    unsafe_code,
    reason = "fork, exec, seccomp and allocator settings are unsafe by nature"
)]

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::{ForkResult, fork};

use crate::seccomp::Program;

/// Runs `child` in a new process, which ends with what it returns. Ours is a process of one thread, so
/// the child may do anything.
pub(super) fn fork_child(child: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the process has a single thread, so no lock can be held by a thread that the child lacks.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            let code = child();
            // SAFETY: ends the child without running what the parent registered for its own end.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Ends the process at once.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: nothing of the parent's is left to be finished in this process.
    unsafe { libc::_exit(code) }
}

/// Signals go back to how a fresh process has them: none blocked, none ignored. Rust ignores SIGPIPE,
/// and we block what the loop reads from a descriptor; neither must reach a container.
pub(super) fn default_signals() {
    // Past libc, which keeps two signals for itself and would leave them as we inherited them.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: all zeros is the kernel's `sigaction` for the default; the two signals that cannot be
        // set refuse.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8_usize,
            )
        };
    }
    let empty = nix::sys::signal::SigSet::empty();
    let _ = empty.thread_set_mask();
}

/// Closes everything from 3 on but `keep`.
pub(super) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter(|&&fd| fd > 2)
        .map(|&fd| fd as u32)
        .collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if first < fd {
            let last = if fd == u32::MAX { u32::MAX } else { fd - 1 };
            // SAFETY: only called in a fresh child that owns nothing behind these descriptors.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
        }
        first = fd.saturating_add(1);
    }
}

/// Takes ownership of a descriptor by number.
pub(super) fn take_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a descriptor that they just got and that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Standard input of this process, borrowed.
pub(super) fn stdin_fd() -> BorrowedFd<'static> {
    // SAFETY: descriptors 0 to 2 are open as long as the process lives.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Signals a process by number: real-time signals have no name in the crates.
pub(super) fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: has no memory effects.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // It has ended, and we shall hear of it.
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// Kills whatever a failed creation has left of our children.
pub(super) fn kill_children() {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for pid in list.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = send_signal(pid, libc::SIGKILL);
    }
}

/// Replaces standard input without closing the number.
pub(super) fn replace_stdin(with: &OwnedFd) -> io::Result<()> {
    // SAFETY: both numbers are open descriptors.
    match unsafe { libc::dup2(with.as_raw_fd(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Installs a filter on this process.
pub(super) fn install_seccomp(program: &Program) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let filter = libc::sock_fprog {
        len: program.instructions.len() as u16,
        filter: program
            .instructions
            .as_ptr()
            .cast::<libc::sock_filter>()
            .cast_mut(),
    };
    let install = |flags: u32| {
        // SAFETY: `Instruction` has the layout of `sock_filter`; the kernel copies the program.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const filter,
            )
        }
    };
    if install(program.flags) == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Kernels before 4.17 know no flags that are worth failing for.
    if error.raw_os_error() == Some(libc::EINVAL) && install(0) == 0 {
        return Ok(());
    }
    Err(error)
}

/// Becomes another program. Returns only the reason why not.
pub(super) fn execute(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    fn pointers(list: &[CString]) -> Vec<*const c_char> {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    }
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: null-terminated lists of null-terminated strings that live until the call returns.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Sets a terminal's size.
pub(super) fn set_window_size(terminal: &OwnedFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request reads one `winsize`.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Small processes want their freed memory back with the kernel, not in the allocator.
pub(super) fn frugal_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: called first thing in a process of one thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 8 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 0);
    }
}

pub(super) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of code and constants that were used so far: making a container takes far more of
/// them than waiting for its end. What is needed again comes back from the page cache.
pub(super) fn forget_code() {
    unsafe extern "C" fn forget(
        object: *mut libc::dl_phdr_info,
        _: usize,
        _: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the dynamic linker passes a valid object with that many program headers.
        let (base, headers) = unsafe {
            let object = &*object;
            let count = usize::from(object.dlpi_phnum);
            let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
            (object.dlpi_addr, headers)
        };
        for header in headers {
            // Segments that were never writable are the file's own pages. (The read-only part of a
            // writable one holds relocated pointers, which would be lost.)
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let start = (base + header.p_vaddr) as usize;
                let end = (start + header.p_memsz as usize) & !(PAGE - 1);
                let start = start & !(PAGE - 1);
                // SAFETY: private read-only file pages, which come back unchanged when touched.
                unsafe {
                    libc::madvise(
                        start as *mut libc::c_void,
                        end.saturating_sub(start),
                        libc::MADV_DONTNEED,
                    )
                };
            }
        }
        0
    }
    const PAGE: usize = 4096;
    // SAFETY: the callback fits the signature and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

/// Loads a device program and attaches it to a v2 cgroup.
pub(super) fn attach_device_program(instructions: &[u8], cgroup: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 12],
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let license = c"Apache";
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: (instructions.len() / 8) as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 12],
    };
    // SAFETY: the attributes point to memory that outlives the call and say how much there is.
    let program = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            size_of::<Load>(),
        )
    };
    if program < 0 {
        return Err(io::Error::last_os_error());
    }
    let program = take_fd(program as RawFd);
    let attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: as above.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attach,
            size_of::<Attach>(),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
