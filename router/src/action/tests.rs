//! Rewrites, redirects, header edits and weights, by example and by proportion.

use proptest::prelude::*;

use super::*;

fn rewritten(rewrite: &PathRewrite, path: &str) -> String {
    let mut out = Vec::new();
    rewrite.write(path, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn replaced_prefixes_join_with_one_slash() {
    // The table of the Gateway API, HTTPPathModifier.
    for (path, matched, replacement, expected) in [
        ("/foo/bar", 4, "/xyz", "/xyz/bar"),
        ("/foo/bar", 4, "", "/bar"),
        ("/foo/", 4, "/xyz", "/xyz/"),
        ("/foo", 4, "/xyz", "/xyz"),
        ("/foo/", 4, "", "/"),
        ("/foo", 4, "", "/"),
        ("/bar", 0, "/xyz", "/xyz/bar"),
        ("/", 0, "/xyz", "/xyz/"),
        ("/bar", 0, "", "/bar"),
        ("/", 0, "", "/"),
    ] {
        let rewrite = PathRewrite::Prefix { matched, replacement: replacement.into() };
        assert_eq!(rewritten(&rewrite, path), expected, "{path} to {replacement}");
    }
    assert_eq!(rewritten(&PathRewrite::Full("/x".into()), "/foo/bar"), "/x");
}

#[test]
fn locations_are_absolute_and_leave_out_default_ports() {
    let nothing = Redirect { scheme: None, host: None, port: None, path: None, status: 302 };
    let target =
        Target { scheme: "http", host: "a.b:8080", port: 8080, path: "/p", query: Some("q=1") };
    let location = |redirect: &Redirect, target: &Target<'_>| {
        let mut out = Vec::new();
        redirect.location(target, &mut out);
        String::from_utf8(out).unwrap()
    };
    let https = Redirect { scheme: Some("https".into()), ..nothing.clone() };
    let host = Redirect { host: Some("c".into()), ..nothing.clone() };
    let port = Redirect { port: Some(443), ..https.clone() };
    let other =
        Redirect { port: Some(65535), path: Some(PathRewrite::Full("/".into())), ..https.clone() };
    let one = Redirect { port: Some(7), ..nothing.clone() };
    assert_eq!(location(&https, &target), "https://a.b/p?q=1");
    assert_eq!(location(&host, &target), "http://c:8080/p?q=1");
    assert_eq!(location(&port, &target), "https://a.b/p?q=1");
    assert_eq!(location(&other, &Target { query: None, ..target }), "https://a.b:65535/");
    assert_eq!(location(&one, &Target { host: "[::1]:80", ..target }), "http://[::1]:7/p?q=1");
    assert_eq!(location(&host, &Target { port: 80, ..target }), "http://c/p?q=1");
}

#[test]
fn edits_drop_what_they_remove_or_set_and_append_the_rest() {
    let pair = |name: &str, value: &str| -> (Box<str>, Box<str>) { (name.into(), value.into()) };
    let edits = HeaderEdits {
        remove: vec!["X-Old".into()],
        set: vec![pair("X-Set", "1")],
        add: vec![pair("X-Add", "2"), pair("X-Old", "3")],
    };
    assert!(edits.drops("x-old") && edits.drops("x-set") && !edits.drops("x-add"));
    let appended: Vec<(&str, &str)> = edits.appended().collect();
    assert_eq!(appended, [("X-Set", "1"), ("X-Add", "2"), ("X-Old", "3")]);
    assert!(!edits.is_empty() && NO_EDITS.is_empty());
}

#[test]
fn weights_of_zero_are_never_picked() {
    let [a, b, c] = [ClusterId(0), ClusterId(1), ClusterId(2)];
    let backends = Backends::new(&[(0, a), (2, b), (0, c)]);
    for draw in [0, 1, u32::MAX / 2, u32::MAX] {
        assert_eq!(backends.pick(draw), Some(b));
    }
    assert_eq!(Backends::new(&[(0, a)]).pick(7), None);
    assert_eq!(Backends::new(&[(0, a), (0, b)]).pick(7), None);
    assert_eq!(Backends::new(&[(5, a)]).pick(7), Some(a));
    assert_eq!(backends.weights().collect::<Vec<_>>(), [(a, 0), (b, 2), (c, 0)]);
}

proptest! {
    #[test]
    fn draws_are_divided_in_proportion_to_the_weights(
        weights in prop::collection::vec(0..1000_u32, 1..10),
    ) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let numbered: Vec<(u32, ClusterId)> =
            weights.iter().zip(0..).map(|(weight, n)| (*weight, ClusterId(n))).collect();
        let backends = Backends::new(&numbered);
        let mut counts = vec![0_u32; weights.len()];
        const DRAWS: u32 = 1 << 14;
        for n in 0..DRAWS {
            let picked = backends.pick(n << 18).unwrap();
            counts[picked.index()] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let share = u64::from(DRAWS) * u64::from(*weight) / u64::from(total);
            prop_assert!(u64::from(*count).abs_diff(share) <= 1, "{:?} for {:?}", counts, weights);
        }
    }
}
