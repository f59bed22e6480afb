use std::collections::BTreeMap;

use super::{Functions, NoFunctions, TemplateError, Value, expand};

fn data() -> Value {
    let labels = [("tier", "front"), ("zone", "a")];
    let labels = labels.map(|(k, v)| (k.to_owned(), Value::text(v)));
    let service = BTreeMap::from([
        ("Name", Value::text("web")),
        ("Labels", Value::Map(labels.into())),
    ]);
    let task = BTreeMap::from([("Slot", Value::text("3"))]);
    Value::Struct(BTreeMap::from([
        ("Service", Value::Struct(service)),
        ("Task", Value::Struct(task)),
    ]))
}

fn done(text: &str) -> String {
    expand(text, &data(), &NoFunctions).unwrap()
}

fn refused(text: &str) -> String {
    expand(text, &data(), &NoFunctions).unwrap_err().to_string()
}

#[test]
fn fields_and_pipelines() {
    assert_eq!(done("plain } text"), "plain } text");
    assert_eq!(done("{{.Service.Name}}-{{ .Task.Slot }}!"), "web-3!");
    assert_eq!(done(r#"{{ index .Service.Labels "tier" }}"#), "front");
    assert_eq!(done(r#"{{ index .Service.Labels "none" }}"#), "");
    assert_eq!(done("{{ .Service.Labels.zone }}"), "a");
    assert_eq!(done("{{ $.Service.Name }}"), "web");
    assert_eq!(
        done(r#"{{ .Task.Slot | printf "%s-%05s|%-3d|" "a" }}"#),
        "a-00003|%!d(MISSING)|"
    );
    assert_eq!(done(r#"{{ join "," "a" (print 1 2) `b` }}"#), "a,1 2,b");
    assert_eq!(done("{{ .Service.Labels }}"), "map[tier:front zone:a]");
    assert_eq!(done("{{ len .Service.Name }}"), "3");
}

#[test]
fn blocks_trimming_and_variables() {
    let text = r#"{{ if eq .Task.Slot "1" "3" }}primary{{ else }}replica{{ end }}"#;
    assert_eq!(done(text), "primary");
    let text =
        "{{ if eq .Task.Slot \"1\" }}a{{ else if ne .Task.Slot \"2\" }}b{{ else }}c{{ end }}";
    assert_eq!(done(text), "b");
    let text = "{{ range $k, $v := .Service.Labels }}{{ $k }}={{ $v }};{{ end }}";
    assert_eq!(done(text), "tier=front;zone=a;");
    assert_eq!(done("a {{- /* note */ -}} b"), "ab");
    assert_eq!(done("a\n{{- .Task.Slot -}}\n b"), "a3b");
    assert_eq!(
        done("{{ $x := .Task.Slot }}{{ with .Service }}{{ .Name }}{{ $x }}{{ end }}"),
        "web3"
    );
    assert_eq!(
        done("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}"),
        "2"
    );
    assert_eq!(
        done("{{ and true .Task.Slot }}{{ or false 0 \"x\" }}{{ not false }}"),
        "3xtrue"
    );
}

#[test]
fn mistakes_are_errors_not_text() {
    assert_eq!(
        refused("{{ .Nope }}"),
        "template: expansion: can't evaluate field Nope in type struct"
    );
    assert_eq!(
        refused("{{ .Service.Labels.none }}"),
        "template: expansion: map has no entry for key \"none\""
    );
    assert_eq!(
        refused("{{ nope }}"),
        "template: expansion: function \"nope\" not defined"
    );
    assert_eq!(
        refused("{{ .Task.Slot"),
        "template: expansion: unclosed action"
    );
    assert!(refused("{{ if true }}").contains("unexpected EOF"));
    assert!(refused("{{ end }}").contains("unexpected {{end}}"));
    assert!(refused("{{ eq 1 \"a\" }}").contains("incompatible types"));
    assert!(refused("{{ .Task.Slot 1 }}").contains("can't give argument to non-function"));
    assert!(refused(&"{{ if true }}".repeat(200)).contains("nested too deeply"));
    assert!(refused(&format!("{{{{ {} }}}}", "(".repeat(10_000))).contains("nested too deeply"));
}

#[test]
fn functions_of_the_caller_are_called() {
    struct Shout;
    impl Functions for Shout {
        fn has(&self, name: &str) -> bool {
            name == "shout"
        }
        fn call(&self, _: &str, arguments: &[Value]) -> Result<Value, String> {
            match arguments {
                [Value::Text(text)] => Ok(Value::Text(text.to_uppercase())),
                _ => Err("what?".to_owned()),
            }
        }
    }
    let expand = |text| expand(text, &data(), &Shout);
    assert_eq!(expand("{{ shout .Service.Name }}").unwrap(), "WEB");
    assert_eq!(
        expand("{{ shout }}"),
        Err(TemplateError::Execute(
            "error calling shout: what?".to_owned()
        ))
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(\\{\\{|\\}\\}|-|\\.|\\$|[a-z ]|\"|`|\\(|\\)|\\||:=|if |end|else|range |é){0,40}") {
        let _ = expand(&text, &data(), &NoFunctions);
    }
}
