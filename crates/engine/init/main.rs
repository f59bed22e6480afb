//! `docker-init`: the first process of a container that was asked for one (`docker run --init`).
//!
//! It starts the command in a process group of its own, which gets the terminal, passes signals on
//! to it, collects the children of processes that are gone, and ends with the command's code.
//!
//! The build script compiles it without any library, because it has to run in every image; the
//! engine carries its bytes. It allocates nothing and costs a container three pages.
#![no_std]
#![no_main]
// No library is there to call, so loops must stay loops.
#![no_builtins]

use core::arch::{asm, global_asm};

/// Descriptor 2 is where a command that cannot be started is complained about.
const STDERR: usize = 2;
const ENOENT: isize = 2;
const ENOEXEC: isize = 8;
const EACCES: isize = 13;
const ENOTDIR: isize = 20;
const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
const WNOHANG: usize = 1;
const SET_MASK: usize = 2;
const TIOCSPGRP: usize = 0x5410;
/// Of a signal set, in the kernel's eyes.
const SET_SIZE: usize = 8;
const PATH_LIMIT: usize = 4096;

#[cfg(target_arch = "x86_64")]
mod call {
    pub const WRITE: usize = 1;
    pub const SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod call {
    pub const IOCTL: usize = 29;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const SETPGID: usize = 154;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

// The kernel leaves the arguments on the stack.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {run}",
    run = sym run
);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x0, sp", "bl {run}", run = sym run);

#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, args: [usize; 5]) -> isize {
    let result;
    // SAFETY: what the numbers and arguments do is for the callers to answer for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, args: [usize; 5]) -> isize {
    let result;
    // SAFETY: what the numbers and arguments do is for the callers to answer for.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            options(nostack)
        );
    }
    result
}

type Text = *const u8;
type Texts = *mut Text;

/// # Safety
/// `stack` is what the kernel passed: the number of arguments, they, a null, the environment, a null.
unsafe extern "C" fn run(stack: *mut usize) -> ! {
    // SAFETY: reads what the contract above says is there; the system calls get addresses of values
    // that outlive them.
    unsafe {
        let count = *stack;
        let args = stack.add(1).cast::<Text>();
        let env = args.add(count + 1);
        let mut first = 1;
        if first < count && is(*args.add(first), b"--\0") {
            first += 1;
        }
        if first >= count {
            complain(b"docker-init: no command given\n\0".as_ptr());
            exit(1);
        }
        // Faults of this process itself stay deadly.
        let all = !bits(&[4, 5, 6, 7, 8, 11, 31]);
        let mut before = 0_u64;
        syscall(
            call::SIGPROCMASK,
            [SET_MASK, &raw const all as usize, &raw mut before as usize, SET_SIZE, 0],
        );
        match syscall(call::CLONE, [SIGCHLD as usize, 0, 0, 0, 0]) {
            0 => become_command(args.add(first), env, before),
            child if child > 0 => exit(attend(child, all)),
            _ => {
                complain(b"docker-init: fork failed\n\0".as_ptr());
                exit(1)
            }
        }
    }
}

fn bits(signals: &[i32]) -> u64 {
    let mut set = 0;
    for signal in signals {
        set |= 1 << (signal - 1);
    }
    set
}

/// Passes signals on and collects children until the command has ended. Returns its code.
unsafe fn attend(child: isize, signals: u64) -> i32 {
    loop {
        // SAFETY: addresses of locals.
        let signal = unsafe {
            syscall(call::SIGTIMEDWAIT, [&raw const signals as usize, 0, 0, SET_SIZE, 0])
        } as i32;
        match signal {
            SIGCHLD => {
                // SAFETY: as this function's own.
                if let Some(code) = unsafe { collect(child) } {
                    return code;
                }
            }
            // The terminal's business with its background groups, not the command's.
            SIGTTIN | SIGTTOU => {}
            signal if signal > 0 => {
                // SAFETY: no memory is involved.
                unsafe { syscall(call::KILL, [child as usize, signal as usize, 0, 0, 0]) };
            }
            _ => {}
        }
    }
}

unsafe fn collect(child: isize) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0_i32;
        // SAFETY: the address of a local.
        let ended = unsafe {
            syscall(call::WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0, 0])
        };
        if ended <= 0 {
            return code;
        }
        if ended == child {
            let signal = status & 0x7f;
            code = Some(if signal == 0 { (status >> 8) & 0xff } else { 128 + signal });
        }
    }
}

unsafe fn become_command(args: Texts, env: Texts, signals: u64) -> ! {
    // SAFETY: the lists are the kernel's, null-terminated; other addresses are of locals.
    unsafe {
        syscall(call::SETPGID, [0; 5]);
        // Fails where there is no terminal. The signal it may cause is still blocked.
        let own = syscall(call::GETPID, [0; 5]) as i32;
        syscall(call::IOCTL, [0, TIOCSPGRP, &raw const own as usize, 0, 0]);
        syscall(call::SIGPROCMASK, [SET_MASK, &raw const signals as usize, 0, SET_SIZE, 0]);
        let name = *args;
        let error = search(name, args, env);
        let reason: &[u8] = match error {
            ENOENT => b"No such file or directory\n\0",
            EACCES => b"Permission denied\n\0",
            ENOEXEC => b"Exec format error\n\0",
            _ => b"it cannot be executed\n\0",
        };
        complain(b"docker-init: exec \0".as_ptr());
        complain(name);
        complain(b" failed: \0".as_ptr());
        complain(reason.as_ptr());
        exit(match error {
            ENOENT => 127,
            EACCES => 126,
            _ => 1,
        })
    }
}

/// `execvp`: returns only the reason why not.
unsafe fn search(name: Text, args: Texts, env: Texts) -> isize {
    // SAFETY: walks null-terminated lists and strings; the buffer is not overrun.
    unsafe {
        if contains(name, b'/') {
            return execute(name, args, env);
        }
        let mut path = path_variable(env);
        let mut buffer = [0_u8; PATH_LIMIT];
        let mut result = ENOENT;
        loop {
            let mut length = 0;
            while *path != 0 && *path != b':' {
                push(&mut buffer, &mut length, *path);
                path = path.add(1);
            }
            if length > 0 {
                push(&mut buffer, &mut length, b'/');
            }
            let mut letter = name;
            while *letter != 0 {
                push(&mut buffer, &mut length, *letter);
                letter = letter.add(1);
            }
            if length < PATH_LIMIT - 1 {
                push(&mut buffer, &mut length, 0);
                match execute(buffer.as_ptr(), args, env) {
                    ENOENT | ENOTDIR => {}
                    // Another directory may have one that may be run.
                    EACCES => result = EACCES,
                    other => return other,
                }
            }
            if *path == 0 {
                return result;
            }
            path = path.add(1);
        }
    }
}

fn push(buffer: &mut [u8; PATH_LIMIT], length: &mut usize, byte: u8) {
    if let Some(place) = buffer.get_mut(*length) {
        *place = byte;
        *length += 1;
    }
}

unsafe fn path_variable(mut env: Texts) -> Text {
    // SAFETY: a null-terminated list of strings.
    unsafe {
        while !(*env).is_null() {
            if starts_with(*env, b"PATH=") {
                return (*env).add(5);
            }
            env = env.add(1);
        }
    }
    b"/bin:/usr/bin\0".as_ptr()
}

unsafe fn execute(path: Text, args: Texts, env: Texts) -> isize {
    // SAFETY: null-terminated lists of null-terminated strings. Before the command's arguments is at
    // least this program's own name, whose place a shell's may take.
    unsafe {
        let error = -syscall(call::EXECVE, [path as usize, args as usize, env as usize, 0, 0]);
        if error != ENOEXEC {
            return error;
        }
        // A script without a first line that says whose.
        let with_shell = args.sub(1);
        let (before, name) = (*with_shell, *args);
        *with_shell = b"/bin/sh\0".as_ptr();
        *args = path;
        syscall(call::EXECVE, [*with_shell as usize, with_shell as usize, env as usize, 0, 0]);
        (*with_shell, *args) = (before, name);
        error
    }
}

unsafe fn is(text: Text, whole: &[u8]) -> bool {
    // SAFETY: `whole` ends with a null, so the comparison does not run past the text's.
    unsafe { starts_with(text, whole) }
}

unsafe fn starts_with(text: Text, start: &[u8]) -> bool {
    for (at, byte) in start.iter().enumerate() {
        // SAFETY: the first difference, at the latest the text's null, ends the loop.
        if unsafe { *text.add(at) } != *byte {
            return false;
        }
    }
    true
}

unsafe fn contains(mut text: Text, byte: u8) -> bool {
    // SAFETY: up to the text's null.
    unsafe {
        while *text != 0 {
            if *text == byte {
                return true;
            }
            text = text.add(1);
        }
    }
    false
}

unsafe fn complain(text: Text) {
    // SAFETY: a null-terminated string.
    unsafe {
        let mut length = 0;
        while *text.add(length) != 0 {
            length += 1;
        }
        syscall(call::WRITE, [STDERR, text as usize, length, 0, 0]);
    }
}

fn exit(code: i32) -> ! {
    loop {
        // SAFETY: does not return.
        unsafe { syscall(call::EXIT_GROUP, [code as usize, 0, 0, 0, 0]) };
    }
}

/// What the compiler calls to clear a buffer.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(start: *mut u8, byte: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: within what the caller says is there.
        unsafe { *start.add(at) = byte as u8 };
    }
    start
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}
