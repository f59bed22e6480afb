//! Links `skep` at fixed addresses.
//!
//! The same file runs once per container as its shim. A position-independent executable dirties
//! every page that holds relocated pointers, several hundred kB in each shim; a fixed one shares
//! them all. See docs/decisions/0004-fixed-address-executable.md.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
