//! Numbers of the system calls on each ABI we can filter.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod i386;
#[cfg(target_arch = "x86_64")]
mod x32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// One ABI: the kernel's audit number, and numbers by name.
pub(super) struct Abi {
    /// libseccomp's name.
    pub name: &'static str,
    /// `AUDIT_ARCH_…`, what the kernel tells a filter.
    pub audit: u32,
    /// Added to every number; x32 shares its audit number with x86-64 and is told by a bit.
    pub offset: u32,
    syscalls: &'static [(&'static str, u32)],
}

impl Abi {
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let found = self
            .syscalls
            .binary_search_by_key(&name, |&(name, _)| name)
            .ok()?;
        Some(self.syscalls[found].1 + self.offset)
    }
}

/// Set in the numbers of x32 calls.
#[cfg(target_arch = "x86_64")]
pub(super) const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE_NAME: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE_NAME: &str = "SCMP_ARCH_AARCH64";
/// The name of this machine in a profile's conditions.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE_CONDITION: &str = "amd64";
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE_CONDITION: &str = "arm64";

#[cfg(target_arch = "x86_64")]
pub(super) const ABIS: &[Abi] = &[
    Abi {
        name: "SCMP_ARCH_X86_64",
        audit: 0xC000_003E,
        offset: 0,
        syscalls: x86_64::SYSCALLS,
    },
    Abi {
        name: "SCMP_ARCH_X86",
        audit: 0x4000_0003,
        offset: 0,
        syscalls: i386::SYSCALLS,
    },
    Abi {
        name: "SCMP_ARCH_X32",
        audit: 0xC000_003E,
        offset: X32_BIT,
        syscalls: x32::SYSCALLS,
    },
];

/// 32-bit ARM programs are not in here: they end at their first system call.
#[cfg(target_arch = "aarch64")]
pub(super) const ABIS: &[Abi] = &[Abi {
    name: "SCMP_ARCH_AARCH64",
    audit: 0xC000_00B7,
    offset: 0,
    syscalls: aarch64::SYSCALLS,
}];
