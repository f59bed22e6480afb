//! An OCI runtime's binary instead of libcontainer. Needs root and the runc package.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy takes only test functions for tests"
)]

mod support;

use std::path::PathBuf;

use skep_runtime::{RuntimeConfig, RuntimeError, RuntimeKind, StdioConfig};
use support::{Bench, Wish, all, eventually, exec_request, text, until};

fn runc(mut wish: Wish) -> Wish {
    wish.runtime = RuntimeKind::Oci {
        path: PathBuf::from("/usr/sbin/runc"),
        args: Vec::new(),
    };
    wish
}

#[tokio::test]
async fn it_lives_as_any_other_container_does() {
    let bench = Bench::new();
    let script = "echo one; while ! test -e /tmp/go; do sleep 0.01; done; exit 8";
    let shim = bench
        .create("runc", runc(bench.wish("runc", &["sh", "-c", script])))
        .await
        .unwrap();
    let mut attached = shim.attach(all()).await.unwrap();
    shim.start().await.unwrap();
    until(&mut attached.output, "one").await;
    shim.pause().await.unwrap();
    let state = shim
        .cgroup()
        .directory("freezer")
        .unwrap()
        .join("freezer.state");
    if state.exists() {
        assert_eq!(std::fs::read_to_string(state).unwrap(), "FROZEN\n");
    }
    shim.resume().await.unwrap();
    let limits = serde_json::json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 } });
    shim.update(&serde_json::from_value(limits).unwrap())
        .await
        .unwrap();
    assert_eq!(shim.stats().unwrap().memory.limit, Some(64 << 20));
    let mut request = exec_request(
        "e",
        bench.wish("runc", &[]).spec,
        &["sh", "-c", "tty; exit 3"],
    );
    request.tty = true;
    let exec = shim.exec(request).await.unwrap();
    let control = exec.control();
    assert!(text(exec.attached.output).await.contains("/dev/pts/"));
    assert_eq!(control.wait().await.unwrap().code, 3);
    std::fs::write(bench.rootfs().join("tmp/go"), "").unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 8);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn its_errors_are_dockers_too() {
    let bench = Bench::new();
    let error = bench
        .create("bad", runc(bench.wish("bad", &["nope"])))
        .await
        .unwrap_err();
    let RuntimeError::Start { code, message } = error else {
        panic!("{error:?}")
    };
    assert_eq!(code, 127);
    assert_eq!(
        message,
        r#"failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "nope": executable file not found in $PATH: unknown"#
    );
    let mut missing = bench.wish("none", &["true"]);
    missing.runtime = RuntimeKind::Oci {
        path: PathBuf::from("/no/runtime"),
        args: Vec::new(),
    };
    let text = bench.create("none", missing).await.unwrap_err().to_string();
    assert!(text.contains("/no/runtime"), "{text}");
    bench.assert_clean();
}

#[tokio::test]
async fn killed_with_a_terminal() {
    let bench = Bench::new();
    let mut wish = runc(bench.wish("tty", &["sh", "-c", "echo up; sleep 1000"]));
    wish.stdio = StdioConfig {
        tty: true,
        open_stdin: true,
        stdin_once: true,
    };
    let shim = bench.create("tty", wish).await.unwrap();
    let mut attached = shim.attach(all()).await.unwrap();
    shim.start().await.unwrap();
    until(&mut attached.output, "up").await;
    shim.kill(9).await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 137);
    drop(shim);
    eventually("the shim has ended by itself", || bench.shims().is_empty()).await;
    bench.assert_clean();
}

#[tokio::test]
async fn a_shim_that_cannot_be_started_is_an_error_and_leaves_nothing() {
    let mut bench = Bench::new();
    let config = RuntimeConfig {
        exec_root: bench.path().join("exec"),
        shim: PathBuf::from("/no/shim"),
        shim_args: Vec::new(),
    };
    bench.runtime = skep_runtime::Runtime::new(config).unwrap();
    let error = bench
        .create("x", bench.wish("x", &["true"]))
        .await
        .unwrap_err();
    assert!(matches!(error, RuntimeError::Spawn { .. }), "{error:?}");
    bench.assert_clean();
}
