use proptest::prelude::*;

use super::*;

fn only(text: &str) -> Instruction {
    let file = Dockerfile::parse(&format!("FROM a\n{text}")).unwrap();
    assert_eq!(file.stages[0].steps.len(), 1, "{file:?}");
    file.stages[0].steps[0].instruction.clone()
}

fn error(text: &str) -> String {
    Dockerfile::parse(text).unwrap_err().to_string()
}

fn expanded(text: &str) -> Result<String, String> {
    expand(text, '\\', &|name| match name {
        "A" => Some("value".to_owned()),
        "EMPTY" => Some(String::new()),
        "PATHS" => Some("a/b/c.tar.gz".to_owned()),
        "PORTS" => Some("80 443".to_owned()),
        _ => None,
    })
}

#[test]
fn stages_and_arguments_before_them() {
    let file = Dockerfile::parse(
        "# syntax=docker/dockerfile:1\nARG V=1\nFROM --platform=linux/amd64 a:$V AS Build\nRUN x\nfrom scratch\nCOPY --from=build /a /b\n",
    )
    .unwrap();
    assert_eq!(file.meta_args.len(), 1);
    assert_eq!(file.stages[0].name.as_deref(), Some("build"));
    assert_eq!(file.stages[0].platform.as_deref(), Some("linux/amd64"));
    assert_eq!(
        file.stages[0].source,
        "FROM --platform=linux/amd64 a:$V AS Build"
    );
    assert_eq!(file.stage("BUILD"), Some(0));
    assert_eq!(file.stage("1"), Some(1));
    assert_eq!(file.stage("2"), None);
    let Instruction::Copy(copy) = &file.stages[1].steps[0].instruction else {
        panic!("not a copy");
    };
    assert_eq!(copy.from.as_deref(), Some("build"));
    assert_eq!(file.stages[1].steps[0].line, 6);
}

#[test]
fn continued_lines_are_joined_and_comments_in_them_skipped() {
    let file =
        Dockerfile::parse("FROM a\nRUN one && \\\n  # not this\n\n  two \\  \n  three\n").unwrap();
    assert_eq!(file.stages[0].steps[0].source, "RUN one &&   two   three");
    assert_eq!(
        file.warnings,
        ["Empty continuation line found in: RUN one &&   two   three"]
    );
    let Instruction::Run(run) = only("RUN echo a\\\\") else {
        panic!("not a run");
    };
    assert_eq!(run.command, Command::Shell("echo a\\\\".to_owned()));
}

#[test]
fn another_escape_can_be_chosen() {
    let file = Dockerfile::parse("# escape=`\nFROM a\nRUN b `\n c:\\x\\\nRUN d").unwrap();
    assert_eq!(file.escape, '`');
    assert_eq!(file.stages[0].steps.len(), 2);
    assert_eq!(
        error("# escape=x\nFROM a"),
        "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\"
    );
}

#[test]
fn here_documents_belong_to_their_instruction() {
    let Instruction::Run(run) = only("RUN <<EOF\necho $a\nEOF") else {
        panic!("not a run");
    };
    assert_eq!(run.documents[0].content, "echo $a\n");
    assert!(run.documents[0].expand);
    let Instruction::Copy(copy) =
        only("COPY <<-\"a.txt\" <<b.txt x /dir/\n\t1\n\ta.txt\n2\nb.txt\n")
    else {
        panic!("not a copy");
    };
    assert_eq!(copy.sources, ["x"]);
    assert_eq!(copy.documents[0].content, "1\n");
    assert!(!copy.documents[0].expand);
    assert_eq!(copy.documents[1].content, "2\n");
    assert_eq!(
        error("FROM a\nRUN <<EOF\nx"),
        "dockerfile parse error on line 2: unterminated heredoc"
    );
    // No document: a here-string, and the list form.
    assert!(matches!(only("RUN cat <<<\"x\""), Instruction::Run(run) if run.documents.is_empty()));
    assert!(
        matches!(only("RUN [\"echo\", \"<<EOF\"]"), Instruction::Run(run) if run.documents.is_empty())
    );
}

#[test]
fn forms_of_instructions() {
    assert_eq!(
        only("ENV A=\"one two\" B='x'"),
        Instruction::Env(vec![
            ("A".into(), "\"one two\"".into()),
            ("B".into(), "'x'".into())
        ])
    );
    assert_eq!(
        only("ENV A one  two"),
        Instruction::Env(vec![("A".into(), "one  two".into())])
    );
    assert_eq!(
        only("ARG A B=c"),
        Instruction::Arg(vec![("A".into(), None), ("B".into(), Some("c".into()))])
    );
    assert_eq!(
        only("CMD [\"a\", \"b c\"]"),
        Instruction::Cmd(Command::Exec(vec!["a".into(), "b c".into()]))
    );
    assert_eq!(
        only("CMD a b"),
        Instruction::Cmd(Command::Shell("a b".into()))
    );
    assert_eq!(
        only("VOLUME [\"/a b\", \"/c\"]"),
        Instruction::Volume(vec!["/a b".into(), "/c".into()])
    );
    assert_eq!(
        only("ONBUILD RUN  x y"),
        Instruction::OnBuild("RUN  x y".into())
    );
    let Instruction::Healthcheck(health) =
        only("HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost")
    else {
        panic!("not a health check");
    };
    assert_eq!(health.interval, Some(90_000_000_000));
    assert_eq!(health.test.unwrap(), ["CMD-SHELL", "curl -f localhost"]);
}

#[test]
fn mistakes_are_told_with_line_and_reason() {
    let at = |line: usize, reason: &str| format!("dockerfile parse error on line {line}: {reason}");
    for (text, line, reason) in [
        (
            "FROM a\n\nFRMO b",
            3,
            "unknown instruction: FRMO (did you mean FROM?)",
        ),
        ("RUN x", 1, "no build stage in current context"),
        ("FROM a b", 1, "FROM requires either one or three arguments"),
        (
            "FROM a AS 1",
            1,
            "invalid name for build stage: \"1\", name can't start with a number or contain symbols",
        ),
        (
            "FROM a\nCOPY x",
            2,
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "FROM a\nCOPY --form=b x y",
            2,
            "unknown flag: --form (did you mean from?)",
        ),
        (
            "FROM a\nCOPY --from x y",
            2,
            "missing a value on flag: --from",
        ),
        ("FROM a\nENV A", 2, "ENV must have two arguments"),
        (
            "FROM a\nENV A=1 B",
            2,
            "Syntax error - can't find = in \"B\". Must be of the form: name=value",
        ),
        (
            "FROM a\nSHELL sh",
            2,
            "SHELL requires the arguments to be in JSON form: SHELL sh",
        ),
        (
            "FROM a\nRUN [\"a\", 1]",
            2,
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "FROM a\nONBUILD FROM b",
            2,
            "FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=1us CMD x",
            2,
            "Interval \"interval\" cannot be less than 1ms",
        ),
        ("# nothing", 1, "file with no instructions"),
        ("", 1, "file with no instructions"),
    ] {
        assert_eq!(error(text), at(line, reason), "{text:?}");
    }
}

#[test]
fn variables_are_put_in() {
    for (text, value) in [
        ("$A", "value"),
        ("${A}s", "values"),
        ("\"$A\" '$A' \\$A", "value $A $A"),
        ("${NO}", ""),
        ("${NO:-x$A}", "xvalue"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${A:+set}", "set"),
        ("${EMPTY:+set}", ""),
        ("${EMPTY+set}", "set"),
        ("${A:?no}", "value"),
        ("${PATHS#*/}", "b/c.tar.gz"),
        ("${PATHS##*/}", "c.tar.gz"),
        ("${PATHS%.*}", "a/b/c.tar"),
        ("${PATHS%%.*}", "a/b/c"),
        ("${PATHS/\\//-}", "a-b/c.tar.gz"),
        ("${PATHS//\\//-}", "a-b-c.tar.gz"),
        ("a $ b", "a $ b"),
        ("\"a\\n\"", "a\\n"),
    ] {
        assert_eq!(expanded(text).as_deref(), Ok(value), "{text}");
    }
    for (text, reason) in [
        ("${NO:?must be set}", "NO: must be set"),
        ("${A", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${A^}", "unsupported modifier (^) in substitution"),
        (
            "'a",
            "unexpected end of statement while looking for matching single-quote",
        ),
    ] {
        assert_eq!(
            expanded(text).unwrap_err(),
            format!("failed to process {text:?}: {reason}")
        );
    }
}

#[test]
fn a_variable_may_stand_for_several_words() {
    let mut expose = only("EXPOSE $PORTS 8080/udp");
    let ports = |name: &str| (name == "PORTS").then(|| "80 443".to_owned());
    expose.expand('\\', &ports).unwrap();
    let words = ["80", "443", "8080/udp"].map(str::to_owned);
    assert_eq!(expose, Instruction::Expose(words.to_vec()));
}

#[test]
fn ports_and_ranges() {
    assert_eq!(exposed_ports("80").unwrap(), ["80/tcp"]);
    assert_eq!(
        exposed_ports("8000-8001/udp").unwrap(),
        ["8000/udp", "8001/udp"]
    );
    assert_eq!(
        exposed_ports("http").unwrap_err(),
        "invalid containerPort: http"
    );
    assert_eq!(exposed_ports("80/foo").unwrap_err(), "invalid proto: foo");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "(\\PC|\n|\\\\){0,200}") {
        let _ = Dockerfile::parse(&text);
        let _ = expanded(&text);
    }

    #[test]
    fn arbitrary_instructions_never_panic(
        name in "CMD|ENV|LABEL|EXPOSE|VOLUME|WORKDIR|HEALTHCHECK|ENTRYPOINT|ONBUILD|COPY|ADD|RUN|ARG|SHELL",
        rest in "\\PC{0,60}",
    ) {
        let _ = Dockerfile::parse(&format!("FROM a\n{name} {rest}\nRUN <<EOF\n{rest}\nEOF\n"));
    }
}
