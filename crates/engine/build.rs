//! Compiles `init/main.rs`, the program behind `docker run --init`, into a static binary without
//! any library, for the engine to carry.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=init/main.rs");
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
    let output = PathBuf::from(variable("OUT_DIR")).join("docker-init");
    let mut command = Command::new(variable("RUSTC"));
    command
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "docker_init",
            "--crate-type",
            "bin",
        ])
        .arg("--target")
        .arg(variable("TARGET"))
        .args([
            "-C",
            "opt-level=s",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "target-feature=+crt-static",
        ])
        .args(["-C", "link-arg=-nostdlib", "-C", "link-arg=-nostartfiles"])
        .args(["-C", "link-arg=-static", "-C", "link-arg=-no-pie"])
        .args(["-C", "link-arg=-Wl,--build-id=none,-z,noexecstack"]);
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        command.arg("-C").arg(option);
    }
    let done = command.arg("-o").arg(&output).arg("init/main.rs").status();
    assert!(
        done.as_ref().is_ok_and(std::process::ExitStatus::success),
        "cannot compile docker-init: {done:?}"
    );
}
