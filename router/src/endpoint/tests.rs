//! Choosing endpoints: shares and loads against naive counts, addresses that come and go.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{Format, load};

fn table(clusters: &str) -> Table {
    let yaml =
        format!("listeners: [{{name: in, address: \"127.0.0.1:0\"}}]\nclusters: {clusters}\n");
    let loaded = load(&yaml, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
    Table::compile(&loaded.config).unwrap()
}

/// One cluster with endpoints of these weights.
fn weighted(weights: &[u32]) -> EndpointTable {
    let endpoint = |(n, weight)| format!("{{address: \"10.0.0.1:{}\", weight: {weight}}}", n + 1);
    let endpoints: Vec<String> = weights.iter().enumerate().map(endpoint).collect();
    let table = table(&format!("[{{name: a, endpoints: [{}]}}]", endpoints.join(", ")));
    EndpointTable::build(&table, &Addresses::new(), None)
}

const ID: ClusterId = ClusterId(0);

fn port(endpoint: Option<&Endpoint>) -> u16 {
    endpoint.unwrap().address.port()
}

/// A sequence of well mixed numbers (splitmix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn of_two_endpoints_the_lighter_is_picked() {
    let endpoints = weighted(&[1, 1]);
    let busy = endpoints.cluster(ID)[0].begin();
    for n in 0..100 {
        let picked = endpoints.pick(ID, Balance::LeastRequest, &mut 0, mix(n), None);
        assert_eq!(port(picked), 2);
    }
    drop(busy);
    assert_eq!(endpoints.cluster(ID)[0].load.in_flight(), 0);
}

#[test]
fn idle_endpoints_share_by_weight_under_least_request() {
    let endpoints = weighted(&[1, 3, 0, 4]);
    let mut counts = HashMap::new();
    for n in 0..80_000 {
        let picked = endpoints.pick(ID, Balance::RoundRobin, &mut (n as u32), mix(n), None);
        *counts.entry(port(picked)).or_insert(0) += 1;
    }
    assert_eq!(counts, HashMap::from([(1, 10_000), (2, 30_000), (4, 40_000)]));
}

/// Exchanges of equal length, so many at once: each endpoint holds its share of them.
#[test]
fn load_under_least_request_follows_the_weights() {
    let endpoints = weighted(&[1, 3, 4]);
    let mut running = std::collections::VecDeque::new();
    for n in 0..20_000 {
        let picked = endpoints.pick(ID, Balance::LeastRequest, &mut 0, mix(n), None).unwrap();
        running.push_back(picked.begin());
        if running.len() > 160 {
            running.pop_front();
        }
    }
    let loads: Vec<u32> = endpoints.cluster(ID).iter().map(|e| e.load.in_flight()).collect();
    assert!(loads[0].abs_diff(20) < 10 && loads[1].abs_diff(60) < 15, "{loads:?}");
}

#[test]
fn endpoint_to_avoid_is_picked_only_when_it_is_alone() {
    let endpoints = weighted(&[1, 1, 1]);
    let avoid = endpoints.cluster(ID)[1].slot;
    for balance in [Balance::LeastRequest, Balance::RoundRobin] {
        for n in 0..200 {
            let picked = endpoints.pick(ID, balance, &mut (n as u32), mix(n), Some(avoid)).unwrap();
            assert_ne!(picked.slot, avoid);
        }
        let alone = weighted(&[1]);
        let only = alone.cluster(ID)[0].slot;
        assert!(alone.pick(ID, balance, &mut 0, 0, Some(only)).is_some());
        let alone = weighted(&[0, 1]);
        let only = alone.cluster(ID)[1].slot;
        for n in 0..20 {
            let picked = alone.pick(ID, balance, &mut (n as u32), mix(n), Some(only)).unwrap();
            assert_eq!(picked.slot, only);
        }
    }
}

#[test]
fn cluster_without_weight_has_nobody_to_pick() {
    for weights in [&[][..], &[0], &[0, 0]] {
        let endpoints = weighted(weights);
        assert!(endpoints.pick(ID, Balance::LeastRequest, &mut 0, 1, None).is_none());
        assert!(endpoints.pick(ID, Balance::RoundRobin, &mut 0, 1, None).is_none());
    }
}

#[test]
fn heavy_endpoints_are_spread_over_the_round() {
    let endpoints = weighted(&[1, 5]);
    let mut cursor = 0;
    let mut turn = || port(endpoints.pick(ID, Balance::RoundRobin, &mut cursor, 0, None));
    let round: Vec<u16> = (0..12).map(|_| turn()).collect();
    assert_eq!(round.iter().filter(|port| **port == 1).count(), 2, "{round:?}");
    let light: Vec<usize> = (0..12).filter(|n| round[*n] == 1).collect();
    assert_eq!(light[1] - light[0], 6);
}

#[test]
fn cursor_may_wrap() {
    let endpoints = weighted(&[1, 1, 1]);
    let mut cursor = u32::MAX;
    for _ in 0..10 {
        assert!(endpoints.pick(ID, Balance::RoundRobin, &mut cursor, 0, None).is_some());
    }
}

#[test]
fn names_to_resolve_are_listed_once_and_the_last_good_answer_stays() {
    let table = table(
        "[{name: a, endpoints: [{address: \"x:1\"}, {address: \"10.0.0.1:1\"}]}, \
          {name: b, endpoints: [{address: \"y:1\"}, {address: \"x:1\"}]}]",
    );
    assert_eq!(Addresses::names(&table), ["x:1", "y:1"]);
    let mut addresses = Addresses::new();
    let address = |n: u8| SocketAddr::from(([10, 0, 0, n], 1));
    assert!(addresses.resolved("x:1", vec![address(2), address(1), address(2)]));
    assert!(!addresses.resolved("x:1", vec![address(1), address(2)]));
    assert!(!addresses.resolved("x:1", vec![]));
    assert_eq!(addresses.of("x:1"), [address(1), address(2)]);
    let endpoints = EndpointTable::build(&table, &addresses, None);
    // The literal address repeats what the name resolved to: one endpoint.
    assert_eq!(endpoints.cluster(ClusterId(0)).len(), 2);
    assert_eq!(endpoints.cluster(ClusterId(1)).len(), 2);
    let many: Vec<SocketAddr> =
        (0..300).map(|n| SocketAddr::from(([10, 0, 0, 1], n + 1))).collect();
    addresses.resolved("y:1", many);
    assert_eq!(addresses.of("y:1").len(), ADDRESSES_MAX);
}

#[test]
fn endpoint_keeps_slot_and_load_while_cluster_name_and_address_stay() {
    let before =
        table("[{name: a, endpoints: [{address: \"10.0.0.1:1\"}, {address: \"10.0.0.2:1\"}]}]");
    let after = table(
        "[{name: new, endpoints: [{address: \"10.0.0.2:1\"}]}, \
          {name: a, endpoints: [{address: \"10.0.0.2:1\", weight: 7}]}]",
    );
    let first = EndpointTable::build(&before, &Addresses::new(), None);
    let exchange = first.cluster(ID)[1].begin();
    let second = EndpointTable::build(&after, &Addresses::new(), Some(&first));
    let kept = &second.cluster(ClusterId(1))[0];
    assert_eq!((kept.slot, kept.weight), (first.cluster(ID)[1].slot, 7));
    assert_eq!(kept.load.in_flight(), 1);
    drop(exchange);
    assert_eq!(kept.load.in_flight(), 0);
    let new = &second.cluster(ClusterId(0))[0];
    assert_ne!(new.slot, kept.slot);
}

#[test]
fn slot_is_given_again_only_when_nobody_holds_its_load() {
    let one = table("[{name: a, endpoints: [{address: \"10.0.0.1:1\"}]}]");
    let other = table("[{name: a, endpoints: [{address: \"10.0.0.2:1\"}]}]");
    let build = |table, previous: &EndpointTable| {
        EndpointTable::build(table, &Addresses::new(), Some(previous))
    };
    let first = EndpointTable::build(&one, &Addresses::new(), None);
    let pooled = Arc::clone(&first.cluster(ID)[0].load);
    let second = build(&other, &first);
    assert_eq!(second.cluster(ID)[0].slot.index(), 1);
    drop(first);
    let third = build(&one, &second);
    assert_eq!(third.cluster(ID)[0].slot.index(), 2, "a pooled connection holds slot 0");
    drop((pooled, second));
    let fourth = build(&other, &third);
    assert_eq!(fourth.cluster(ID)[0].slot.index(), 0);
    assert_eq!(fourth.slot_count(), 3);
}

#[test]
fn slots_stay_bounded_over_many_changes() {
    let mut endpoints: Option<EndpointTable> = None;
    for n in 0..500_u32 {
        let table =
            table(&format!("[{{name: a, endpoints: [{{address: \"10.0.0.1:{}\"}}]}}]", n + 1));
        endpoints = Some(EndpointTable::build(&table, &Addresses::new(), endpoints.as_ref()));
    }
    assert!(endpoints.unwrap().slot_count() <= 2);
}

#[test]
fn load_is_a_cache_line_of_its_own() {
    assert_eq!((size_of::<EndpointLoad>(), align_of::<EndpointLoad>()), (64, 64));
}

proptest! {
    #[test]
    fn every_round_gives_each_endpoint_its_weight(
        weights in prop::collection::vec(0..20_u32, 1..8),
        start in 0..1000_u32,
    ) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let endpoints = weighted(&weights);
        let mut cursor = start * total;
        let mut counts = vec![0; weights.len()];
        for _ in 0..total {
            let picked = endpoints.pick(ID, Balance::RoundRobin, &mut cursor, 0, None);
            counts[usize::from(port(picked)) - 1] += 1;
        }
        if weights.len() > 1 {
            prop_assert_eq!(counts, weights);
        }
    }

    #[test]
    fn least_request_never_picks_the_heavier_of_two(
        weights in prop::collection::vec(1..5_u32, 2..6),
        loads in prop::collection::vec(0..20_u32, 6),
        draw: u64,
    ) {
        let endpoints = weighted(&weights);
        let all = endpoints.cluster(ID);
        for (endpoint, load) in all.iter().zip(&loads) {
            (0..*load).for_each(|_| endpoint.load.begin());
        }
        let picked = endpoints.pick(ID, Balance::LeastRequest, &mut 0, draw, None).unwrap();
        let burden = |e: &Endpoint| f64::from(e.load.in_flight() + 1) / f64::from(e.weight);
        // Two were compared, so at least one other endpoint is not lighter.
        let heavier = all.iter().filter(|other| burden(other) >= burden(picked)).count();
        prop_assert!(heavier >= 2);
    }
}

#[test]
fn pushed_endpoints_serve_their_cluster_and_keep_their_load() {
    let yaml = "listeners: [{name: l, address: \"127.0.0.1:80\", protocol: tcp, cluster: c}]\n\
                clusters: [{name: c, discovery: pushed}]\n";
    let (table, loaded) = crate::load_table(yaml, crate::Format::Yaml).unwrap();
    assert_eq!(loaded.warnings, []);
    let cluster = table.cluster_named("c").unwrap();
    let mut addresses = Addresses::new();
    let first = EndpointTable::build(&table, &addresses, None);
    assert!(first.pick(cluster, Balance::LeastRequest, &mut 0, 0, None).is_none());
    let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
    assert!(addresses.pushed("c", vec![(address(1), 1), (address(2), 3), (address(1), 9)]));
    assert!(!addresses.pushed("c", vec![(address(1), 1), (address(2), 3), (address(1), 9)]));
    let second = EndpointTable::build(&table, &addresses, Some(&first));
    let weights: Vec<u32> = second.cluster(cluster).iter().map(|one| one.weight).collect();
    assert_eq!(weights, [1, 3], "the first of an address counts");
    addresses.pushed("c", vec![(address(2), 1), (address(3), 1)]);
    let third = EndpointTable::build(&table, &addresses, Some(&second));
    assert_eq!(third.cluster(cluster)[0].slot, second.cluster(cluster)[1].slot);
    assert!(addresses.pushed("c", Vec::new()), "an empty answer counts, other than of a resolver");
    assert!(!addresses.pushed("other", Vec::new()));
}
