//! The file changes while the proxy runs: nothing is closed, nothing fails, nothing is half done.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::support::http::End;
use crate::support::{Backend, Client, Origin, Proxy, eventually};

/// Reloads under load; more than the default in a soak, by `RINGWAY_RELOADS`.
const RELOADS_DEFAULT: usize = 400;

fn answering(text: &str) -> String {
    format!(
        "listeners: [{{name: web, address: '127.0.0.1:0'}}]\n\
         routes: [{{name: all, rules: [{{respond: {{status: 200, body: '{text}'}}}}]}}]\n"
    )
}

on_both_backends! {
    fn an_edit_takes_effect_on_an_open_connection(backend: Backend) {
        let proxy = Proxy::start(backend, &answering("one"));
        let mut client = proxy.client("web");
        assert_eq!(client.get("/").text(), "one");
        proxy.reload(&answering("two"));
        assert_eq!(client.get("/").text(), "two");
        proxy.counts("ringway_downstream_accepted_total", 1.0);
        assert_eq!(proxy.metric("ringway_config_generation"), 2.0);
    }

    fn a_wrong_file_changes_nothing_and_is_reported_everywhere(backend: Backend) {
        let proxy = Proxy::start(backend, &answering("good"));
        proxy.write_config("listeners: [{name: web, adress: nowhere}]\n");
        eventually("the file is rejected", || proxy.metric("ringway_config_rejected_total") == 1.0);
        assert_eq!(proxy.client("web").get("/").text(), "good");
        assert_eq!(proxy.metric("ringway_config_valid"), 0.0);
        let (status, ready) = proxy.admin("/ready");
        assert_eq!(status, 200, "a proxy with a good table is ready");
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let problem = ready["config"]["problem"].as_str().unwrap();
        assert!(problem.contains("adress") && problem.contains("2:25:"), "{problem}");
        eventually("the log says so", || {
            proxy.log().iter().any(|line| line.contains("rejected") && line.contains("adress"))
        });
        proxy.reload(&answering("better"));
        assert_eq!(proxy.client("web").get("/").text(), "better");
        assert_eq!(proxy.metric("ringway_config_valid"), 1.0);
    }

    fn a_file_that_disappears_leaves_the_table_in_place(backend: Backend) {
        let proxy = Proxy::start(backend, &answering("good"));
        std::fs::remove_file(proxy.config_path()).unwrap();
        eventually("it is noticed", || proxy.metric("ringway_config_rejected_total") >= 1.0);
        assert_eq!(proxy.client("web").get("/").text(), "good");
        proxy.reload(&answering("back"));
        assert_eq!(proxy.client("web").get("/").text(), "back");
    }

    fn a_config_map_swap_is_noticed(backend: Backend) {
        let proxy = Proxy::start(backend, &answering("one"));
        let folder = proxy.folder();
        // What the kubelet does: a folder per version, `..data` points to the newest.
        for (version, text) in [("v1", "two"), ("v2", "three")] {
            std::fs::create_dir(folder.join(version)).unwrap();
            let config = format!("admin: 127.0.0.1:0\n{}", answering(text));
            std::fs::write(folder.join(version).join("ringway.yaml"), config).unwrap();
        }
        symlink("v1", folder.join("..data")).unwrap();
        std::fs::remove_file(proxy.config_path()).unwrap();
        symlink("..data/ringway.yaml", proxy.config_path()).unwrap();
        eventually("the first version", || proxy.client("web").get("/").text() == "two");
        symlink("v2", folder.join("..next")).unwrap();
        std::fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
        eventually("the swap", || proxy.client("web").get("/").text() == "three");
    }

    fn sighup_reads_the_file_again(backend: Backend) {
        let proxy = Proxy::start(backend, &answering("one"));
        let applied = proxy.metric("ringway_config_applied_total");
        proxy.signal("HUP");
        eventually("it is applied again", || {
            proxy.metric("ringway_config_applied_total") == applied + 1.0
        });
    }

    fn a_new_listener_that_cannot_bind_rejects_the_whole_file(backend: Backend) {
        let proxy = Proxy::start(backend, &answering("old"));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let config = answering("new").replace(
            "listeners: [",
            &format!("listeners: [{{name: taken, address: '127.0.0.1:{port}'}}, "),
        );
        proxy.write_config(&config);
        eventually("it is rejected", || proxy.metric("ringway_config_rejected_total") == 1.0);
        assert_eq!(proxy.client("web").get("/").text(), "old");
        let (_, ready) = proxy.admin("/ready");
        assert!(ready.contains("taken") && ready.contains(&port.to_string()), "{ready}");
    }

    fn a_removed_listener_closes_and_its_connections_live_on(backend: Backend) {
        let spare = crate::support::free_address();
        let both = answering("served").replace(
            "listeners: [",
            &format!("listeners: [{{name: extra, address: '{spare}'}}, "),
        );
        let proxy = Proxy::start(backend, &both);
        let mut kept = Client::connect(spare);
        assert_eq!(kept.get("/").text(), "served");
        proxy.reload(&answering("served again"));
        eventually("the port is closed", || std::net::TcpStream::connect(spare).is_err());
        assert_eq!(kept.get("/").text(), "served", "with the last table that had its listener");
        assert_eq!(proxy.client("web").get("/").text(), "served again");
        proxy.reload(&both.replace("served", "back"));
        assert_eq!(Client::connect(spare).get("/").text(), "back");
    }

    fn a_changed_cluster_leaves_tunnels_alone(backend: Backend) {
        let old = Origin::connections(|mut stream, _| {
            let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        });
        let new = Origin::connections(|mut stream, _| {
            std::io::Write::write_all(&mut stream, b"new").unwrap();
        });
        let proxy = Proxy::start(backend, &old.config());
        let mut tunnel = proxy.client("raw");
        assert_eq!(tunnel.send("one").take(3), b"one");
        proxy.reload(&old.config().replace(&old.address.to_string(), &new.address.to_string()));
        assert_eq!(tunnel.send("two").take(3), b"two");
        assert_eq!(proxy.client("raw").take(3), b"new");
        assert_eq!(tunnel.finish().end(), End::Finished);
    }

    fn reloads_under_load_lose_no_request_and_no_connection(backend: Backend) {
        let reloads = std::env::var("RINGWAY_RELOADS")
            .map_or(RELOADS_DEFAULT, |number| number.parse().unwrap());
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let before = proxy.metric("ringway_downstream_accepted_total");
        let seconds = reloads / 20 + 5;
        let mut wrk = Command::new("wrk")
            .args(["-t1", "-c8", &format!("-d{seconds}s")])
            .arg(format!("http://{}/", proxy.address("web")))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        for number in 0..reloads {
            let done = settled(&proxy);
            // Every third is wrong, each in its own way; every good one is another table.
            let config = match number % 3 {
                0 => format!("{}# {number}\nno such field: {number}\n", origin.config()),
                1 => format!("# {number}\n{}", origin.config()),
                _ => origin.config().replace("name: all", &format!("name: route-{number}")),
            };
            proxy.write_config(&config);
            eventually("the file is settled", || settled(&proxy) > done);
            assert_eq!(settled(&proxy), done + 1, "one file, one verdict");
        }
        assert!(wrk.try_wait().unwrap().is_none(), "the load outlasts the reloads");
        let output = wrk.wait_with_output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(!output.contains("Socket errors") && !output.contains("Non-2xx"), "{output}");
        // wrk connects once more, before it starts, to see whether the address answers.
        let accepted = proxy.metric("ringway_downstream_accepted_total") - before;
        assert_eq!(accepted, 9.0, "no connection was closed: {output}");
        println!("{reloads} reloads: {output}");
    }
}

/// Files that the proxy has decided about.
fn settled(proxy: &Proxy) -> u64 {
    let (_, ready) = proxy.admin("/ready");
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    ready["config"]["applied"].as_u64().unwrap() + ready["config"]["rejected"].as_u64().unwrap()
}
