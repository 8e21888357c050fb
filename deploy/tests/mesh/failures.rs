//! Who dies when: the pusher, a sidecar, a disk.

use std::fs;
use std::time::{Duration, Instant};

use super::old::OldSidecar;
use super::support::{Backend, World, eventually, get};

on_both_backends! {
    fn a_pusher_that_is_killed_disturbs_nobody(backend: Backend) {
        let mut world = World::new(backend, &["--profile", "dev"]);
        let (shop, web) = world.pair();
        let load = world.load();
        load.more(20);
        world.pusher().kill();
        eventually("both notice", || {
            [&shop, &web].iter().all(|one| one.control().is_some_and(|c| c["connected"] == false))
        });
        load.more(50);
        world.start_pusher();
        eventually("both are back", || {
            [&shop, &web].iter().all(|one| one.control().is_some_and(|c| c["connected"] == true))
        });
        world.write("shop.yaml", &world.harmless(1));
        eventually("and take what is new", || {
            world.ask("/r1").is_ok_and(|(_, body)| body == "r1")
        });
        load.more(20);
        assert_eq!(load.stop(), Vec::<String>::new());
    }

    fn a_sidecar_starts_while_the_pusher_is_gone(backend: Backend) {
        let mut world = World::new(backend, &["--profile", "dev"]);
        let (mut shop, mut web) = world.pair();
        world.pusher().kill();
        for sidecar in [&mut shop, &mut web] {
            sidecar.process.kill();
            sidecar.restart();
        }
        let began = Instant::now();
        world.until_served();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(web.running().is_some());
        assert_eq!(web.control().unwrap()["connected"], false);
    }

    fn a_damaged_policy_on_disk_is_not_used_and_the_one_before_is(backend: Backend) {
        let mut world = World::new(backend, &["--profile", "dev"]);
        let (_shop, mut web) = world.pair();
        settled(&world, 1);
        let first = web.running().unwrap().0;
        world.write("shop.yaml", &world.harmless(1));
        eventually("the second is confirmed", || {
            web.running().is_some_and(|(generation, probation)| generation > first && !probation)
        });
        world.pusher().kill();
        web.process.kill();
        let hash = {
            let record = fs::read_to_string(web.state.join("record.json")).unwrap();
            let record: serde_json::Value = serde_json::from_str(&record).unwrap();
            record["current"]["hash"].as_str().unwrap().to_owned()
        };
        let path = web.state.join("policies").join(format!("{hash}.json"));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        web.restart();
        world.until_served();
        assert_eq!(web.running().unwrap().0, first);
        assert!(web.process.log().contains("is not what was written"));
        assert_eq!(world.ask("/r1").unwrap().1, "shop", "the route of the second is not there");
        world.start_pusher();
        eventually("the pusher brings it up again", || {
            world.ask("/r1").is_ok_and(|(_, body)| body == "r1")
        });
    }

    fn a_crash_on_probation_starts_with_what_was_before_and_halts_the_release(backend: Backend) {
        let waits = ["--probation", "20s", "--bake", "1s"];
        let world = World::new(backend, &waits);
        let (_shop, mut web) = world.pair();
        settled(&world, 1);
        let before = web.running().unwrap().0;
        world.write("shop.yaml", &world.harmless(1));
        eventually("it is on probation", || web.running().is_some_and(|(_, probation)| probation));
        web.process.kill();
        web.restart();
        eventually("the release is halted", || world.outcome(2).as_deref() == Some("halted"));
        world.until_served();
        assert_eq!(world.ask("/r1").unwrap().1, "shop");
        assert!(web.running().unwrap().0 == before || web.running().unwrap().0 > before);
        let text = world.push_badly(&["status"]);
        assert!(text.contains("the process ended while it was on probation"), "{text}");
    }

    fn a_sidecar_that_cannot_keep_a_policy_refuses_it_and_nobody_applies_it(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let (shop, web) = world.pair();
        settled(&world, 1);
        let before = (shop.running(), web.running());
        // As a full disk: a file where the folder of the policies was.
        let policies = web.state.join("policies");
        fs::rename(&policies, web.state.join("elsewhere")).unwrap();
        fs::write(&policies, "").unwrap();
        world.write("shop.yaml", &world.harmless(1));
        eventually("the release is halted", || world.outcome(2).as_deref() == Some("halted"));
        let text = world.push_badly(&["status"]);
        assert!(text.contains("node-web") && text.contains("it cannot be kept"), "{text}");
        assert_eq!((shop.running(), web.running()), before, "nobody has applied it");
        assert_eq!(world.ask("/").unwrap().0, 200);
    }

    fn one_node_cannot_have_two_sidecars_on_one_state(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let web = world.sidecar("web", "node-web", "");
        eventually("it has joined", || web.running().is_some());
        let mut second = world.sidecar_with("node-web", "", "none");
        eventually("the second says why not", || {
            second.process.log().contains("is in use by another process")
        });
        second.process.kill();
    }
}

/// The backend has no part in it.
#[test]
fn a_sidecar_that_reports_without_end_is_told_to_come_back_later() {
    let world = World::new(Backend::Epoll, &["--profile", "dev"]);
    let old = OldSidecar::join(&world, "web", "node-old");
    old.staged_with("");
    let answers = old.report_nothing(60);
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|it| it.0 == 204);
    assert!((20..40).contains(&taken.len()), "{} were taken", taken.len());
    for (status, wait) in refused {
        assert!(status == 429 && wait.is_some_and(|wait| (1..=10).contains(&wait)), "{status}");
    }
    eventually("later it may", || old.report_nothing(1)[0].0 == 204);
    let (_, metrics) = get(([127, 0, 0, 1], world.admin).into(), "admin", "/metrics").unwrap();
    let shed = metrics.lines().find(|line| line.starts_with("ringway_push_requests_shed_total"));
    assert!(shed.is_some_and(|line| line.contains("429") && !line.ends_with(" 0")), "{shed:?}");
}

/// Waits until release `number` is the last good one.
pub fn settled(world: &World, number: u64) {
    eventually("the release is confirmed", || {
        world.outcome(number).as_deref() == Some("confirmed")
            && world.status()["rollout"]["confirmed"].as_u64() >= Some(2)
    });
}
