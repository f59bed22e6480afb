mod fakes;
mod logs;

use super::*;
use crate::ControllerError;
use fakes::{Lab, running, task};
use skep_model::{TaskState as S, TaskStatus};

#[tokio::test(start_paused = true)]
async fn a_task_is_prepared_started_and_reported_running() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager.complete([running("a")]);
    let status = lab.reported("a", S::Running).await;
    assert_eq!(status.message, "started");
    assert_eq!(status.container.unwrap().container_id, "container-of-a");
    assert_eq!(lab.node.calls("a"), ["prepare", "start", "wait"]);
}

#[tokio::test(start_paused = true)]
async fn an_exit_code_is_reported_in_dockers_words() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager.complete([running("a")]);
    lab.reported("a", S::Running).await;
    lab.node.exit("a", 137);
    let status = lab.reported("a", S::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (137)");
    assert_eq!(status.container.unwrap().exit_code, 137);
    lab.manager.increment([running("b")]);
    lab.reported("b", S::Running).await;
    lab.node.exit("b", 0);
    assert_eq!(lab.reported("b", S::Complete).await.message, "finished");
}

#[tokio::test(start_paused = true)]
async fn a_task_desired_ready_waits_for_its_turn() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager.complete([task("a", S::Ready)]);
    lab.reported("a", S::Ready).await;
    assert_eq!(lab.node.calls("a"), ["prepare"]);
    lab.manager.increment([running("a")]);
    lab.reported("a", S::Running).await;
    assert_eq!(lab.node.calls("a"), ["prepare", "update", "start", "wait"]);
}

#[tokio::test(start_paused = true)]
async fn being_told_to_start_does_not_interrupt_the_preparation_but_being_told_to_end_does() {
    let lab = Lab::new();
    lab.node.block_prepare(true);
    let _agent = lab.start();
    lab.manager
        .complete([task("a", S::Ready), task("b", S::Ready)]);
    lab.until("both are being prepared", || lab.node.preparing() == 2)
        .await;
    lab.manager.increment([running("a"), task("b", S::Remove)]);
    lab.reported("b", S::Shutdown).await;
    lab.node.block_prepare(false);
    lab.reported("a", S::Running).await;
    assert_eq!(lab.node.preparing(), 2, "prepared once each");
    assert_eq!(lab.node.calls("a"), ["prepare", "update", "start", "wait"]);
    assert_eq!(lab.node.calls("b"), ["update", "shutdown"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_desired_shut_down_is_interrupted_and_ended() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager.complete([running("a")]);
    lab.reported("a", S::Running).await;
    lab.manager.increment([task("a", S::Shutdown)]);
    assert_eq!(lab.reported("a", S::Shutdown).await.message, "shutdown");
    assert_eq!(
        lab.node.calls("a"),
        ["prepare", "start", "wait", "update", "shutdown"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_not_there_to_be_run_is_rejected() {
    let lab = Lab::new();
    lab.node.refuse("a");
    lab.node.fail(
        "b",
        "prepare",
        ControllerError::fatal("No such image: nothing:latest"),
    );
    let _agent = lab.start();
    lab.manager.complete([running("a"), running("b")]);
    assert_eq!(
        lab.reported("a", S::Rejected).await.err,
        "exec: unsupported runtime"
    );
    assert_eq!(
        lab.reported("b", S::Rejected).await.err,
        "No such image: nothing:latest"
    );
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_tried_again_after_a_second() {
    let lab = Lab::new();
    lab.node.fail(
        "a",
        "prepare",
        ControllerError::Temporary("registry is busy".into()),
    );
    let _agent = lab.start();
    let begun = tokio::time::Instant::now();
    lab.manager.complete([running("a")]);
    assert_eq!(
        lab.reported("a", S::Preparing).await.err,
        "registry is busy"
    );
    assert_eq!(lab.reported("a", S::Running).await.err, "");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(lab.node.calls("a"), ["prepare", "prepare", "start", "wait"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_assigned_is_removed() {
    let lab = Lab::new();
    let agent = lab.start();
    lab.manager
        .complete([running("a"), running("b"), running("c")]);
    for id in ["a", "b", "c"] {
        lab.reported(id, S::Running).await;
    }
    lab.node.fail(
        "a",
        "remove",
        ControllerError::fatal("device or resource busy"),
    );
    lab.manager.increment_removing("a");
    lab.until("a is removed and tried twice", || {
        lab.node.count("a", "remove") == 2
    })
    .await;
    lab.manager.complete([running("c")]);
    lab.until("b is removed", || lab.node.count("b", "remove") == 1)
        .await;
    agent.stop().await;
    assert_eq!(lab.node.calls("c"), ["prepare", "start", "wait", "close"]);
    assert_eq!(lab.files(), ["c.status", "c.task"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_tasks_go_on_before_any_manager_answers() {
    let lab = Lab::new();
    let agent = lab.start();
    lab.manager
        .complete([running("runs"), running("ended"), task("ready", S::Ready)]);
    lab.reported("runs", S::Running).await;
    lab.reported("ready", S::Ready).await;
    lab.reported("ended", S::Running).await;
    lab.node.exit("ended", 1);
    lab.reported("ended", S::Failed).await;
    agent.stop().await;

    lab.manager.be_silent();
    lab.node.forget_calls();
    let _agent = lab.start();
    lab.until("the task is waited for", || {
        lab.node.count("runs", "wait") == 1
    })
    .await;
    assert_eq!(
        lab.node.calls("runs"),
        ["wait"],
        "neither prepared nor started again"
    );
    assert!(lab.node.calls("ended").is_empty(), "an end is an end");
    // What happens meanwhile is told once somebody listens.
    lab.node.exit("runs", 3);
    lab.manager.speak_again();
    assert_eq!(
        lab.reported("runs", S::Failed).await.err,
        "task: non-zero exit (3)"
    );
    assert_eq!(
        lab.reported("ended", S::Failed).await.err,
        "task: non-zero exit (1)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_removal_goes_on_after_a_restart() {
    let lab = Lab::new();
    let agent = lab.start();
    lab.manager.complete([running("a")]);
    lab.reported("a", S::Running).await;
    lab.node.fail_always(
        "a",
        "remove",
        ControllerError::fatal("device or resource busy"),
    );
    lab.manager.increment_removing("a");
    lab.until("removal is tried", || lab.node.count("a", "remove") > 0)
        .await;
    agent.stop().await;
    assert_eq!(lab.files(), ["a.removing", "a.status"]);

    lab.node.forget_calls();
    lab.node.recover("a");
    let agent = lab.start();
    lab.until("the remains are gone", || {
        lab.node.count("a", "remove") == 1
    })
    .await;
    agent.stop().await;
    assert_eq!(lab.node.calls("a"), ["remove", "close"]);
    assert!(lab.files().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_taken_up_again_and_everything_reported_anew() {
    let lab = Lab::new();
    let agent = lab.start();
    lab.manager.complete([running("a")]);
    lab.reported("a", S::Running).await;
    assert_eq!(lab.manager.sessions(), [""]);

    lab.manager.forget_reports();
    lab.manager.break_session();
    lab.reported("a", S::Running).await;
    assert_eq!(lab.manager.sessions(), ["", "session-1"]);
    assert!(agent.state().borrow().registered);
    assert_eq!(
        lab.node.calls("a"),
        ["prepare", "start", "wait"],
        "the task noticed nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_away_is_asked_ever_more_rarely() {
    let lab = Lab::new();
    lab.manager.refuse_sessions(true);
    let agent = lab.start();
    let mut state = agent.state();
    let failed = state
        .wait_for(|state| state.last_error.is_some())
        .await
        .unwrap()
        .clone();
    assert_eq!(failed.last_error.unwrap().message(), "nobody home");
    tokio::time::sleep(Duration::from_secs(600)).await;
    // At most eight seconds, four on average.
    let tries = lab.manager.sessions().len();
    assert!((75..400).contains(&tries), "{tries} tries");
    lab.manager.refuse_sessions(false);
    state.wait_for(|state| state.registered).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_missed_increment_makes_the_agent_ask_for_everything() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager.complete([running("a")]);
    lab.reported("a", S::Running).await;
    lab.manager.lose_one();
    lab.manager.increment([running("b")]);
    lab.until("all is asked for", || lab.manager.assignment_streams() == 2)
        .await;
    assert!(lab.node.calls("b").is_empty());
    lab.manager.complete([running("a"), running("b")]);
    lab.reported("b", S::Running).await;
    assert_eq!(lab.manager.sessions(), [""], "the session is not at fault");
}

#[tokio::test(start_paused = true)]
async fn many_changes_share_few_reports_and_one_change_does_not_wait() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager
        .complete((0..50).map(|number| running(&format!("t{number}"))));
    for number in 0..50 {
        lab.reported(&format!("t{number}"), S::Running).await;
    }
    let reports = lab.manager.report_count();
    assert!(reports <= 10, "{reports} reports for 50 tasks");

    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    lab.node.exit("t7", 0);
    lab.manager.next_report().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn tasks_start_together_but_not_all_at_once_and_the_slow_do_not_block() {
    let lab = Lab::new();
    lab.node.block_prepare(true);
    let _agent = lab.start();
    lab.manager
        .complete((0..50).map(|number| running(&format!("t{number}"))));
    lab.until("as many as may are being prepared", || {
        lab.node.preparing() == 32
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lab.node.preparing(), 32);
    lab.until("the others had their turn", || lab.node.preparing() == 50)
        .await;
    lab.node.block_prepare(false);
    for number in 0..50 {
        lab.reported(&format!("t{number}"), S::Running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_are_there_before_the_task_that_uses_them_and_go_with_their_assignment() {
    let lab = Lab::new();
    let _agent = lab.start();
    lab.manager.complete_with_secret([running("a")], "s1");
    lab.reported("a", S::Running).await;
    assert_eq!(lab.node.secret_seen_by("a").as_deref(), Some("s1"));
    lab.manager.complete([running("a"), running("b")]);
    lab.reported("b", S::Running).await;
    assert_eq!(lab.node.secret_seen_by("b"), None);
}

#[tokio::test(start_paused = true)]
async fn the_heart_beats_as_the_manager_says() {
    let lab = Lab::new();
    let agent = lab.start();
    agent
        .state()
        .wait_for(|state| state.registered)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(51)).await;
    // At once, and then every five seconds.
    assert_eq!(lab.manager.heartbeats(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_changed_description_begins_a_new_session() {
    let lab = Lab::new();
    let agent = lab.start();
    let mut state = agent.state();
    state.wait_for(|state| state.registered).await.unwrap();
    lab.node.rename("renamed");
    lab.until("the new name is told", || {
        lab.manager.hostname() == "renamed"
    })
    .await;
    let info = proto::NodeTlsInfo {
        trust_root: b"root".to_vec(),
        ..Default::default()
    };
    agent.set_tls_info(info);
    lab.until("the certificate is told", || {
        lab.manager.sessions().len() == 3
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_executor_is_told_what_the_manager_says_of_the_node() {
    let lab = Lab::new();
    let agent = lab.start();
    let state = agent
        .state()
        .wait_for(|state| state.message.is_some())
        .await
        .unwrap()
        .clone();
    assert_eq!(state.message.unwrap().node.as_ref().unwrap().id, "node-1");
    lab.until("the node is configured", || {
        lab.node.configured() == ["node-1"]
    })
    .await;
    assert_eq!(lab.node.keys(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_could_not_be_configured_is_configured_again() {
    let lab = Lab::new();
    let error = ControllerError::Temporary("no mesh".into());
    lab.node.fail("node-1", "configure", error);
    let _agent = lab.start();
    lab.until("the second attempt", || {
        lab.node.configured() == ["node-1", "node-1"]
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(lab.node.configured().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn leaving_removes_everything_and_takes_nothing_more() {
    let lab = Lab::new();
    let agent = lab.start();
    lab.manager.complete([running("a"), running("b")]);
    lab.reported("a", S::Running).await;
    lab.reported("b", S::Running).await;
    agent.leave().await;
    assert!(lab.files().is_empty());
    lab.manager.complete([running("c")]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(lab.node.calls("c").is_empty());
    agent.stop().await;
    assert_eq!(
        lab.node.count("a", "remove") + lab.node.count("b", "remove"),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_the_manager_knows_better_begins_where_it_was() {
    let lab = Lab::new();
    let _agent = lab.start();
    let status = TaskStatus {
        state: S::Running,
        ..Default::default()
    };
    lab.manager.complete([skep_model::Task {
        status,
        ..running("a")
    }]);
    lab.until("it is waited for", || lab.node.count("a", "wait") == 1)
        .await;
    assert_eq!(lab.node.calls("a"), ["wait"]);
}
