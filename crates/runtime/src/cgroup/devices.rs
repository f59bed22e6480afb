//! Device access on cgroup v2: an eBPF program attached to the container's cgroup.
//!
//! libcontainer would need libbpf for it. The program is short: the last rule that fits an access
//! decides, so rules are tested from the last to the first.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

const TYPE_BLOCK: i32 = 1;
const TYPE_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const ALL_ACCESS: i32 = ACCESS_MKNOD | ACCESS_READ | ACCESS_WRITE;

/// What every container may do besides: make nodes of any kind, and use its terminals and the usual
/// harmless devices; the OCI runtimes add the same.
const ALWAYS: &[(i32, Option<i32>, Option<i32>, i32)] = &[
    (TYPE_CHAR, None, None, ACCESS_MKNOD),
    (TYPE_BLOCK, None, None, ACCESS_MKNOD),
    (TYPE_CHAR, Some(1), Some(3), ALL_ACCESS),
    (TYPE_CHAR, Some(1), Some(8), ALL_ACCESS),
    (TYPE_CHAR, Some(1), Some(7), ALL_ACCESS),
    (TYPE_CHAR, Some(5), Some(0), ALL_ACCESS),
    (TYPE_CHAR, Some(1), Some(5), ALL_ACCESS),
    (TYPE_CHAR, Some(1), Some(9), ALL_ACCESS),
    (TYPE_CHAR, Some(136), None, ALL_ACCESS),
    (TYPE_CHAR, Some(5), Some(2), ALL_ACCESS),
];

/// The program for a spec's rules, as bytes of `struct bpf_insn`.
pub(crate) fn program(rules: &[LinuxDeviceCgroup]) -> Vec<u8> {
    let mut code = Code::default();
    code.prologue();
    for &(typ, major, minor, access) in ALWAYS {
        code.rule(&Rule {
            typ: Some(typ),
            major,
            minor,
            access,
            allow: true,
        });
    }
    for rule in rules.iter().rev().map(Rule::from_spec) {
        code.rule(&rule);
        if rule.fits_everything() {
            // What would come after it is never reached, and the kernel refuses such programs.
            return code.bytes;
        }
    }
    code.verdict(false);
    code.bytes
}

struct Rule {
    typ: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
    allow: bool,
}

impl Rule {
    fn fits_everything(&self) -> bool {
        self.access == ALL_ACCESS
            && self.typ.is_none()
            && self.major.is_none()
            && self.minor.is_none()
    }

    fn from_spec(rule: &LinuxDeviceCgroup) -> Self {
        let number = |value: Option<i64>| {
            value
                .filter(|&number| number >= 0)
                .map(|number| number as i32)
        };
        let access = rule
            .access()
            .as_deref()
            .unwrap_or("")
            .bytes()
            .fold(0, |mask, byte| {
                mask | match byte {
                    b'r' => ACCESS_READ,
                    b'w' => ACCESS_WRITE,
                    b'm' => ACCESS_MKNOD,
                    _ => 0,
                }
            });
        Self {
            typ: match rule.typ() {
                Some(LinuxDeviceType::B) => Some(TYPE_BLOCK),
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(TYPE_CHAR),
                _ => None,
            },
            major: number(rule.major()),
            minor: number(rule.minor()),
            access,
            allow: rule.allow(),
        }
    }
}

/// Registers: 2 type, 3 access, 4 major, 5 minor, 1 the context and then scratch.
#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
}

impl Code {
    fn emit(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
        self.bytes.push(code);
        self.bytes.push(if cfg!(target_endian = "little") {
            source << 4 | destination
        } else {
            destination << 4 | source
        });
        self.bytes.extend(offset.to_ne_bytes());
        self.bytes.extend(immediate.to_ne_bytes());
    }

    fn prologue(&mut self) {
        const LOAD_WORD: u8 = 0x61;
        self.emit(LOAD_WORD, 2, 1, 0, 0);
        self.emit(0x54, 2, 0, 0, 0xffff);
        self.emit(LOAD_WORD, 3, 1, 0, 0);
        self.emit(0x74, 3, 0, 0, 16);
        self.emit(LOAD_WORD, 4, 1, 4, 0);
        self.emit(LOAD_WORD, 5, 1, 8, 0);
    }

    /// A rule that grants decides when it covers all of what is asked, one that denies when it covers
    /// any of it.
    fn rule(&mut self, rule: &Rule) {
        const JUMP_NOT_EQUAL: u8 = 0x55;
        const JUMP_EQUAL: u8 = 0x15;
        const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
        if rule.access == 0 {
            return;
        }
        let whole = rule.access == ALL_ACCESS;
        let tests = [(2, rule.typ), (4, rule.major), (5, rule.minor)];
        let count = tests.iter().filter(|(_, value)| value.is_some()).count();
        // Each failed test goes past the rest of the rule; the verdict is two instructions.
        let mut left = count + if whole { 0 } else { 3 } + 2;
        for (register, value) in tests {
            if let Some(value) = value {
                left -= 1;
                self.emit(JUMP_NOT_EQUAL, register, 0, left as i16, value);
            }
        }
        if !whole {
            self.emit(0xbc, 1, 3, 0, 0);
            self.emit(0x54, 1, 0, 0, rule.access);
            if rule.allow {
                self.emit(JUMP_NOT_EQUAL_REGISTER, 1, 3, 2, 0);
            } else {
                self.emit(JUMP_EQUAL, 1, 0, 2, 0);
            }
        }
        self.verdict(rule.allow);
    }

    fn verdict(&mut self, allow: bool) {
        self.emit(0xb4, 0, 0, 0, i32::from(allow));
        self.emit(0x95, 0, 0, 0, 0);
    }
}
