//! Where tasks go, and the sentences that say why they do not.

use skep_testkit::{Daemon, eventually};

fn swarm() -> Daemon {
    let daemon = Daemon::start();
    daemon.ok("swarm init");
    daemon
}

#[track_caller]
fn tasks_say(daemon: &Daemon, service: &str, texts: &[&str]) {
    eventually(&format!("{service} says {texts:?}"), || {
        let tasks = daemon.ok(&format!("service ps --no-trunc {service}"));
        let all = texts.iter().all(|text| tasks.contains(text));
        if all { Ok(()) } else { Err(tasks) }
    });
}

#[track_caller]
fn replicas(daemon: &Daemon, service: &str, wanted: &str) {
    eventually(&format!("{service} has {wanted}"), || {
        let filter = format!("name={service}");
        let arguments = [
            "service",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Replicas}}",
        ];
        let seen = daemon.docker().run(arguments).ok();
        let why = || daemon.ok(&format!("service ps --no-trunc {service}"));
        if seen == wanted {
            Ok(())
        } else {
            Err(format!("{seen}\n{}", why()))
        }
    });
}

#[test]
fn each_filter_explains_itself_and_what_waits_goes_on_when_it_fits() {
    let daemon = swarm();
    daemon.ok(
        "service create --detach --name label --constraint node.labels.zone==a busybox sleep 1000",
    );
    tasks_say(
        &daemon,
        "label",
        &[
            "Pending",
            "\"no suitable node (scheduling constraints not satisfied on 1 node)\"",
        ],
    );
    daemon.ok("service create --detach --name memory --reserve-memory 900g busybox sleep 1000");
    tasks_say(
        &daemon,
        "memory",
        &["\"no suitable node (insufficient resources on 1 node)\""],
    );
    daemon.ok("service create --detach --name port --replicas 2 --publish mode=host,target=80,published=18081 busybox sleep 1000");
    tasks_say(
        &daemon,
        "port",
        &[
            "Running",
            "\"no suitable node (host-mode port already in use on 1 node)\"",
        ],
    );
    daemon.ok("service create --detach --name most --replicas 3 --replicas-max-per-node 2 busybox sleep 1000");
    tasks_say(
        &daemon,
        "most",
        &["\"no suitable node (max replicas per node limit exceed)\""],
    );
    replicas(&daemon, "most", "2/3 (max 2 per node)");
    daemon.ok("service create --detach --name plugin --mount type=volume,source=v,target=/v,volume-driver=nfs busybox sleep 1000");
    tasks_say(
        &daemon,
        "plugin",
        &["\"no suitable node (missing plugin on 1 node)\""],
    );
    daemon.ok("node update --availability pause self");
    daemon.ok("service create --detach --name paused busybox sleep 1000");
    tasks_say(
        &daemon,
        "paused",
        &["\"no suitable node (1 node not available for new tasks)\""],
    );
    replicas(&daemon, "port", "1/2");

    daemon.ok("node update --availability active --label-add zone=a self");
    replicas(&daemon, "label", "1/1");
    replicas(&daemon, "paused", "1/1");
    let here = daemon.ok("node ps self");
    assert!(
        here.contains("label.1") && here.contains("paused.1"),
        "{here}"
    );

    daemon.ok("node update --label-rm zone self");
    tasks_say(
        &daemon,
        "label",
        &[
            "Rejected",
            "assigned node no longer meets constraints",
            "scheduling constraints not satisfied on 1 node",
        ],
    );
    daemon.ok("node update --availability drain self");
    eventually("nothing runs on a drained node", || {
        let left = daemon.ok("ps -q");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    daemon.ok("node update --availability active self");
    replicas(&daemon, "paused", "1/1");
}

#[test]
fn jobs_complete_and_run_again_when_they_are_updated() {
    let daemon = swarm();
    daemon.ok("service create --detach --name job --mode replicated-job --replicas 4 --max-concurrent 2 busybox true");
    replicas(&daemon, "job", "0/2 (4/4 completed)");
    tasks_say(&daemon, "job", &["Complete"]);
    daemon.ok("service update --detach --env-add A=1 job");
    eventually("the second run is complete", || {
        let format = "{{.JobStatus.JobIteration.Index}}";
        let run = daemon
            .docker()
            .run(["service", "inspect", "-f", format, "job"])
            .ok();
        let tasks = daemon.ok("service ps job");
        let complete = tasks.matches("Complete ").count();
        if run == "1" && complete >= 4 {
            Ok(())
        } else {
            Err(format!("{run}\n{tasks}"))
        }
    });
    replicas(&daemon, "job", "0/2 (4/4 completed)");
    daemon.ok("service create --detach --name each --mode global-job busybox true");
    replicas(&daemon, "each", "0/0 (1/1 completed)");
    daemon.ok("service create --detach --name fails --mode replicated-job --restart-max-attempts 1 --restart-delay 100ms busybox false");
    tasks_say(&daemon, "fails", &["Failed", "\"task: non-zero exit (1)\""]);
}

#[test]
fn restart_policies_and_the_history_limit_hold() {
    let daemon = swarm();
    daemon.ok("swarm update --task-history-limit 2");
    daemon.ok("service create --detach --name never --restart-condition none busybox true");
    tasks_say(&daemon, "never", &["Complete"]);
    daemon.ok("service create --detach --name onfail --restart-condition on-failure busybox true");
    tasks_say(&daemon, "onfail", &["Complete"]);
    daemon.ok("service create --detach --name twice --restart-delay 100ms --restart-max-attempts 2 busybox false");
    daemon.ok("service create --detach --name always --restart-delay 100ms busybox false");
    eventually("it was tried three times", || {
        let tasks = daemon.ok("service ps twice");
        if tasks.matches("Failed ").count() == 3 {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    eventually(
        "old tasks of the other are forgotten with their containers",
        || {
            let tasks = daemon.ok("service ps -q always").lines().count();
            let containers = daemon
                .ok("ps -aq --filter label=com.docker.swarm.service.name=always")
                .lines()
                .count();
            if (2..=3).contains(&tasks) && containers <= 4 {
                Ok(())
            } else {
                Err(format!("{tasks} {containers}"))
            }
        },
    );
    for service in ["never", "onfail"] {
        assert_eq!(
            daemon
                .ok(&format!("service ps -q {service}"))
                .lines()
                .count(),
            1
        );
    }
}

#[test]
fn an_unhealthy_task_is_replaced_and_a_starting_one_does_not_run_yet() {
    let daemon = swarm();
    let arguments = [
        "service",
        "create",
        "--detach",
        "--name",
        "h",
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "200ms",
        "--health-start-period",
        "60s",
        "--health-start-interval",
        "100ms",
        "--health-retries",
        "1",
        "--restart-delay",
        "200ms",
        "--stop-grace-period",
        "100ms",
        "busybox",
        "sleep",
        "1000",
    ];
    daemon.docker().run(arguments).ok();
    tasks_say(&daemon, "h", &["Starting"]);
    replicas(&daemon, "h", "0/1");
    let container = eventually("its container is there", || {
        let id = daemon.ok("ps -q");
        if id.is_empty() { Err(id) } else { Ok(id) }
    });
    daemon.ok(&format!("exec {container} touch /ok"));
    replicas(&daemon, "h", "1/1");
    daemon.ok(&format!("exec {container} rm /ok"));
    tasks_say(&daemon, "h", &["Failed", "unhealthy container"]);
}
