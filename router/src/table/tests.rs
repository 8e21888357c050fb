use super::*;
use crate::{Format, load};

/// Compiles YAML that must be valid.
pub(crate) fn table(yaml: &str) -> Table {
    let loaded = load(yaml, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
    Table::compile(&loaded.config).unwrap()
}

const SMALL: &str = r#"
listeners:
  - {name: in, address: "127.0.0.1:0"}
routes:
  - name: reviews
    hosts: [reviews, "*.reviews.local"]
    rules:
      - matches: [{headers: [{name: end-user, exact: jason}]}]
        backends: [{cluster: b}]
      - matches: [{path: {prefix: /api}}]
        backends: [{cluster: a}]
        rewrite: {path: {prefix: /}}
      - backends: [{cluster: a, weight: 90}, {cluster: b, weight: 10}]
        timeout: 2s
clusters:
  - {name: a, endpoints: [{address: "10.0.0.1:80"}]}
  - {name: b, endpoints: [{address: "b.local:80"}]}
"#;

fn ask(table: &Table, host: &str, path: &str, fields: &[Field<'_>]) -> Option<usize> {
    let listener = ListenerId(0);
    let key = RequestKey { listener, host, path, query: None, method: "GET", fields };
    table.route(&key).map(RuleId::index)
}

#[test]
fn header_rule_beats_the_default_and_a_prefix_beats_both() {
    let table = table(SMALL);
    let jason = [Field { name: "End-User", value: b"jason" }];
    assert_eq!(ask(&table, "reviews", "/", &[]), Some(2));
    assert_eq!(ask(&table, "Reviews.:80", "/", &jason), Some(0));
    assert_eq!(ask(&table, "x.reviews.local", "/api/x", &jason), Some(1));
    assert_eq!(ask(&table, "reviews.local", "/api/x", &jason), None);
    assert_eq!(ask(&table, "reviews", "/apix", &[]), Some(2));
    println!("{}", crate::explain(&table, None, "GET", "http://reviews/api/x?y", &[]));
    println!("{}", crate::explain(&table, None, "GET", "http://reviews/", &[]));
}
