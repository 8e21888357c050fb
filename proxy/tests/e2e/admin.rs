//! The admin interface, as probes and Prometheus see it.

use ringway_testing::metrics::complaints;

use crate::support::{Backend, Client, Origin, Proxy};

on_both_backends! {
    fn metrics_pass_promtool(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let mut client = proxy.client("web");
        for _ in 0..20 {
            assert_eq!(client.get("/").status, 200);
        }
        let (status, metrics) = proxy.admin("/metrics");
        assert_eq!(status, 200);
        assert_eq!(complaints(&metrics), "");
        proxy.counts("ringway_route_requests_total{route=\"all\",class=\"2xx\"}", 20.0);
        proxy.counts("ringway_route_latency_seconds_count{route=\"all\"}", 20.0);
    }

    fn ready_live_and_config_say_what_runs(backend: Backend) {
        let origin = Origin::echo();
        let proxy = Proxy::start(backend, &origin.config());
        let json = |path: &str| -> serde_json::Value {
            let (status, body) = proxy.admin(path);
            assert_eq!(status, 200);
            serde_json::from_str(&body).unwrap()
        };
        assert_eq!(json("/ready")["backend"], backend.name());
        assert_eq!(json("/ready")["status"], "ready");
        let config = json("/config");
        assert_eq!(config["table"].as_str().unwrap().len(), 64);
        assert_eq!(config["table"], json("/ready")["config"]["table"]);
        assert_eq!(config["clusters"][0]["endpoints"][0]["address"], origin.address.to_string());
        assert_eq!(proxy.admin("/live"), (200, "live\n".to_owned()));
        assert_eq!(proxy.admin("/nothing").0, 404);
    }

    fn the_admin_interface_is_read_only(backend: Backend) {
        let proxy = Proxy::start(backend, &Origin::echo().config());
        let mut client = Client::connect(proxy.admin);
        client.send("POST /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status, 405);
        assert_eq!(response.header("allow"), Some("GET, HEAD"));
    }

    fn requests_allocate_nothing_in_steady_state(backend: Backend) {
        let origin = Origin::echo();
        let config = origin.config().replace(
            "backends: [{cluster: origin}]",
            "backends: [{cluster: origin}], timeout: 5s, \
             request_headers: {remove: [x-secret], set: {x-mesh: ringway}, add: {x-hop: '1'}}, \
             response_headers: {set: {x-served-by: ringway}}",
        );
        let proxy = Proxy::start(backend, &config);
        let mut client = proxy.client("web");
        let mut run = |requests: usize| {
            for _ in 0..requests {
                let response = client.get("/some/path?with=query");
                assert_eq!(response.status, 200);
                assert!(response.text().contains("x-mesh: ringway"));
            }
        };
        // The connection, the block pool and the pages of the histograms come first; a latency
        // that no request had before touches one more page, once in the life of the process.
        run(500);
        let mut windows = Vec::new();
        while windows.len() < 5 && windows.last() != Some(&0.0) {
            let before = proxy.metric("ringway_worker_allocations_total");
            run(10_000);
            windows.push(proxy.metric("ringway_worker_allocations_total") - before);
        }
        assert_eq!(windows.last(), Some(&0.0), "allocations per 10 000 requests: {windows:?}");
    }
}
