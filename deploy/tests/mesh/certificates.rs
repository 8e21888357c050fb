//! Tokens, renewal, rotation of the root, denial.

use std::time::Duration;

use super::support::{Backend, Sidecar, World, eventually};

/// Lives for tests: root, issuer, leaf, operator, and how far clocks may differ.
const SHORT: [&str; 4] = ["--profile", "dev", "--lives", "20m,10m,16s,16s,1s"];

on_both_backends! {
    fn a_token_is_good_once_in_its_time_for_whom_it_is(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let once = world.token("web", &[]);
        let web = world.sidecar_with("first", "", &once);
        eventually("the first joins", || web.running().is_some());
        let short = world.token("web", &["--ttl", "1s"]);
        std::thread::sleep(Duration::from_millis(2100));
        for (node, token, word) in [
            ("again", once.as_str(), "the token is used up"),
            ("late", short.as_str(), "the token expired"),
            ("guess", "ringway-join-00000000000000000000000000000000", "the token is not known"),
            ("none", "", "the token is not known"),
        ] {
            let mut sidecar = world.sidecar_with(node, "", token);
            eventually(word, || sidecar.process.log().contains(word));
            assert!(sidecar.running().is_none());
            sidecar.process.kill();
        }
        let refused = world.push_badly(&["ca", "token", "create", "spiffe://cluster.local/operator/x"]);
        assert!(refused.contains("operator"), "{refused}");
    }

    fn a_pusher_of_another_mesh_does_not_get_the_token(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let other = World::new(backend, &["--profile", "dev"]);
        let config = world.path("astray.yaml");
        let mut sidecar = world.sidecar_with("astray", "", &world.token("web", &[]));
        sidecar.process.kill();
        let text = std::fs::read_to_string(&config).unwrap();
        let at = text.find("sha256:").unwrap();
        let wrong = text.replace(&text[at..at + 71], &other.bundle_hash());
        std::fs::write(&config, wrong).unwrap();
        sidecar.restart();
        eventually("it says so", || {
            sidecar.process.log().contains("the peer's certificate leads to no root")
                || sidecar.process.log().contains("no new certificate")
        });
        assert!(sidecar.running().is_none());
    }

    fn certificates_are_renewed_and_a_valid_one_outlives_the_pusher(backend: Backend) {
        let mut world = World::new(backend, &SHORT);
        let (shop, web) = world.pair();
        let load = world.load();
        let until = |sidecar: &Sidecar| {
            sidecar.control().and_then(|c| c["certificate"]["not_after"].as_u64()).unwrap_or(0)
        };
        let first = (until(&shop), until(&web));
        eventually("both renew", || until(&shop) > first.0 && until(&web) > first.1);
        world.pusher().kill();
        std::thread::sleep(Duration::from_secs(5));
        let last = (until(&shop), until(&web));
        world.start_pusher();
        eventually("both renew again", || until(&shop) > last.0 && until(&web) > last.1);
        assert_eq!(load.stop(), Vec::<String>::new());
    }

    fn after_its_expiry_a_sidecar_joins_again_by_its_token(backend: Backend) {
        let mut world = World::new(backend, &SHORT);
        let (_shop, web) = world.pair();
        world.pusher().kill();
        eventually("its certificate expires", || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let until = web.control().and_then(|c| c["certificate"]["not_after"].as_u64());
            until.is_some_and(|until| until < now.as_secs())
        });
        world.start_pusher();
        world.until_served();
        eventually("it is connected again", || web.control().unwrap()["connected"] == true);
    }

    fn the_root_is_replaced_under_load_without_a_failed_request(backend: Backend) {
        let world = World::new(backend, &SHORT);
        let (shop, web) = world.pair();
        let load = world.load();
        load.more(20);
        let before = world.push_well(&["ca", "show"]);
        world.push_well(&["ca", "rotate"]);
        let end = std::time::Instant::now() + Duration::from_secs(100);
        loop {
            let shown = world.push_well(&["ca", "show"]);
            if shown.contains("steady") && shown.lines().nth(2) != before.lines().nth(2) {
                break;
            }
            assert!(std::time::Instant::now() < end, "{shown}");
            std::thread::sleep(Duration::from_millis(500));
        }
        load.more(50);
        assert_eq!(load.stop(), Vec::<String>::new());
        for sidecar in [&shop, &web] {
            assert!(sidecar.control().unwrap()["certificate"]["epoch"].as_u64() >= Some(3));
        }
    }

    fn clocks_may_differ_by_ten_minutes(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let shop = world.sidecar_at("shop", "node-shop", -595);
        let web = world.sidecar_at("web", "node-web", 595);
        world.until_served();
        for sidecar in [&shop, &web] {
            assert_eq!(sidecar.control().unwrap()["connected"], true);
        }
    }

    fn a_denied_sidecar_is_cut_off(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let (_shop, web) = world.pair();
        let id = "spiffe://cluster.local/ns/default/sa/web";
        world.push_well(&["ca", "deny", id, "--reason", "stolen"]);
        eventually("shop refuses it", || world.ask("/").is_ok_and(|(status, _)| status == 503));
        eventually("the pusher does, too", || {
            web.control().is_some_and(|control| control["connected"] == false)
        });
        world.push_well(&["ca", "allow", id]);
        world.until_served();
    }
}
