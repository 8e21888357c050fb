//! What is undone, and by whom.

use std::time::Duration;

use super::failures::settled;
use ringway_protocol::State;

use super::old::OldSidecar;
use super::support::{Backend, Forwarder, World, eventually};

const QUICK: [&str; 4] = ["--probation", "4s", "--bake", "1s"];

on_both_backends! {
    fn a_harmful_release_is_undone_by_the_canary_alone(backend: Backend) {
        let world = World::new(backend, &QUICK);
        let shop = world.sidecar("shop", "node-shop", "");
        let web = world.sidecar("web", "node-web", "canary");
        world.until_served();
        settled(&world, 1);
        let before = shop.running();
        let load = world.load();
        world.write("shop.yaml", &world.harmful());
        eventually("the release is halted", || world.outcome(2).as_deref() == Some("halted"));
        eventually("the canary serves again", || world.ask("/").is_ok_and(|(s, _)| s == 200));
        load.stop();
        assert_eq!(shop.running(), before, "nobody else has applied it");
        let control = web.control().unwrap();
        let reason = control["last_refused"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("exchanges failed in the sidecar itself"), "{reason}");
        let text = world.push_badly(&["status"]);
        assert!(text.contains("halted") && text.contains("node-web"), "{text}");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(world.outcome(3), None, "what was undone is not released again by itself");
    }

    fn a_policy_that_cuts_off_the_pusher_is_undone(backend: Backend) {
        let world = World::new(backend, &QUICK);
        let between = Forwarder::new(world.listen());
        let _shop = world.sidecar("shop", "node-shop", "");
        let token = world.token("web", &[]);
        let web = world.sidecar_through(between.port, "node-web", "", &token);
        world.until_served();
        settled(&world, 1);
        let before = web.running().unwrap().0;
        // Streams that are open stay so, as they do under a policy that blocks new connections.
        between.set_open(false);
        world.write("shop.yaml", &world.harmless(1));
        eventually("it is applied", || world.ask("/r1").is_ok_and(|(_, body)| body == "r1"));
        eventually("the sidecar goes back by itself", || {
            web.running().is_some_and(|(generation, _)| generation == before)
        });
        assert_eq!(world.ask("/r1").unwrap().1, "shop");
        between.set_open(true);
        eventually("the release is halted", || world.outcome(2).as_deref() == Some("halted"));
        assert!(web.process.log().contains("the pusher could not be reached any more"));
    }

    fn what_one_sidecar_does_not_support_is_applied_by_nobody(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let (shop, web) = world.pair();
        settled(&world, 1);
        let before = (shop.running(), web.running());
        let old = OldSidecar::join(&world, "web", "node-old");
        let first = old.staged_with("");
        assert!(first.requires.iter().any(|needed| needed == "discovery-pushed"));
        old.report(&first, State::Staged, "");
        eventually("the old sidecar is to apply it", || old.is_committed(first.generation));
        old.report(&first, State::Confirmed, "");
        world.write("shop.yaml", &world.harmless(1));
        let second = old.staged_with("/r1");
        old.report(&second, State::Rejected, "unsupported: this version cannot do mutual-tls");
        eventually("the release is halted", || world.outcome(2).as_deref() == Some("halted"));
        let text = world.push_badly(&["status"]);
        assert!(text.contains("node-old") && text.contains("cannot do mutual-tls"), "{text}");
        assert_eq!((shop.running(), web.running()), before);
        assert!(!old.is_committed(second.generation));
    }

    fn the_second_of_two_releases_waits_for_the_first(backend: Backend) {
        let world = World::new(backend, &QUICK);
        let (_shop, _web) = world.pair();
        settled(&world, 1);
        world.write("shop.yaml", &world.harmless(1));
        eventually("the first is under way", || world.outcome(2).as_deref() == Some("running"));
        world.write("shop.yaml", &world.harmless(2));
        eventually("the second waits", || world.status()["waiting"] == true);
        let refused = world.push_badly(&["release", "-m", "now"]);
        assert!(refused.contains("release 2 is being rolled out"), "{refused}");
        eventually("both are confirmed, one after the other", || {
            ["confirmed"; 2] == [2, 3].map(|n| world.outcome(n).unwrap_or_default())[..]
        });
        assert_eq!(world.ask("/r2").unwrap().1, "r2");
    }

    fn operators_pause_hurry_abort_and_roll_back(backend: Backend) {
        let world = World::new(backend, &["--probation", "1s", "--bake", "60s"]);
        let (_shop, web) = world.pair();
        // The first release takes its time, too; `now` skips what is left.
        eventually("the first is confirmed", || {
            let _ = world.push(&["rollout", "now"]);
            world.outcome(1).as_deref() == Some("confirmed")
        });
        world.write("shop.yaml", &world.harmless(1));
        eventually("the second is applied", || {
            world.ask("/r1").is_ok_and(|(_, body)| body == "r1")
        });
        world.push_well(&["rollout", "pause"]);
        let text = String::from_utf8_lossy(&world.push(&["status"]).stdout).into_owned();
        assert!(text.contains("paused by local"), "{text}");
        world.push_well(&["rollout", "resume"]);
        world.push_well(&["rollout", "abort"]);
        eventually("it is halted", || world.outcome(2).as_deref() == Some("halted"));
        eventually("and waits for somebody", || world.status()["waiting"] == true);
        eventually("and undone", || world.ask("/r1").is_ok_and(|(_, body)| body == "shop"));
        world.push_well(&["release", "--now", "-m", "after all"]);
        eventually("it is released again", || world.outcome(3).as_deref() == Some("confirmed"));
        assert_eq!(world.ask("/r1").unwrap().1, "r1");
        world.push_well(&["rollback", "--now", "-m", "not after all"]);
        eventually("it is rolled back", || world.outcome(4).as_deref() == Some("confirmed"));
        assert_eq!(world.ask("/r1").unwrap().1, "shop");
        let generation = web.running().unwrap().0;
        assert!(generation > 6, "a rollback is a higher generation: {generation}");
        let history = world.push_well(&["history"]);
        assert!(history.contains("release 3: confirmed, by local: after all"), "{history}");
    }

    fn a_restarted_pusher_goes_on_where_it_was(backend: Backend) {
        let mut world = World::new(backend, &["--probation", "3s", "--bake", "3s"]);
        let (_shop, web) = world.pair();
        settled(&world, 1);
        world.write("shop.yaml", &world.harmless(1));
        eventually("it is on probation", || web.running().is_some_and(|(_, probation)| probation));
        world.pusher().kill();
        world.start_pusher();
        eventually("the release is confirmed", || world.outcome(2).as_deref() == Some("confirmed"));
        assert_eq!(world.outcome(3), None);
        assert_eq!(world.ask("/r1").unwrap().1, "r1");
    }
}
