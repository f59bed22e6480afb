//! Processes in running containers. Needs root.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy takes only test functions for tests"
)]

mod support;

use skep_runtime::{RuntimeError, Shim};
use support::{Bench, exec_request, text, until};
use tokio::io::AsyncWriteExt;

async fn sleeper(bench: &Bench) -> Shim {
    let shim = bench.sh("host", "sleep 1000").await;
    shim.start().await.unwrap();
    shim
}

#[tokio::test]
async fn output_and_exit_code_are_its_own() {
    let bench = Bench::new();
    let shim = sleeper(&bench).await;
    let spec = bench.wish("host", &[]).spec;
    let request = exec_request("e1", spec, &["sh", "-c", "hostname; pwd; exit 4"]);
    let exec = shim.exec(request).await.unwrap();
    let control = exec.control();
    assert_eq!(text(exec.attached.output).await, "box\n/\n");
    assert_eq!(control.wait().await.unwrap().code, 4);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn its_input_ends_when_the_client_says_so() {
    let bench = Bench::new();
    let shim = sleeper(&bench).await;
    let mut request = exec_request("cat", bench.wish("host", &[]).spec, &["cat"]);
    request.stdin = true;
    let exec = shim.exec(request).await.unwrap();
    let (mut attached, control) = exec.into_parts();
    attached.input.write_all(b"through\n").await.unwrap();
    attached.input.shutdown().await.unwrap();
    assert_eq!(text(attached.output).await, "through\n");
    assert_eq!(control.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
}

#[tokio::test]
async fn a_terminal_of_its_own_can_be_resized() {
    let bench = Bench::new();
    let shim = sleeper(&bench).await;
    let mut request = exec_request("tty", bench.wish("host", &[]).spec, &["sh"]);
    request.tty = true;
    request.stdin = true;
    let mut exec = shim.exec(request).await.unwrap();
    exec.resize(44, 123).await.unwrap();
    exec.attached
        .input
        .write_all(b"stty size; exit 6\n")
        .await
        .unwrap();
    until(&mut exec.attached.output, "44 123").await;
    assert_eq!(exec.wait().await.unwrap().code, 6);
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn a_program_that_does_not_exist_fails_as_docker_says_it() {
    let bench = Bench::new();
    let shim = sleeper(&bench).await;
    let request = exec_request("bad", bench.wish("host", &[]).spec, &["nope"]);
    let error = shim.exec(request).await.unwrap_err();
    let RuntimeError::Start { code, message } = error else {
        panic!("{error:?}")
    };
    assert_eq!(code, 127);
    assert_eq!(
        message,
        r#"OCI runtime exec failed: exec failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown"#
    );
    let good = exec_request("good", bench.wish("host", &[]).spec, &["true"]);
    assert_eq!(
        shim.exec(good).await.unwrap().wait().await.unwrap().code,
        0,
        "the container is unharmed"
    );
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn it_goes_down_with_the_container() {
    let bench = Bench::new();
    let shim = sleeper(&bench).await;
    let request = exec_request("long", bench.wish("host", &[]).spec, &["sleep", "1000"]);
    let exec = shim.exec(request).await.unwrap();
    let control = exec.control();
    let waiting = tokio::spawn(async move { control.wait().await });
    shim.kill(9).await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 137);
    assert_eq!(waiting.await.unwrap().unwrap().code, 137);
    let request = exec_request("late", bench.wish("host", &[]).spec, &["true"]);
    assert!(matches!(
        shim.exec(request).await,
        Err(RuntimeError::Gone(_))
    ));
    shim.delete().await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn a_background_child_does_not_keep_it_alive_for_ever() {
    let bench = Bench::new();
    let shim = sleeper(&bench).await;
    let spec = bench.wish("host", &[]).spec;
    let exec = shim
        .exec(exec_request(
            "bg",
            spec,
            &["sh", "-c", "sleep 1000 & echo left"],
        ))
        .await
        .unwrap();
    let control = exec.control();
    assert_eq!(text(exec.attached.output).await, "left\n");
    assert_eq!(control.wait().await.unwrap().code, 0);
    shim.delete().await.unwrap();
    bench.assert_clean();
}
