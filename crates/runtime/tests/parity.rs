//! The same container under libcontainer and under runc must look the same from inside. Needs root
//! and the runc package.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy takes only test functions for tests"
)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use skep_runtime::spec::ContainerSpec;
use skep_runtime::{RuntimeKind, SeccompProfile, StdioConfig};
use support::{Bench, Wish, exec_request, text};

/// Everything that confines a process, as it sees it itself. Identifiers that differ between any two
/// containers are cut. Nothing here may change anything outside: it also runs privileged, and there is
/// one clock, one sysrq trigger for the whole machine.
const PORTRAIT: &str = r#"
echo "== status"; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigBlk|Umask)' /proc/self/status
echo "== mounts"; sed 's/^[0-9]* [0-9]* [0-9:]* //; s#/tmp/[^ ]*#TMP#g; s#/skep-test[^ ]*#CGROUP#g' /proc/self/mountinfo | sed 's/ master:[0-9]*//; s/sysfs sysfs r[ow]/sysfs/' | sort
echo "== limits"; cat /proc/self/limits
echo "== oom"; cat /proc/self/oom_score_adj
echo "== env"; tr '\0' '\n' < /proc/self/environ
echo "== cwd"; pwd; umask
echo "== dev"; ls -l /dev | sed 's/[A-Z][a-z][a-z]  *[0-9]* [0-9:]*//' | grep -v '^total'
echo "== masked"; for p in /proc/acpi /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do test -d $p && test -z "$(ls -A $p 2>/dev/null)" && echo "$p EMPTY"; test -e $p && test -z "$(head -c 1 $p 2>/dev/null)" && echo "$p SILENT"; done
echo "== writable"; for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/fs/cgroup/memory/cgroup.procs /sys/kernel/mm/ksm/run /etc/passwd /tmp/t; do ( : >> $p ) 2>/dev/null && echo "$p WRITABLE"; done
echo "== namespaces"; for n in mnt net uts pid ipc cgroup user; do test "$(readlink /proc/1/ns/$n)" = "$(readlink /proc/self/ns/$n)" && echo $n; done
echo "== calls"; unshare -U true 2>&1; mount -t tmpfs x /mnt 2>&1; mknod /tmp/n c 1 3 2>&1 && rm /tmp/n; chroot / true 2>&1; dmesg >/dev/null 2>&1 && echo DMESG
exit 0
"#;

type Change = fn(ContainerSpec) -> ContainerSpec;

async fn portraits(
    name: &str,
    change: Change,
    seccomp: SeccompProfile,
    tty: bool,
) -> [(String, String); 2] {
    let mut both = Vec::new();
    let runc = RuntimeKind::Oci {
        path: PathBuf::from("/usr/sbin/runc"),
        args: Vec::new(),
    };
    for (which, runtime) in [("ours", RuntimeKind::Builtin), ("runc", runc)] {
        let bench = Bench::new();
        let id = format!("{name}-{which}");
        let wish = |args: &[&str]| -> Wish {
            let mut wish = bench.wish(&id, args);
            wish.spec = change(wish.spec);
            wish.runtime = runtime.clone();
            wish.seccomp = seccomp.clone();
            wish.stdio = StdioConfig {
                tty,
                open_stdin: tty,
                stdin_once: false,
            };
            wish
        };
        let (code, init) = bench.run(&id, wish(&["sh", "-c", PORTRAIT])).await;
        assert_eq!(code, 0, "{which}: {init}");
        let shim = bench.create(&id, wish(&["sleep", "1000"])).await.unwrap();
        shim.start().await.unwrap();
        let mut request = exec_request("look", wish(&[]).spec, &["sh", "-c", PORTRAIT]);
        request.tty = tty;
        let exec = shim.exec(request).await.unwrap();
        let control = exec.control();
        let inside = text(exec.attached.output).await;
        control.wait().await.unwrap();
        shim.delete().await.unwrap();
        bench.assert_clean();
        both.push((init, inside));
    }
    both.try_into().unwrap()
}

/// Two differences are known: libcontainer makes no cgroup in the hierarchy without controllers, so
/// it is not shown; and it makes directories for nested device nodes with the wrong mode.
fn comparable(portrait: &str) -> BTreeSet<String> {
    portrait
        .lines()
        .filter(|line| !line.trim_end().ends_with("name=systemd"))
        .map(|line| line.replacen("drwxrwxrwx ", "drwxr-xr-x ", 1))
        .collect()
}

fn assert_same(what: &str, ours: &str, theirs: &str) {
    let (mine, other) = (comparable(ours), comparable(theirs));
    assert!(
        other.len() > 40,
        "{what}: a portrait is longer than {theirs:?}"
    );
    let only_ours: Vec<_> = mine.difference(&other).collect();
    let only_runc: Vec<_> = other.difference(&mine).collect();
    assert!(
        only_ours.is_empty() && only_runc.is_empty(),
        "{what}\nonly ours: {only_ours:#?}\nonly runc: {only_runc:#?}"
    );
}

async fn compare(name: &str, change: Change, seccomp: SeccompProfile, tty: bool) {
    let [ours, runc] = portraits(name, change, seccomp, tty).await;
    assert_same(&format!("{name}: init"), &ours.0, &runc.0);
    assert_same(&format!("{name}: exec"), &ours.1, &runc.1);
}

#[tokio::test]
async fn a_default_container() {
    compare("plain", |spec| spec, SeccompProfile::Default, false).await;
}

#[tokio::test]
async fn with_a_terminal() {
    compare("tty", |spec| spec, SeccompProfile::Default, true).await;
}

#[tokio::test]
async fn of_an_ordinary_user() {
    let change: Change = |spec| spec.user(1000, 1000, vec![1000, 44]);
    compare("user", change, SeccompProfile::Default, false).await;
}

#[tokio::test]
async fn that_may_gain_no_privileges() {
    let change: Change = |spec| spec.no_new_privileges(true);
    compare("nnp", change, SeccompProfile::Default, false).await;
}

#[tokio::test]
async fn with_other_capabilities_and_a_read_only_root() {
    let change: Change = |spec| {
        spec.capabilities(&["SYS_ADMIN", "NET_ADMIN"], &["MKNOD"])
            .unwrap()
            .readonly_rootfs(true)
    };
    compare("caps", change, SeccompProfile::Default, false).await;
}

#[tokio::test]
async fn without_any_capability() {
    let change: Change = |spec| spec.capabilities(&[], &["ALL"]).unwrap();
    compare("nocaps", change, SeccompProfile::Default, false).await;
}

#[tokio::test]
async fn that_is_privileged() {
    compare(
        "privileged",
        ContainerSpec::privileged,
        SeccompProfile::Unconfined,
        false,
    )
    .await;
}
