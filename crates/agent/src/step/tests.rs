use super::*;
use TaskState as S;

fn status(state: S) -> TaskStatus {
    TaskStatus {
        state,
        message: "before".into(),
        ..Default::default()
    }
}

fn after(state: S, operation: Operation, outcome: Outcome) -> Conclusion {
    conclude(
        &status(state),
        operation,
        outcome,
        Observation::default(),
        Timestamp::from_secs(7),
    )
}

#[test]
fn a_task_goes_all_the_way_to_running() {
    let path = [
        (
            S::Assigned,
            Step::Advance {
                state: S::Accepted,
                message: "accepted",
            },
        ),
        (
            S::Accepted,
            Step::Advance {
                state: S::Preparing,
                message: "preparing",
            },
        ),
        (S::Preparing, Step::Run(Operation::Prepare)),
        (
            S::Ready,
            Step::Advance {
                state: S::Starting,
                message: "starting",
            },
        ),
        (S::Starting, Step::Run(Operation::Start)),
        (S::Running, Step::Run(Operation::Wait)),
        (S::Complete, Step::Idle),
        (S::Failed, Step::Idle),
        (S::Rejected, Step::Idle),
    ];
    for (state, step) in path {
        assert_eq!(next_step(state, S::Running), step, "{state:?}");
    }
}

#[test]
fn a_task_desired_ready_is_prepared_and_then_waits() {
    assert_eq!(
        next_step(S::Preparing, S::Ready),
        Step::Run(Operation::Prepare)
    );
    assert_eq!(next_step(S::Ready, S::Ready), Step::Idle);
    // What was begun goes on, even past the desired state; what is past it stays.
    assert_eq!(next_step(S::Starting, S::Ready), Step::Idle);
}

#[test]
fn a_task_desired_complete_runs_to_its_end() {
    assert_eq!(
        next_step(S::Ready, S::Complete),
        Step::Advance {
            state: S::Starting,
            message: "starting"
        }
    );
    assert_eq!(
        next_step(S::Running, S::Complete),
        Step::Run(Operation::Wait)
    );
    assert_eq!(next_step(S::Complete, S::Complete), Step::Idle);
}

#[test]
fn every_desired_end_shuts_a_living_task_down_and_leaves_a_dead_one() {
    for desired in [S::Shutdown, S::Failed, S::Rejected, S::Remove, S::Orphaned] {
        for state in S::ALL {
            let expected = if state >= S::Complete {
                Step::Idle
            } else {
                Step::Run(Operation::Shutdown)
            };
            assert_eq!(
                next_step(state, desired),
                expected,
                "{state:?} to {desired:?}"
            );
        }
    }
}

#[test]
fn no_state_is_ever_left_backwards() {
    for state in S::ALL {
        for desired in S::ALL {
            if let Step::Advance { state: next, .. } = next_step(state, desired) {
                assert!(next > state);
            }
            if let Step::Run(operation) = next_step(state, desired) {
                let next = after(state, operation, Outcome::Done).status.state;
                assert!(next > state, "{state:?} after {operation:?}");
            }
        }
    }
}

#[test]
fn success_says_what_was_done() {
    let cases = [
        (S::Preparing, Operation::Prepare, S::Ready, "prepared"),
        (S::Starting, Operation::Start, S::Running, "started"),
        (S::Running, Operation::Wait, S::Complete, "finished"),
        (S::Running, Operation::Shutdown, S::Shutdown, "shutdown"),
    ];
    for (state, operation, expected, message) in cases {
        let end = after(state, operation, Outcome::Done);
        assert_eq!(
            (end.status.state, end.status.message.as_str()),
            (expected, message)
        );
        assert_eq!(
            (end.retry, end.status.timestamp),
            (false, Some(Timestamp::from_secs(7)))
        );
    }
}

#[test]
fn work_found_done_counts_as_done() {
    let prepared = Outcome::Failed(ControllerError::TaskPrepared);
    assert_eq!(
        after(S::Preparing, Operation::Prepare, prepared)
            .status
            .state,
        S::Ready
    );
    let started = Outcome::Failed(ControllerError::TaskStarted);
    assert_eq!(
        after(S::Starting, Operation::Start, started).status.state,
        S::Running
    );
}

#[test]
fn a_failure_before_the_start_rejects_and_one_after_it_fails_the_task() {
    let error = || Outcome::Failed(ControllerError::fatal("No such image: nothing:latest"));
    let rejected = after(S::Preparing, Operation::Prepare, error()).status;
    assert_eq!(
        (rejected.state, rejected.err.as_str()),
        (S::Rejected, "No such image: nothing:latest")
    );
    // SwarmKit's agents report an empty container here; `docker inspect` shows it.
    assert_eq!(rejected.container, Some(proto::ContainerStatus::default()));
    let failed = after(S::Starting, Operation::Start, error()).status;
    assert_eq!(
        (failed.state, failed.message.as_str()),
        (S::Failed, "before")
    );
}

#[test]
fn an_exit_carries_its_code_and_container() {
    let container = proto::ContainerStatus {
        container_id: "c1".into(),
        pid: 0,
        exit_code: 0,
    };
    let seen = Observation {
        container: Some(container),
        ports: None,
    };
    let exit = ControllerError::Exit {
        code: 137,
        cause: None,
        container: None,
    };
    let end = conclude(
        &status(S::Running),
        Operation::Wait,
        Outcome::Failed(exit),
        seen,
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(
        (end.status.state, end.status.err.as_str()),
        (S::Failed, "task: non-zero exit (137)")
    );
    let container = end.status.container.unwrap();
    assert_eq!(
        (container.container_id.as_str(), container.exit_code),
        ("c1", 137)
    );
    let unhealthy = ControllerError::Exit {
        code: 1,
        cause: Some("dockerexec: unhealthy container".into()),
        container: None,
    };
    assert_eq!(
        unhealthy.to_string(),
        "task: non-zero exit (1): dockerexec: unhealthy container"
    );
}

#[test]
fn a_passing_error_is_reported_and_tried_again() {
    let error = ControllerError::Temporary("registry is busy".into());
    let end = after(S::Preparing, Operation::Prepare, Outcome::Failed(error));
    assert!(end.retry);
    assert_eq!(
        (end.status.state, end.status.err.as_str()),
        (S::Preparing, "registry is busy")
    );
    let then = conclude(
        &end.status,
        Operation::Prepare,
        Outcome::Done,
        Observation::default(),
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(then.status.err, "", "forgotten once it works");
}

#[test]
fn what_was_known_of_the_container_outlasts_an_observation_of_nothing() {
    let container = proto::ContainerStatus {
        container_id: "c1".into(),
        pid: 5,
        exit_code: 0,
    };
    let before = TaskStatus {
        container: Some(container.clone()),
        ..status(S::Running)
    };
    let end = conclude(
        &before,
        Operation::Wait,
        Outcome::Done,
        Observation::default(),
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(end.status.container, Some(container));
}

#[test]
fn resolving_accepts_or_rejects() {
    let now = Timestamp::from_secs(3);
    let accepted = resolve(&status(S::Assigned), Ok(()), now);
    assert_eq!(
        (accepted.state, accepted.message.as_str()),
        (S::Accepted, "accepted")
    );
    assert_eq!(accepted.timestamp, Some(now));
    assert_eq!(
        resolve(&status(S::Running), Ok(()), now),
        status(S::Running)
    );

    let error = ControllerError::fatal("exec: unsupported runtime");
    for (state, expected) in [
        (S::Assigned, S::Rejected),
        (S::Ready, S::Rejected),
        (S::Running, S::Failed),
        (S::Complete, S::Complete),
    ] {
        let refused = resolve(&status(state), Err(&error), now);
        assert_eq!(
            (refused.state, refused.err.as_str()),
            (expected, "exec: unsupported runtime")
        );
        assert_eq!(refused.message, "resolving controller failed");
    }
}
