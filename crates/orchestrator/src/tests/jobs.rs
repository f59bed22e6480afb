use skep_model::TaskState;
use skep_proto as proto;
use skep_proto::service_spec::Mode;

use super::world::{World, node};

fn job(total_completions: u64, max_concurrent: u64) -> World {
    let mut world = World::new(Mode::ReplicatedJob(proto::ReplicatedJob {
        max_concurrent,
        total_completions,
    }));
    world.service.job_status = Some(proto::JobStatus::default());
    world
}

fn finish_running(world: &mut World, state: TaskState) -> usize {
    world.settle();
    let running: Vec<_> = world
        .tasks
        .values()
        .filter(|task| task.status.state == TaskState::Running)
        .map(|task| task.id.clone())
        .collect();
    for id in &running {
        world.report(id, state);
    }
    running.len()
}

fn completed(world: &World) -> usize {
    let iteration = world
        .service
        .job_status
        .unwrap()
        .job_iteration
        .map(Into::into);
    let done = |task: &skep_model::Task| {
        task.status.state == TaskState::Complete
            && task.job_iteration.unwrap_or_default() == iteration.unwrap_or_default()
    };
    world.tasks.values().filter(|task| done(task)).count()
}

fn next_iteration(world: &mut World) {
    world.update(|spec| spec.task.as_mut().unwrap().force_update += 1);
    let status = world.service.job_status.as_mut().unwrap();
    status.job_iteration.get_or_insert_default().index += 1;
}

#[test]
fn a_job_runs_so_many_at_once_until_all_completed() {
    let mut world = job(5, 2);
    let mut rounds = Vec::new();
    while completed(&world) < 5 {
        rounds.push(finish_running(&mut world, TaskState::Complete));
    }
    assert_eq!(rounds, [2, 2, 1]);
    world.pass(60);
    assert_eq!(world.tasks.len(), 5, "and then nothing more");
}

#[test]
fn a_failed_run_is_repeated_after_the_delay() {
    let mut world = job(1, 1);
    finish_running(&mut world, TaskState::Failed);
    world.settle();
    assert_eq!(world.in_slot(0).len(), 2);
    world.pass(5);
    finish_running(&mut world, TaskState::Complete);
    assert_eq!(completed(&world), 1);
}

#[test]
fn a_job_out_of_attempts_is_given_up() {
    let mut world = job(1, 1);
    world.restart_policy(|policy| policy.max_attempts = 1);
    finish_running(&mut world, TaskState::Failed);
    world.pass(5);
    finish_running(&mut world, TaskState::Failed);
    world.pass(60);
    assert_eq!(finish_running(&mut world, TaskState::Failed), 0);
    assert_eq!(world.in_slot(0).len(), 2);
}

#[test]
fn an_update_starts_the_job_again() {
    let mut world = job(2, 2);
    finish_running(&mut world, TaskState::Complete);
    next_iteration(&mut world);
    assert_eq!(completed(&world), 0);
    finish_running(&mut world, TaskState::Complete);
    assert_eq!(completed(&world), 2);
    next_iteration(&mut world);
    world.settle();
    next_iteration(&mut world);
    world.settle();
    let running = world
        .tasks
        .values()
        .filter(|t| t.status.state == TaskState::Running)
        .count();
    assert_eq!(running, 2, "what ran for the iteration before is stopped");
}

#[test]
fn runs_on_a_lost_node_are_repeated_elsewhere() {
    let mut world = job(3, 3);
    world.settle();
    world.set_node_state("a", proto::node_status::State::Down);
    world.settle();
    let running = |t: &&std::sync::Arc<skep_model::Task>| {
        t.status.state == TaskState::Running && t.desired_state == TaskState::Complete
    };
    assert_eq!(world.tasks.values().filter(running).count(), 3);
}

#[test]
fn a_global_job_completes_once_on_each_node() {
    let mut world = World::new(Mode::GlobalJob(proto::GlobalJob {}));
    world.service.job_status = Some(proto::JobStatus::default());
    assert_eq!(finish_running(&mut world, TaskState::Complete), 3);
    world.nodes.insert("d".into(), node("d"));
    assert_eq!(finish_running(&mut world, TaskState::Complete), 1);
    world.pass(60);
    assert_eq!(completed(&world), 4);
    assert_eq!(world.tasks.len(), 4);
}
