//! End-to-end tests: the stock docker CLI against real daemons. They live in `tests/`, one file a
//! subject; `skep-testkit` gives each its daemon. Run them with `cargo xtask test`.
