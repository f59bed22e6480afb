//! `docker build` by the classic builder's API.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use skep_testkit::{Daemon, Outcome, eventually};

/// A context of files, in a directory of its own.
struct Context<'a> {
    daemon: &'a Daemon,
    dir: PathBuf,
}

impl<'a> Context<'a> {
    fn new(daemon: &'a Daemon, name: &str, files: &[(&str, &str)]) -> Self {
        let context = Self {
            daemon,
            dir: daemon.scratch().join(name),
        };
        for (path, text) in files {
            context.write(path, text);
        }
        context
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn build(&self, flags: &[&str]) -> Outcome {
        let dir = self.dir.display().to_string();
        let mut args = vec!["build"];
        args.extend(flags);
        args.push(&dir);
        self.daemon.docker().run(args)
    }
}

#[test]
fn every_instruction_leaves_its_mark() {
    let daemon = Daemon::start();
    let context = Context::new(
        &daemon,
        "all",
        &[
            (
                "Dockerfile",
                "ARG BASE=busybox\nFROM ${BASE}:latest\nLABEL a=b \"c d\"='e f'\nENV GREETING=\"hello there\" N=2\n\
                 ARG WHO=nobody\nWORKDIR /srv\nWORKDIR app\nCOPY one.txt two.txt files/\nCOPY --chown=7:8 --chmod=640 one.txt owned\n\
                 ADD tree.tar /tree\nRUN echo \"$GREETING $WHO\" > greeting && pwd > /where\nEXPOSE 80 8000-8001/udp\n\
                 VOLUME /data\nUSER 12:34\nSTOPSIGNAL SIGQUIT\nHEALTHCHECK --interval=1m30s --retries=2 CMD true\n\
                 SHELL [\"/bin/sh\", \"-ec\"]\nENTRYPOINT [\"cat\"]\nCMD [\"greeting\"]\nONBUILD RUN echo triggered\n",
            ),
            ("one.txt", "one"),
            ("two.txt", "two"),
        ],
    );
    fs::write(context.dir.join("tree.tar"), tar_of("inside", "from a tar")).unwrap();
    let out = context
        .build(&[
            "-t",
            "made",
            "-t",
            "made:two",
            "--build-arg",
            "WHO=world",
            "--label",
            "given=label",
        ])
        .ok();
    assert!(out.contains("Step 1/21 : ARG BASE=busybox"), "{out}");
    assert!(out.contains("Step 21/21 : LABEL given=label"), "{out}");
    assert!(out.contains(" ---> Running in "), "{out}");
    assert!(
        out.contains(" ---> Removed intermediate container "),
        "{out}"
    );
    assert!(
        out.contains("Successfully built ") && out.contains("Successfully tagged made:two"),
        "{out}"
    );

    assert_eq!(daemon.ok("run --rm made"), "hello there world");
    let look = |path: &str| daemon.ok(&format!("run --rm --entrypoint cat made {path}"));
    assert_eq!(look("/where"), "/srv/app");
    assert_eq!(look("files/two.txt"), "two");
    assert_eq!(look("/tree/inside"), "from a tar");
    let owned = daemon.ok("run --rm -u 0 --entrypoint stat made -c %u:%g:%a owned");
    assert_eq!(owned, "7:8:640");
    let format = "{{.Config.User}} {{.Config.StopSignal}} {{json .Config.Labels}} {{.Config.Healthcheck.Retries}} {{json .Config.OnBuild}} {{json .Config.ExposedPorts}} {{json .Config.Volumes}}";
    assert_eq!(
        daemon
            .docker()
            .run(["image", "inspect", "-f", format, "made"])
            .ok(),
        "12:34 SIGQUIT {\"a\":\"b\",\"c d\":\"e f\",\"given\":\"label\"} 2 [\"RUN echo triggered\"] {\"80/tcp\":{},\"8000/udp\":{},\"8001/udp\":{}} {\"/data\":{}}"
    );
    let history = daemon
        .docker()
        .run([
            "history",
            "--no-trunc",
            "--format",
            "{{.CreatedBy}}",
            "made",
        ])
        .ok();
    assert!(
        history.contains("/bin/sh -c #(nop)  ENV GREETING=hello there N=2"),
        "{history}"
    );
    assert!(
        history.contains("|1 WHO=world /bin/sh -c echo \"$GREETING $WHO\""),
        "{history}"
    );
    assert_eq!(daemon.ok("ps -aq"), "");

    let child = Context::new(&daemon, "child", &[("Dockerfile", "FROM made\n")]);
    let out = child.build(&["--no-cache"]).ok();
    assert!(
        out.contains("# Executing 1 build trigger") && out.contains("triggered"),
        "{out}"
    );
}

#[test]
fn steps_that_were_done_before_are_not_done_again() {
    let daemon = Daemon::start();
    let context = Context::new(
        &daemon,
        "cached",
        &[
            (
                "Dockerfile",
                "FROM busybox\nRUN echo first > /first\nCOPY file /file\nRUN cat /file > /second\n",
            ),
            ("file", "1"),
        ],
    );
    let hits = |out: &str| out.matches(" ---> Using cache").count();
    let first = context.build(&["-q", "-t", "cached"]).ok();
    assert!(first.starts_with("sha256:"), "{first}");
    assert_eq!(context.build(&["-q"]).ok(), first);
    assert_eq!(hits(&context.build(&[]).ok()), 3);
    context.write("file", "2");
    assert_eq!(hits(&context.build(&[]).ok()), 1);
    context.write("file", "1");
    assert_eq!(hits(&context.build(&[]).ok()), 3);
    assert_eq!(hits(&context.build(&["--no-cache"]).ok()), 0);

    // The image travels without its intermediate ones; its history is enough.
    let file = daemon.scratch().join("cached.tar").display().to_string();
    daemon.ok(&format!("save -o {file} cached"));
    let other = Daemon::start();
    other.ok(&format!("load -i {file}"));
    let context = Context {
        daemon: &other,
        dir: context.dir,
    };
    assert_eq!(hits(&context.build(&[]).ok()), 0);
    let other = Daemon::start();
    other.ok(&format!("load -i {file}"));
    let context = Context {
        daemon: &other,
        dir: context.dir,
    };
    assert_eq!(hits(&context.build(&["--cache-from", "cached"]).ok()), 3);
}

#[test]
fn stages_hand_files_on() {
    let daemon = Daemon::start();
    let context = Context::new(
        &daemon,
        "stages",
        &[(
            "Dockerfile",
            "FROM busybox AS tools\nRUN mkdir /out && cp /bin/busybox /out/busybox && ln -s busybox /out/sh\n\
             FROM tools AS unused\nRUN echo second\n\
             FROM scratch\nCOPY --from=tools /out /bin\nCOPY --from=0 /out/busybox /bin/second\nCOPY --from=busybox /etc/passwd /etc/passwd\n\
             CMD [\"/bin/busybox\", \"echo\", \"from scratch\"]\n",
        )],
    );
    context.build(&["-t", "small"]).ok();
    assert_eq!(daemon.ok("run --rm small"), "from scratch");
    assert_eq!(daemon.ok("run --rm small /bin/sh -c pwd"), "/");
    let out = context.build(&["--target", "unused"]).ok();
    assert!(out.contains("Step 4/4 : RUN echo second"), "{out}");
    let none = context.build(&["--target", "nowhere"]).fails_with(1);
    assert!(
        none.contains("target stage \"nowhere\" could not be found"),
        "{none}"
    );
}

#[test]
fn here_documents_are_scripts_and_files() {
    let daemon = Daemon::start();
    let context = Context::new(
        &daemon,
        "heredoc",
        &[(
            "Dockerfile",
            "FROM busybox\nENV NAME=value\nRUN <<EOF\necho one > /one\necho two > /two\nEOF\n\
             COPY <<expanded <<\"raw\" /docs/\nhello $NAME\nexpanded\nhello $NAME\nraw\n\
             RUN cat <<END > /piped\npiped\nEND\n",
        )],
    );
    context.build(&["-t", "documents"]).ok();
    let cat = |path: &str| daemon.ok(&format!("run --rm documents cat {path}"));
    assert_eq!(cat("/two"), "two");
    assert_eq!(cat("/docs/expanded"), "hello value");
    assert_eq!(cat("/docs/raw"), "hello $NAME");
    assert_eq!(cat("/piped"), "piped");
}

#[test]
fn mistakes_are_told_and_leave_nothing() {
    let daemon = Daemon::start();
    let images = daemon.ok("images -aq");
    let fails = |name: &str, dockerfile: &str, code: i32, text: &str| {
        let context = Context::new(&daemon, name, &[("Dockerfile", dockerfile)]);
        let out = context.build(&["--force-rm"]).fails_with(code);
        assert!(out.contains(text), "{dockerfile:?}: {out}");
    };
    fails(
        "m1",
        "FROM busybox\n\nFRMO x\n",
        1,
        "dockerfile parse error on line 3: unknown instruction: FRMO (did you mean FROM?)",
    );
    fails("m2", "\n", 1, "file with no instructions");
    fails(
        "m3",
        "FROM busybox\nRUN exit 7\n",
        7,
        "The command '/bin/sh -c exit 7' returned a non-zero code: 7",
    );
    fails(
        "m4",
        "FROM busybox\nCOPY nothing /\n",
        1,
        "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist",
    );
    fails(
        "m5",
        "FROM busybox\nCOPY ../etc/passwd /x\n",
        1,
        "COPY failed: ",
    );
    fails(
        "m6",
        "FROM busybox\nRUN --mount=type=cache,target=/x true\n",
        1,
        "the --mount option requires BuildKit",
    );
    fails(
        "m7",
        "FROM busybox\nCOPY --chown=nobody-such Dockerfile /x\n",
        1,
        "no such user: nobody-such",
    );
    fails(
        "m8",
        "FROM busybox\nCOPY https://x/y /x\n",
        1,
        "COPY failed: source can't be a URL for COPY",
    );
    assert_eq!(daemon.ok("ps -aq"), "");
    assert_eq!(daemon.ok("images -aq"), images);
}

#[test]
fn what_is_ignored_does_not_reach_the_image() {
    let daemon = Daemon::start();
    let context = Context::new(
        &daemon,
        "ignore",
        &[
            (
                "Dockerfile",
                "FROM busybox\nCOPY . /all\nRUN ls -A /all > /list\n",
            ),
            (
                ".dockerignore",
                "secret\nDockerfile\n.dockerignore\n**/*.tmp\n!keep.tmp\n",
            ),
            ("secret", "s"),
            ("sub/a.tmp", "t"),
            ("keep.tmp", "k"),
            ("file", "f"),
        ],
    );
    context.build(&["-t", "ignored"]).ok();
    assert_eq!(
        daemon.ok("run --rm ignored cat /list"),
        "file\nkeep.tmp\nsub"
    );
}

#[test]
fn a_client_that_goes_away_ends_the_build() {
    let daemon = Daemon::start();
    let context = Context::new(
        &daemon,
        "cancel",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN echo started && sleep 1000\n",
        )],
    );
    let dir = context.dir.display().to_string();
    let mut command = daemon.docker().command(["build", &dir]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    eventually("the step runs", || match daemon.ok("ps -q") {
        running if running.is_empty() => Err("nothing runs".to_owned()),
        _ => Ok(()),
    });
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("its container and context are gone", || {
        let containers = daemon.ok("ps -aq");
        let contexts = fs::read_dir(daemon.data_root().join("tmp"))
            .unwrap()
            .count();
        if containers.is_empty() && contexts == 0 {
            Ok(())
        } else {
            Err(format!("containers {containers:?}, {contexts} contexts"))
        }
    });
}

fn tar_of(name: &str, text: &str) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", text.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header;
    tar.extend(text.as_bytes());
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}
