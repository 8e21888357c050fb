//! What the folder may not do.

use std::fs;

use super::failures::settled;
use super::support::{Backend, World, eventually};

on_both_backends! {
    fn a_bad_object_stays_as_it_was_and_others_move_on(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let (_shop, _web) = world.pair();
        settled(&world, 1);
        world.write("bad.yaml", "routes:\n- {name: bad, service: nowhere, rules: [{respond: {}}]}\n");
        eventually("it is named", || {
            let text = String::from_utf8_lossy(&world.push(&["status"]).stdout).into_owned();
            text.contains("quarantined: route bad: left out") && text.contains("bad.yaml:2")
        });
        world.write("shop.yaml", &world.harmless(1));
        eventually("others move on", || world.ask("/r1").is_ok_and(|(_, body)| body == "r1"));
        world.write("shop.yaml", &world.harmless(1).replace("body: r1", "bodi: r1"));
        eventually("what was good stays", || {
            let text = String::from_utf8_lossy(&world.push(&["status"]).stdout).into_owned();
            text.contains("quarantined: route r1: kept")
        });
        assert_eq!(world.ask("/r1").unwrap().1, "r1");
        world.write("shop.yaml", "services: [");
        eventually("and when nothing can be read", || {
            world.status()["diagnostics"].to_string().contains("shop.yaml")
        });
        assert_eq!(world.ask("/r1").unwrap().1, "r1");
    }

    fn a_folder_that_is_suddenly_empty_is_held(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let mut more = String::from("services:\n");
        for nth in 0..8 {
            more += &format!("- {{name: s{nth}, identities: [], ports: [{{name: http, port: 80, protocol: http1}}]}}\n");
        }
        more += "endpoints:\n";
        for nth in 0..8 {
            more += &format!("- {{service: s{nth}, addresses: [{{address: \"127.0.0.1:{}\"}}]}}\n", nth + 1);
        }
        world.write("more.yaml", &more);
        let (_shop, web) = world.pair();
        settled(&world, 1);
        let before = web.running();
        for name in ["shop.yaml", "more.yaml"] {
            fs::remove_file(world.dir().join(name)).unwrap();
        }
        eventually("it is held", || !world.status()["held"].is_null());
        assert_eq!(world.ask("/").unwrap().0, 200);
        assert_eq!(web.running(), before);
        let refused = world.push_badly(&["release"]);
        assert!(refused.contains("--force"), "{refused}");
        world.push_well(&["release", "--force", "-m", "it is meant"]);
        eventually("who forces it has it", || world.status()["held"].is_null());
    }

    fn endpoints_that_all_vanish_are_kept_for_a_while(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let inbound = world.inbound;
        let two = format!("{{address: \"127.0.0.1:{inbound}\"}}, {{address: \"127.0.0.2:{inbound}\", weight: 0}}");
        let one = format!("{{address: \"127.0.0.1:{inbound}\"}}");
        world.write("shop.yaml", &world.mesh("").replace(&one, &two));
        let (_shop, web) = world.pair();
        world.write("shop.yaml", &world.mesh("").replace(&one, ""));
        let stale = || web.control().expect("a sidecar")["stale_clusters"].clone();
        eventually("they are marked", || stale() == serde_json::json!(["shop:http"]));
        assert_eq!(world.ask("/").unwrap().0, 200, "the last ones are kept");
        let status = String::from_utf8_lossy(&world.push(&["status"]).stdout).into_owned();
        assert!(status.contains("keeps the last endpoints of shop:http"), "{status}");
        world.write("shop.yaml", &world.mesh("").replace(&one, &two).replace("weight: 0", "weight: 1"));
        eventually("they are there again", || stale() == serde_json::json!([]));
    }
}
