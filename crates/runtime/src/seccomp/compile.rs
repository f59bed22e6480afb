//! From rules to the kernel's classic BPF.
//!
//! One program for all ABIs: the audit architecture picks a part, in it a binary search over ranges of
//! call numbers that share a verdict finds the leaf. Jumps over more than one instruction are always
//! the unconditional ones, whose distance is not limited to 255.

use std::collections::BTreeMap;

use super::SeccompError;
use super::profile::{Action, ArgumentRule, Operator, Profile, Rule};
use super::tables::{ABIS, Abi};

/// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x0005_0000;
/// The kernel takes no longer programs.
const MAX_INSTRUCTIONS: usize = 4096;

const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;

/// One instruction as the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub operand: u32,
}

/// A compiled filter and the flags to install it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub flags: u32,
    pub instructions: Vec<Instruction>,
}

impl Program {
    /// Compiles a profile for a process with these capabilities in its bounding set.
    pub(super) fn compile(profile: &Profile, bounding: u64) -> Result<Self, SeccompError> {
        let rules = profile.rules_for(bounding);
        let default = verdict(profile.default_action, profile.default_errno)?;
        let wanted = profile.architectures();
        let abis: Vec<&Abi> = ABIS
            .iter()
            .filter(|abi| wanted.contains(&abi.name))
            .collect();
        let mut assembler = Assembler::default();
        assembler.emit(LOAD, ARCHITECTURE);
        let audits: std::collections::BTreeSet<u32> = abis.iter().map(|abi| abi.audit).collect();
        for audit in audits {
            let next = assembler.label();
            assembler.unless_equal(audit, next);
            assembler.emit(LOAD, NUMBER);
            let mut calls = CallTable::default();
            for abi in abis.iter().filter(|abi| abi.audit == audit) {
                calls.add(abi, &rules, default, profile.default_action)?;
            }
            calls.refuse_missing_x32(audit, &abis);
            search(&mut assembler, &calls.ranges(default));
            assembler.place(next);
        }
        // An ABI that the profile does not name is nobody's business here.
        assembler.emit(RETURN, KILL_THREAD);
        let instructions = assembler.finish();
        if instructions.len() > MAX_INSTRUCTIONS {
            return Err(SeccompError::TooLarge(instructions.len()));
        }
        Ok(Self {
            flags: flags(profile)?,
            instructions,
        })
    }

    /// Flags, then the instructions, in the machine's byte order: read again on this machine only.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.flags.to_ne_bytes().to_vec();
        for instruction in &self.instructions {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jump_true, instruction.jump_false]);
            bytes.extend(instruction.operand.to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first_chunk::<4>()?;
        if rest.is_empty() || rest.len() % 8 != 0 {
            return None;
        }
        let instructions = rest
            .chunks_exact(8)
            .map(|chunk| Instruction {
                code: u16::from_ne_bytes([chunk[0], chunk[1]]),
                jump_true: chunk[2],
                jump_false: chunk[3],
                operand: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
            })
            .collect();
        Some(Self {
            flags: u32::from_ne_bytes(*flags),
            instructions,
        })
    }
}

fn flags(profile: &Profile) -> Result<u32, SeccompError> {
    if profile.flags.is_empty() {
        // What runc does: the kernel's speculation mitigation costs much and protects nothing here.
        return Ok(FLAG_SPEC_ALLOW);
    }
    let mut flags = 0;
    for flag in &profile.flags {
        flags |= match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
            // There is one thread only when the filter goes in.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            other => return Err(SeccompError::Unsupported(format!("unknown flag {other}"))),
        };
    }
    Ok(flags)
}

/// The value a filter returns for an action.
fn verdict(action: Action, errno: Option<u32>) -> Result<u32, SeccompError> {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    if errno > 4095 {
        return Err(SeccompError::Unsupported(format!(
            "errno {errno} does not exist"
        )));
    }
    Ok(match action {
        Action::KillThread => KILL_THREAD,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno => ERRNO | errno,
        Action::Trace => 0x7ff0_0000 | errno,
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
        Action::Notify => {
            return Err(SeccompError::Unsupported(
                "SCMP_ACT_NOTIFY needs an OCI runtime: see --add-runtime".to_owned(),
            ));
        }
        Action::Unset => return Err(SeccompError::Unsupported("a rule has no action".to_owned())),
    })
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    /// Tried in order; the arguments of one alternative must all fit.
    alternatives: Vec<(Vec<ArgumentRule>, u32)>,
    otherwise: u32,
}

#[derive(Default)]
struct CallTable {
    decisions: BTreeMap<u32, Decision>,
    /// From a number on, what every call without a decision gets.
    backgrounds: BTreeMap<u32, u32>,
}

impl CallTable {
    fn add(
        &mut self,
        abi: &Abi,
        rules: &[&Rule],
        default: u32,
        default_action: Action,
    ) -> Result<(), SeccompError> {
        let mut last = None;
        for rule in rules {
            let verdict = verdict(rule.action, rule.errno)?;
            for number in rule.names.iter().filter_map(|name| abi.number(name)) {
                last = last.max(Some(number));
                let decision = self.decisions.entry(number).or_insert(Decision {
                    alternatives: Vec::new(),
                    otherwise: default,
                });
                if rule.args.is_empty() {
                    decision.otherwise = verdict;
                } else {
                    decision
                        .alternatives
                        .extend(split(&rule.args).map(|args| (args, verdict)));
                }
            }
        }
        self.backgrounds.insert(abi.offset, default);
        // Calls newer than the profile seem not to exist, so that libraries fall back to older ones;
        // EPERM would be taken for an answer.
        if let (Some(last), false) = (last, matches!(default_action, Action::Allow | Action::Log)) {
            self.backgrounds
                .insert(last + 1, ERRNO | libc::ENOSYS as u32);
        }
        Ok(())
    }

    /// x32 calls come under the audit number of x86-64. Without x32 in the profile they are as
    /// foreign as any other ABI.
    #[cfg(target_arch = "x86_64")]
    fn refuse_missing_x32(&mut self, audit: u32, abis: &[&Abi]) {
        use super::tables::X32_BIT;
        let of_x86_64 = ABIS
            .iter()
            .any(|abi| abi.audit == audit && abi.offset == X32_BIT);
        if of_x86_64 && !abis.iter().any(|abi| abi.offset == X32_BIT) {
            self.backgrounds.insert(X32_BIT, KILL_THREAD);
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn refuse_missing_x32(&mut self, _audit: u32, _abis: &[&Abi]) {}

    /// The whole number space as ranges that start at a number and share a decision.
    fn ranges(&self, default: u32) -> Vec<(u32, Decision)> {
        let mut starts: std::collections::BTreeSet<u32> =
            self.backgrounds.keys().copied().collect();
        starts.insert(0);
        for &number in self.decisions.keys() {
            starts.insert(number);
            starts.extend(number.checked_add(1));
        }
        let mut ranges: Vec<(u32, Decision)> = Vec::new();
        for start in starts {
            let decision = self.decisions.get(&start).cloned().unwrap_or_else(|| {
                let background = self.backgrounds.range(..=start).next_back();
                Decision {
                    alternatives: Vec::new(),
                    otherwise: background.map_or(default, |(_, &verdict)| verdict),
                }
            });
            if ranges.last().is_none_or(|(_, last)| *last != decision) {
                ranges.push((start, decision));
            }
        }
        ranges
    }
}

/// Several conditions on one argument are alternatives, as the OCI runtimes read them.
fn split(args: &[ArgumentRule]) -> Box<dyn Iterator<Item = Vec<ArgumentRule>> + '_> {
    let repeated = args
        .iter()
        .enumerate()
        .any(|(at, one)| args[..at].iter().any(|other| other.index == one.index));
    if repeated {
        Box::new(args.iter().map(|&one| vec![one]))
    } else {
        Box::new(std::iter::once(args.to_vec()))
    }
}

fn search(assembler: &mut Assembler, ranges: &[(u32, Decision)]) {
    if let [(_, decision)] = ranges {
        leaf(assembler, decision);
        return;
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let upper = assembler.label();
    assembler.if_jump(JUMP_GREATER_OR_EQUAL, high[0].0, upper);
    search(assembler, low);
    assembler.place(upper);
    search(assembler, high);
}

fn leaf(assembler: &mut Assembler, decision: &Decision) {
    for (args, verdict) in &decision.alternatives {
        let next = assembler.label();
        for argument in args {
            condition(assembler, argument, next);
        }
        assembler.emit(RETURN, *verdict);
        assembler.place(next);
    }
    assembler.emit(RETURN, decision.otherwise);
}

/// Falls through if the argument fits, else goes to `fail`. Arguments are 64 bits, loads 32.
fn condition(assembler: &mut Assembler, rule: &ArgumentRule, fail: Label) {
    let low_word = ARGUMENTS + 8 * u32::from(rule.index);
    let high_word = low_word + 4;
    let (high, low) = ((rule.value >> 32) as u32, rule.value as u32);
    let pass = assembler.label();
    match rule.op {
        Operator::Equal => {
            assembler.emit(LOAD, high_word);
            assembler.unless_equal(high, fail);
            assembler.emit(LOAD, low_word);
            assembler.unless_equal(low, fail);
        }
        Operator::NotEqual => {
            assembler.emit(LOAD, high_word);
            assembler.unless_equal(high, pass);
            assembler.emit(LOAD, low_word);
            assembler.if_jump(JUMP_EQUAL, low, fail);
        }
        Operator::MaskedEqual => {
            let (high_two, low_two) = ((rule.value_two >> 32) as u32, rule.value_two as u32);
            assembler.emit(LOAD, high_word);
            assembler.emit(AND, high);
            assembler.unless_equal(high_two, fail);
            assembler.emit(LOAD, low_word);
            assembler.emit(AND, low);
            assembler.unless_equal(low_two, fail);
        }
        Operator::Greater | Operator::GreaterOrEqual => {
            assembler.emit(LOAD, high_word);
            assembler.if_jump(JUMP_GREATER, high, pass);
            assembler.unless_equal(high, fail);
            assembler.emit(LOAD, low_word);
            let code = if rule.op == Operator::Greater {
                JUMP_GREATER
            } else {
                JUMP_GREATER_OR_EQUAL
            };
            assembler.if_jump(code, low, pass);
            assembler.go(fail);
        }
        Operator::Less | Operator::LessOrEqual => {
            assembler.emit(LOAD, high_word);
            assembler.if_jump(JUMP_GREATER, high, fail);
            assembler.unless_equal(high, pass);
            assembler.emit(LOAD, low_word);
            let code = if rule.op == Operator::Less {
                JUMP_GREATER_OR_EQUAL
            } else {
                JUMP_GREATER
            };
            assembler.if_jump(code, low, fail);
        }
    }
    assembler.place(pass);
}

#[derive(Clone, Copy)]
struct Label(usize);

/// Instructions with jumps to places that are not known yet.
#[derive(Default)]
struct Assembler {
    instructions: Vec<Instruction>,
    /// Where each label is.
    places: Vec<Option<usize>>,
    /// Unconditional jumps and their labels.
    jumps: Vec<(usize, usize)>,
}

impl Assembler {
    fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.instructions.len());
    }

    fn emit(&mut self, code: u16, operand: u32) {
        self.instructions.push(Instruction {
            code,
            jump_true: 0,
            jump_false: 0,
            operand,
        });
    }

    fn go(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label.0));
        self.emit(JUMP, 0);
    }

    /// Jumps when the test holds.
    fn if_jump(&mut self, code: u16, operand: u32, label: Label) {
        self.instructions.push(Instruction {
            code,
            jump_true: 0,
            jump_false: 1,
            operand,
        });
        self.go(label);
    }

    /// Jumps when the accumulator is something else.
    fn unless_equal(&mut self, operand: u32, label: Label) {
        self.instructions.push(Instruction {
            code: JUMP_EQUAL,
            jump_true: 1,
            jump_false: 0,
            operand,
        });
        self.go(label);
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let target = self.places[label].expect("every label that is jumped to gets placed");
            self.instructions[at].operand = (target - at - 1) as u32;
        }
        self.instructions
    }
}
