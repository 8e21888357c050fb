//! Load time, memory and lookup time of tables of different sizes.
//!
//! `cargo run --release -p ringway-router --example scale`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use ringway_router::{Format, RequestKey, Table, load, load_table};

fn yaml(routes: usize) -> String {
    let mut text = String::from("listeners:\n  - {name: in, address: \"127.0.0.1:0\"}\nroutes:\n");
    for n in 0..routes {
        let cluster = n % 10;
        writeln!(
            text,
            "  - {{name: route-{n}, hosts: [h{n}.example.com], rules: [{{backends: [{{cluster: c{cluster}}}]}}]}}"
        )
        .unwrap();
    }
    text.push_str("clusters:\n");
    for n in 0..10 {
        writeln!(text, "  - {{name: c{n}, endpoints: [{{address: \"10.0.0.{n}:80\"}}]}}").unwrap();
    }
    text
}

fn json(routes: usize) -> String {
    let mut text = String::from(
        "{\"listeners\": [{\"name\": \"in\", \"address\": \"127.0.0.1:0\"}],\n\"routes\": [\n",
    );
    for n in 0..routes {
        let (comma, cluster) = (if n > 0 { "," } else { "" }, n % 10);
        writeln!(
            text,
            "{comma}{{\"name\": \"route-{n}\", \"hosts\": [\"h{n}.example.com\"], \"rules\": [{{\"backends\": [{{\"cluster\": \"c{cluster}\"}}]}}]}}"
        )
        .unwrap();
    }
    text.push_str("],\n\"clusters\": [");
    for n in 0..10 {
        let comma = if n > 0 { "," } else { "" };
        write!(
            text,
            "{comma}{{\"name\": \"c{n}\", \"endpoints\": [{{\"address\": \"10.0.0.{n}:80\"}}]}}"
        )
        .unwrap();
    }
    text.push_str("]}");
    text
}

fn measure(name: &str, text: &str, format: Format) -> Table {
    let mut best = (f64::MAX, f64::MAX);
    let mut table = None;
    for _ in 0..7 {
        let start = Instant::now();
        let loaded = load(text, format).unwrap();
        let load = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        table = Some(Table::compile(&loaded.config).unwrap());
        let compile = start.elapsed().as_secs_f64() * 1e3;
        if load + compile < best.0 + best.1 {
            best = (load, compile);
        }
    }
    let mut together = f64::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        let loaded = load_table(text, format).unwrap();
        together = together.min(start.elapsed().as_secs_f64() * 1e3);
        drop(loaded);
    }
    println!("  load_table {together:.2} ms");
    let table = table.unwrap();
    let routes = table.route_count();
    println!(
        "{name}: {routes} routes, {} bytes of text: load {:.2} ms, compile {:.2} ms; {} bytes, {:.1} a route, {:.1} beyond names",
        text.len(),
        best.0,
        best.1,
        table.bytes(),
        table.bytes() as f64 / routes as f64,
        (table.bytes() - table.text_bytes()) as f64 / routes as f64,
    );
    table
}

/// Nanoseconds of a lookup: the least of some rounds, hosts in a scattered order.
fn lookup(table: &Table, path: &str) -> f64 {
    let routes = table.route_count();
    let hosts: Vec<String> =
        (0..1 << 14).map(|n| format!("h{}.example.com", (n * 7919) % routes)).collect();
    let listener = table.listener_named("in").unwrap();
    let mut least = f64::MAX;
    for _ in 0..50 {
        let start = Instant::now();
        for host in &hosts {
            let key = RequestKey {
                listener,
                host,
                path,
                query: None,
                method: "GET",
                fields: &[],
                identity: None,
            };
            assert!(black_box(table.route(black_box(&key))).is_some());
        }
        least = least.min(start.elapsed().as_secs_f64() * 1e9 / hosts.len() as f64);
    }
    least
}

fn main() {
    for routes in [10, 1000, 100_000] {
        let table = measure("yaml", &yaml(routes), Format::Yaml);
        println!(
            "  lookup {:.0} ns, path of 5 segments {:.0} ns",
            lookup(&table, "/"),
            lookup(&table, "/a/b/c/d/e")
        );
    }
    let one = measure("json", &json(100_000), Format::Json);
    let other = measure("yaml", &yaml(100_000), Format::Yaml);
    assert_eq!(one.hash(), other.hash());
}
