//! What a compiled filter answers, by interpreting it as the kernel does.
#![cfg(target_arch = "x86_64")]

use super::compile::Program;
use super::*;
use crate::spec::{DEFAULT_CAPABILITIES, capability_bit};

const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn mask(capabilities: &[&str]) -> u64 {
    capabilities
        .iter()
        .map(|name| capability_bit(name).unwrap())
        .sum()
}

fn default_program(more: &[&str]) -> Program {
    let bounding = mask(&DEFAULT_CAPABILITIES) | mask(more);
    Program::compile(&default_profile::profile(), bounding).unwrap()
}

fn answer(program: &Program, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    data.extend(args.iter().flat_map(|arg| arg.to_ne_bytes()));
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let instruction = program.instructions[at];
        let operand = instruction.operand;
        let branch = |taken: bool| {
            usize::from(if taken {
                instruction.jump_true
            } else {
                instruction.jump_false
            })
        };
        at += 1;
        match instruction.code {
            0x20 => {
                let from = operand as usize;
                accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => accumulator &= operand,
            0x05 => at += operand as usize,
            0x15 => at += branch(accumulator == operand),
            0x25 => at += branch(accumulator > operand),
            0x35 => at += branch(accumulator >= operand),
            0x06 => return operand,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn native(program: &Program, number: i64, args: [u64; 6]) -> u32 {
    answer(program, X86_64, number as u32, args)
}

const NONE: [u64; 6] = [0; 6];

#[test]
fn ordinary_calls_pass_on_every_abi_and_dangerous_ones_do_not() {
    let program = default_program(&[]);
    for number in [
        libc::SYS_read,
        libc::SYS_execve,
        libc::SYS_futex,
        libc::SYS_openat,
    ] {
        assert_eq!(native(&program, number, NONE), ALLOW, "{number}");
    }
    for number in [
        libc::SYS_mount,
        libc::SYS_reboot,
        libc::SYS_keyctl,
        libc::SYS_bpf,
        libc::SYS_kexec_load,
    ] {
        assert_eq!(native(&program, number, NONE), EPERM, "{number}");
    }
    assert_eq!(answer(&program, I386, 3, NONE), ALLOW, "read, 32 bits");
    assert_eq!(answer(&program, I386, 21, NONE), EPERM, "mount, 32 bits");
    assert_eq!(
        answer(&program, X86_64, 0x4000_0000, NONE),
        ALLOW,
        "read, x32"
    );
    assert_eq!(
        answer(&program, X86_64, 0x4000_00a5, NONE),
        EPERM,
        "mount, x32"
    );
    assert_eq!(
        answer(&program, 0xC000_00B7, 63, NONE),
        0,
        "another machine's"
    );
}

#[test]
fn arguments_decide_where_the_profile_looks_at_them() {
    let program = default_program(&[]);
    let socket = |family: u64| native(&program, libc::SYS_socket, [family, 0, 0, 0, 0, 0]);
    assert_eq!((socket(2), socket(39), socket(41)), (ALLOW, ALLOW, ALLOW));
    assert_eq!(
        (socket(38), socket(40)),
        (EPERM, EPERM),
        "AF_ALG and AF_VSOCK"
    );
    assert_eq!(socket(0x1_0000_0026), ALLOW, "all 64 bits are compared");
    let clone = |flags: u64| native(&program, libc::SYS_clone, [flags, 0, 0, 0, 0, 0]);
    assert_eq!(clone(0x0001_1200), ALLOW);
    assert_eq!(clone(0x1000_0000), EPERM, "a new user namespace");
    let personality = |value: u64| native(&program, libc::SYS_personality, [value, 0, 0, 0, 0, 0]);
    assert_eq!((personality(8), personality(0x0004_0000)), (ALLOW, EPERM));
}

#[test]
fn calls_that_seem_not_to_exist_let_libraries_fall_back() {
    let program = default_program(&[]);
    assert_eq!(native(&program, libc::SYS_clone3, NONE), ENOSYS);
    assert_eq!(
        native(&program, 5000, NONE),
        ENOSYS,
        "newer than the profile"
    );
    assert_eq!(native(&program, 1000, NONE), ENOSYS);
}

#[test]
fn capabilities_open_what_belongs_to_them() {
    let program = default_program(&["CAP_SYS_ADMIN"]);
    assert_eq!(native(&program, libc::SYS_mount, NONE), ALLOW);
    assert_eq!(native(&program, libc::SYS_clone3, NONE), ALLOW);
    assert_eq!(
        native(&program, libc::SYS_clone, [0x1000_0000, 0, 0, 0, 0, 0]),
        ALLOW
    );
    assert_eq!(native(&program, libc::SYS_reboot, NONE), EPERM);
    let without = Program::compile(&default_profile::profile(), 0).unwrap();
    assert_eq!(native(&without, libc::SYS_chroot, NONE), EPERM);
}

#[test]
fn comparisons_of_custom_profiles_are_exact_to_the_edge() {
    for (operator, below, at, above) in [
        ("SCMP_CMP_LT", true, false, false),
        ("SCMP_CMP_LE", true, true, false),
        ("SCMP_CMP_EQ", false, true, false),
        ("SCMP_CMP_NE", true, false, true),
        ("SCMP_CMP_GE", false, true, true),
        ("SCMP_CMP_GT", false, false, true),
    ] {
        for value in [5_u64, 1 << 32, u64::from(u32::MAX), 7 << 33 | 9] {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["getpid"],"action":"SCMP_ACT_ALLOW","args":[{{"index":2,"value":{value},"op":"{operator}"}}]}}]}}"#
            );
            let profile = Profile::parse(&json).unwrap().unwrap();
            let program = Program::compile(&profile, 0).unwrap();
            let allowed = |argument: u64| {
                native(&program, libc::SYS_getpid, [9, 9, argument, 9, 9, 9]) == ALLOW
            };
            let found = (allowed(value - 1), allowed(value), allowed(value + 1));
            assert_eq!(found, (below, at, above), "{operator} {value}");
        }
    }
}

#[test]
fn dockers_json_is_understood_and_nonsense_is_not() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO","errnoRet":13,"args":null,"includes":{}},
                    {"names":["kill"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
    let profile = Profile::parse(json).unwrap().unwrap();
    let program = Program::compile(&profile, 0).unwrap();
    assert_eq!(native(&program, libc::SYS_chmod, NONE), 0x0005_000d);
    assert_eq!(native(&program, libc::SYS_kill, NONE), 0x8000_0000);
    assert_eq!(native(&program, libc::SYS_read, NONE), ALLOW);
    assert_eq!(
        native(&program, 9999, NONE),
        ALLOW,
        "allowed by default, known or not"
    );
    assert_eq!(
        answer(&program, I386, 3, NONE),
        0,
        "the profile names one architecture"
    );
    assert_eq!(
        answer(&program, X86_64, 0x4000_0000, NONE),
        0,
        "x32 is another"
    );
    assert!(matches!(
        SeccompProfile::parse("{}"),
        Ok(SeccompProfile::Unconfined)
    ));
    let error = SeccompProfile::parse("{").unwrap_err().to_string();
    assert!(
        error.starts_with("Decoding seccomp profile failed: "),
        "{error}"
    );
    let both = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#;
    assert!(SeccompProfile::parse(both).is_err());
    let bogus = r#"{"defaultAction":"SCMP_ACT_FLY","syscalls":[]}"#;
    assert!(SeccompProfile::parse(bogus).is_err());
}

#[test]
fn a_program_survives_the_disk() {
    let program = default_program(&[]);
    assert_eq!(Program::from_bytes(&program.to_bytes()).unwrap(), program);
    assert!(
        program.instructions.len() < 2000,
        "{}",
        program.instructions.len()
    );
    assert!(Program::from_bytes(&[1, 2, 3]).is_none());
}

#[test]
fn an_oci_runtime_gets_the_profile_with_its_conditions_resolved() {
    let oci = SeccompProfile::Default
        .to_oci(mask(&DEFAULT_CAPABILITIES))
        .unwrap()
        .unwrap();
    assert_eq!(oci.architectures().as_ref().unwrap().len(), 3);
    let names: Vec<&String> = oci
        .syscalls()
        .iter()
        .flatten()
        .flat_map(oci_spec::runtime::LinuxSyscall::names)
        .collect();
    assert!(
        names.iter().any(|name| *name == "chroot") && !names.iter().any(|name| *name == "mount")
    );
    assert!(SeccompProfile::Unconfined.to_oci(0).unwrap().is_none());
}
