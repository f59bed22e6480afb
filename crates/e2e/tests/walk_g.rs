//! Walk G: containers and data on one host, as far as it needs no build.

use skep_testkit::{Daemon, eventually};

#[test]
fn walk_g_a_job_whose_log_is_followed_from_inside() {
    let daemon = Daemon::start();
    let job = "while true; do date >> /var/log/cron.log; usleep 10000; done";
    let script = format!("mkdir -p /var/log; {job}");
    daemon
        .docker()
        .run([
            "container",
            "run",
            "-d",
            "--rm",
            "--name",
            "cronjob",
            "busybox",
            "sh",
            "-c",
            &script,
        ])
        .ok();
    eventually("the log grows", || {
        let seen = daemon.sh("container exec cronjob tail -n 2 /var/log/cron.log");
        if seen.stdout.lines().count() == 2 {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    daemon.ok("container stop -t 0 cronjob");
    eventually("--rm removed it", || {
        let left = daemon.ok("container ls -aq");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn walk_g_data_outlives_its_container_and_is_backed_up() {
    let daemon = Daemon::start();
    let here = daemon.scratch().join("backup");
    std::fs::create_dir(&here).expect("a directory of our own");
    let here = here.display().to_string();

    // The data-volume container of the old days: it runs once and only holds the volume.
    daemon.ok("container run -d --name mysql-data -v /var/lib/mysql busybox true");
    let write = "echo row >> /var/lib/mysql/table";
    for _ in 0..2 {
        daemon
            .docker()
            .run([
                "container",
                "run",
                "--rm",
                "--volumes-from",
                "mysql-data",
                "busybox",
                "sh",
                "-c",
                write,
            ])
            .ok();
    }
    let read = "container run --rm --volumes-from mysql-data busybox cat /var/lib/mysql/table";
    assert_eq!(daemon.ok(read), "row\nrow");

    let listed = daemon.ok(&format!(
        "container run --rm -v {here}:/tmp --volumes-from mysql-data busybox \
         tar cvzf /tmp/mysql-backup.tar.gz /var/lib/mysql"
    ));
    assert!(listed.contains("var/lib/mysql/table"), "{listed}");
    assert!(
        std::path::Path::new(&here)
            .join("mysql-backup.tar.gz")
            .exists()
    );

    // Into a fresh volume, the way people restore.
    daemon.ok(&format!(
        "container run --rm -v {here}:/tmp:ro -v restored:/var/lib/mysql busybox \
         tar xzf /tmp/mysql-backup.tar.gz -C /"
    ));
    assert_eq!(
        daemon.ok("container run --rm -v restored:/var/lib/mysql busybox cat /var/lib/mysql/table"),
        "row\nrow"
    );
    let saved = format!("{here}/image.tar");
    daemon.ok(&format!("image save -o {saved} busybox"));
    daemon.ok("container rm -v mysql-data");
    assert_eq!(
        daemon.ok("volume ls -q"),
        "restored",
        "-v took the anonymous volume along"
    );
}
