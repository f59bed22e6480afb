//! The shim alone, for this crate's tests; in the product it is a part of the `skep` binary.

fn main() {
    std::process::exit(skep_runtime::shim::main(std::env::args_os().skip(1)));
}
