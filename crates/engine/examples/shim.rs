//! The shim and the init alone, for this crate's tests; in the product both are parts of `skep`.

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if name.to_string_lossy().ends_with(skep_engine::INIT_NAME) {
        return skep_engine::run_init(args);
    }
    // The first is the word "shim".
    let code = skep_runtime::shim::main(args.skip(1));
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(1))
}
