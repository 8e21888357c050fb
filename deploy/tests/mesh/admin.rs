//! What people and Prometheus look at.

use ringway_testing::metrics::complaints;

use super::failures::settled;
use super::support::{Backend, World, get};

on_both_backends! {
    fn prometheus_takes_the_metrics_of_the_pusher_and_of_a_sidecar_that_has_one(backend: Backend) {
        let world = World::new(backend, &["--profile", "dev"]);
        let (_shop, web) = world.pair();
        settled(&world, 1);
        for (port, expected) in [
            (world.admin, "ringway_push_sidecars{standing=\"current\"} 2"),
            (web.admin, "ringway_control_connected 1"),
        ] {
            let address = ([127, 0, 0, 1], port).into();
            let (status, metrics) = get(address, "admin", "/metrics").unwrap();
            assert_eq!((status, complaints(&metrics)), (200, String::new()));
            assert!(metrics.lines().any(|line| line == expected), "{expected}: {metrics}");
        }
    }
}
