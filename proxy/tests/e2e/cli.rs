//! The command line: exit codes, and words that help.

use std::process::{Command, Output};

use crate::support::pki::Authority;
use crate::support::proxy::binary;

fn ringway(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringway.yaml");
    std::fs::write(&path, content).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

const GOOD: &str = "\
listeners: [{name: web, address: '127.0.0.1:0'}]
routes:
- name: shop
  hosts: [shop.example]
  rules:
  - matches: [{path: {prefix: /cart}}]
    backends: [{cluster: cart}]
  - respond: {status: 200, body: 'shop'}
clusters: [{name: cart, endpoints: [{address: '127.0.0.1:1'}]}]
";

#[test]
fn check_accepts_a_good_file_and_names_its_table() {
    let (_folder, path) = file(GOOD);
    let output = ringway(&["check", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("1 listeners, 1 routes, 1 clusters"), "{said}");
}

#[test]
fn check_prints_every_problem_with_its_place() {
    let (_folder, path) = file(
        "listeners: [{name: web, adress: '127.0.0.1:0'}]\n\
         routes:\n- name: a\n  rules: [{backends: [{cluster: nobody}]}]\n",
    );
    let output = ringway(&["check", &path]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(
        said.contains(":1:25:") && said.contains("adress") && said.contains("address"),
        "{said}"
    );
    assert!(said.contains(":4:") && said.contains("nobody"), "{said}");
    assert!(!said.contains('\x1b'), "no colour without a terminal");
}

#[test]
fn check_of_a_file_that_is_not_there_is_a_configuration_error() {
    let output = ringway(&["check", "/no/such/file.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("/no/such/file.yaml"));
}

#[test]
fn explain_names_the_rule_and_the_reason() {
    let (_folder, path) = file(GOOD);
    let output = ringway(&["explain", &path, "GET", "http://shop.example/cart/1"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("shop") && said.contains("/cart") && said.contains("cart"), "{said}");
    let output = ringway(&["explain", &path, "GET", "/cart", "-H", "Host: other.example"]);
    assert_eq!(output.status.code(), Some(1), "nothing answers it");
}

#[test]
fn explain_takes_the_identity_of_the_client() {
    let (_folder, path) = file(
        "listeners: [{name: web, address: '127.0.0.1:0'}]\n\
         routes:\n- name: a\n  rules:\n  - matches: [{identity: 'spiffe://d/ns/*'}]\n\
         \x20   respond: {status: 200}\n",
    );
    let explain = |more: &[&str]| ringway(&[&["explain", &path, "GET", "/"], more].concat());
    let output = explain(&["--identity", "spiffe://d/ns/web"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("from spiffe://d/ns/web"), "{}", text(&output.stdout));
    let output = explain(&[]);
    assert_eq!(output.status.code(), Some(1), "nobody has proved anything");
    assert!(text(&output.stdout).contains("not proved to be spiffe://d/ns/*"));
}

#[test]
fn certificate_files_are_checked_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.yaml");
    let text = "identity: {certificate: a.crt, key: a.key, trust_bundle: ca.crt}\n\
                listeners: [{name: web, address: '127.0.0.1:0', mtls: strict}]\n";
    std::fs::write(&file, text).unwrap();
    let authority = Authority::new("mesh");
    let check = || {
        let output = ringway(&["check", file.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (code, words) = check();
    assert!(code == Some(78) && words.contains("a.crt: No such file"), "{words}");
    let (first, second) = (authority.member("spiffe://t/a"), authority.member("spiffe://t/a"));
    put("a.crt", &first.certificate);
    put("a.key", &second.key);
    put("ca.crt", &authority.pem);
    let (code, words) = check();
    assert!(code == Some(78) && words.contains("a.key"), "{words}");
    put("a.key", &first.key);
    assert_eq!(check().0, Some(0));
    put("ca.crt", &Authority::new("another").pem);
    assert_eq!(check().0, Some(78));
    put("a.key", "-----BEGIN PRIVATE KEY-----\n");
    assert_eq!(check().0, Some(78));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [&["dance"][..], &["run"], &["run", "--config", "x", "--workers", "0"]] {
        assert_eq!(ringway(arguments).status.code(), Some(64), "{arguments:?}");
    }
    let version = ringway(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).starts_with("ringway 0."));
}

#[test]
fn help_says_what_each_command_does() {
    let help = text(&ringway(&["--help"]).stdout);
    for word in ["run", "check", "explain", "--version"] {
        assert!(help.contains(word), "{word} in {help}");
    }
}
