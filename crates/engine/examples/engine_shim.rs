//! The shim binary for this crate's tests, as `skep shim` is for the daemon.

fn main() {
    // Past this program's own name and the word "shim".
    std::process::exit(skep_runtime::shim::main(std::env::args_os().skip(2)));
}
