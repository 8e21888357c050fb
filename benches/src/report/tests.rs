//! Reports of made-up details.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    limits::{DETAIL_BYTES_MAX, DETAILS_MAX},
    results::{
        Row, Run,
        detail::{self, Curve, Detail, Goal, Machine, Series},
    },
    sample::{self, Ratio},
};

const DATE: &str = "2026-11-22";
const PROXIES: [&str; 5] = ["ringway", "ringway-epoll", "haproxy", "nginx", "envoy"];
/// Scenario, metric, unit, and the typical figure of each proxy.
const FIGURES: [(&str, &str, &str, [f64; 5]); 22] = [
    ("start", "exec_to_accept_ms", "ms", [4.7, 4.6, 90.0, 15.0, 210.0]),
    ("start", "rss_mib", "MiB", [6.0, 5.9, 15.1, 14.5, 52.0]),
    ("h1-small", "cpu_us_per_request", "us", [14.3, 16.7, 20.4, 21.2, 83.0]),
    ("h1-small", "added_p50_us", "us", [41.0, 45.0, 52.0, 55.0, 190.0]),
    ("h1-small", "added_p99_us", "us", [120.0, 128.0, 122.0, 150.0, 610.0]),
    ("h1-1k", "cpu_us_per_request", "us", [15.0, 17.1, 21.0, 22.4, 85.0]),
    ("h1-64k", "cpu_us_per_request", "us", [38.0, 41.0, 49.0, 66.0, 140.0]),
    ("h1-1m", "cpu_s_per_gb", "s/GB", [0.21, 0.215, 0.51, 0.77, 0.93]),
    ("h1-16m", "cpu_s_per_gb", "s/GB", [0.17, 0.19, 0.62, 0.37, 0.88]),
    ("h1-close", "cpu_us_per_request", "us", [61.0, 66.0, 74.0, 71.0, 190.0]),
    ("tcp-1m", "cpu_s_per_gb", "s/GB", [0.198, 0.186, 0.65, 0.25, 0.71]),
    ("tcp-16m", "cpu_s_per_gb", "s/GB", [0.178, 0.194, 0.99, 0.31, 0.66]),
    ("routes-10", "cpu_us_per_request", "us", [15.1, 17.0, 21.0, 22.0, 88.0]),
    ("routes-1k", "cpu_us_per_request", "us", [15.4, 17.2, 35.0, 30.0, 140.0]),
    ("routes-100k", "cpu_us_per_request", "us", [16.0, 18.0, 60.0, 47.0, 320.0]),
    ("idle-0", "rss_mib", "MiB", [6.0, 6.0, 15.2, 14.6, 53.0]),
    ("idle-0", "pss_mib", "MiB", [4.4, 4.4, 12.0, 8.0, 47.0]),
    ("idle-5000", "rss_mib", "MiB", [7.3, 7.4, 20.6, 17.1, 131.0]),
    ("idle-5000", "pss_mib", "MiB", [5.7, 5.8, 17.0, 11.0, 126.0]),
    ("idle-9000", "rss_mib", "MiB", [8.4, 8.6, 25.0, 19.1, 195.0]),
    ("idle-9000", "pss_mib", "MiB", [6.8, 7.0, 21.9, 13.5, 189.0]),
    ("reload-load", "cpu_us_per_request", "us", [14.9, 16.9, 22.3, 24.0, 91.0]),
];
/// Scenarios with latency by percentile: the rate, and the median without a proxy.
const CURVES: [(&str, f64, f64); 2] = [("h1-small", 9200.0, 74.0), ("reload-load", 4000.0, 80.0)];

/// Ten rounds around `typical`, each time the same for the same `seed`.
fn samples(typical: f64, seed: u64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..10).map(|_| typical * (0.93 + 0.16 * random.f64())).collect()
}

fn curve(peer: &str, median: f64, tail: f64) -> Curve {
    let points = (0..=90).map(|step| {
        let nines = f64::from(step) / 20.0;
        let percentile = 100.0 * (1.0 - 10f64.powf(-nines));
        (percentile, median * (0.8 + 0.5 * nines + tail * (nines - 1.5).max(0.0).powi(2)))
    });
    Curve { peer: peer.to_owned(), points: points.chain([(100.0, median * 80.0)]).collect() }
}

fn row(scenario: &str, metric: &str, peer: &str, (ratio, low, high): (f64, f64, f64)) -> Row {
    let ratio = Ratio { ratio, low, high };
    Row::new((scenario, metric, "us"), peer, (10.0 * ratio.ratio, 10.0), ratio)
}

fn goal(metric: &str, peer: &str, must: f64, aim: Option<f64>) -> Goal {
    Goal { metric: metric.to_owned(), peer: peer.to_owned(), must, aim }
}

fn run() -> Run {
    let version = |id: &&str| ((*id).to_owned(), format!("{id} 1.2.3"));
    Run {
        commit: "d879b73aaaaa".to_owned(),
        kernel: "6.18.44".to_owned(),
        congestion_control: "bbr".to_owned(),
        backend: "io_uring".to_owned(),
        versions: PROXIES.iter().map(version).collect(),
        command: "ringway-bench compare --rounds 10".to_owned(),
    }
}

fn empty(scenario: &str) -> Detail {
    Detail {
        scenario: scenario.to_owned(),
        about: format!("what {scenario} does"),
        date: DATE.to_owned(),
        run: run(),
        rounds: 10,
        seconds: 5,
        machine: Machine { void_rounds: 1, stolen_ms: 320, softirq_ms: 1200 },
        ..Detail::default()
    }
}

/// A detail with all that [`FIGURES`] and [`CURVES`] say of `scenario`.
fn plausible(scenario: &str) -> Detail {
    let mut made = empty(scenario);
    for (at, (_, metric, unit, typical)) in
        FIGURES.iter().enumerate().filter(|(_, figure)| figure.0 == scenario)
    {
        let rounds: Vec<Vec<f64>> = typical
            .iter()
            .enumerate()
            .map(|(place, typical)| samples(*typical, (at * PROXIES.len() + place) as u64))
            .collect();
        for (peer, samples) in PROXIES.iter().zip(&rounds) {
            made.series.push(Series {
                metric: (*metric).to_owned(),
                unit: (*unit).to_owned(),
                peer: (*peer).to_owned(),
                samples: samples.clone(),
                user_share: metric.starts_with("cpu").then_some(0.3),
            });
            if *peer != "ringway" {
                let ratio = sample::ratio(&rounds[0], samples);
                let medians = (sample::median(&rounds[0]), sample::median(samples));
                made.rows.push(Row::new((scenario, metric, unit), peer, medians, ratio));
            }
        }
        if metric.starts_with("cpu") {
            made.goals.push(goal(metric, "haproxy", 0.85, Some(0.6)));
        }
    }
    if let Some((_, rate, median)) = CURVES.iter().find(|curve| curve.0 == scenario) {
        made.rate = Some(*rate);
        made.curves.push(curve("direct", *median, 0.2));
        for (place, peer) in PROXIES.iter().enumerate() {
            made.curves.push(curve(peer, median * (1.4 + 0.3 * place as f64), 0.6 + place as f64));
        }
        made.notes.push("haproxy: 3 requests failed | of many\nin round 2".to_owned());
    }
    made
}

/// Results in a folder of their own, and a README beside it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn of(details: &[Detail]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for made in details {
            detail::write(&folder.path().join("results/detail"), made).unwrap();
        }
        let place = Self { folder };
        fs::write(place.readme(), README).unwrap();
        place
    }

    fn plausible() -> Self {
        let mut scenarios: Vec<&str> = FIGURES.iter().map(|figure| figure.0).collect();
        scenarios.dedup();
        Self::of(&scenarios.into_iter().map(plausible).collect::<Vec<_>>())
    }

    fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    fn readme(&self) -> PathBuf {
        self.folder.path().join("README.md")
    }

    fn report(&self) -> Result<String, Error> {
        let options = Options { results: self.results(), readme: Some(self.readme()), date: None };
        let (page, _) = write(&options)?;
        assert_eq!(page, self.results().join(format!("{DATE}.md")));
        Ok(read(&page))
    }
}

const README: &str =
    "# Mine\n\nbefore\n<!-- bench:begin -->\nearlier\n<!-- bench:end -->\nafter, no line break";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// What stands under the heading `title`, up to the next.
fn under<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{title}\n")).expect("the heading is there");
    rest.split("\n#").next().unwrap_or(rest)
}

#[test]
fn a_full_report_has_every_table_and_every_plot() {
    let place = Place::plausible();
    let page = place.report().unwrap();
    for (scenario, metric, ..) in FIGURES {
        let section = under(&page, &format!("### {scenario}"));
        assert!(section.contains(&format!("| `{metric}` | Ringway |")), "{scenario}: {section}");
        assert!(section.contains(&format!("| `{metric}` | Envoy |")), "{scenario}: {section}");
        assert!(section.contains("10 rounds of 5 s per contender, 1 void"), "{section}");
    }
    let plots = ["cpu-requests", "cpu-bytes", "memory", "latency-h1-small", "latency-reload-load"];
    for plot in plots {
        assert!(page.contains(&format!("({DATE}/{plot}.png)")), "{plot}");
        let file = place.results().join(DATE).join(plot);
        assert!(read(&file.with_extension("svg")).starts_with("<svg "), "{plot}");
        let png = fs::read(file.with_extension("png")).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{plot}: {}", png.len());
    }
    let small = under(&page, "### h1-small");
    assert!(small.contains("Latency at 9200 requests/s for all."), "{small}");
    assert!(small.contains("- haproxy: 3 requests failed | of many in round 2"), "{small}");
    assert!(page.contains("must not be used for"));
    let left = fs::read_dir(place.results()).unwrap().count();
    assert_eq!(left, 3, "detail, the page and its plots: nothing half-written");
}

#[test]
fn the_summary_says_where_ringway_loses() {
    let metric = "cpu_us_per_request";
    let mut made = empty("h1-small");
    made.rows = vec![
        // More than a peer, without any goal.
        row("h1-small", metric, "nginx", (1.1, 1.02, 1.2)),
        // The ratio is within the must, the interval's worse end is not.
        row("h1-small", metric, "haproxy", (0.83, 0.8, 0.8504)),
        // A tie: narrow, and closer to 1 than counts.
        row("h1-small", metric, "sozu", (1.008, 1.006, 1.009)),
        row("h1-small", metric, "envoy", (0.2, 0.19, 0.21)),
        // Against itself nobody loses.
        row("h1-small", metric, "ringway-epoll", (1.5, 1.4, 1.6)),
        Row { unresolved: true, ..row("h1-small", "added_p99_us", "haproxy", (2.0, 1.5, 9.0)) },
        // Figures: 10 is in `theirs`, 6 MiB the aim.
        row("h1-small", "rss_mib", "goal", (0.59, 0.58, 0.6)),
        row("h1-small", "reload_ms", "goal", (0.99, 0.98, 1.01)),
    ];
    made.goals = vec![
        goal(metric, "haproxy", 0.85, Some(0.7)),
        goal(metric, "envoy", 0.25, Some(0.18)),
        goal("added_p99_us", "haproxy", 1.05, None),
        goal("rss_mib", "goal", 10.0, Some(6.0)),
        goal("added_p50_us", "haproxy", 1.05, Some(0.9)),
    ];
    let page = Place::of(&[made]).report().unwrap();

    let goals = "Goals: **2 met** (1 of them with their aim), **2 missed**, **1 unresolved**. 1 goal \
                 not measured.";
    assert!(under(&page, "## Summary").contains(goals), "{page}");
    let losses: Vec<&str> =
        under(&page, "### Ringway loses").lines().filter(|line| line.starts_with('-')).collect();
    assert_eq!(
        losses,
        [
            "- **h1-small** `cpu_us_per_request` against HAProxy: 0.830 (0.800 to 0.850), misses \
             must 0.85, aim 0.70: the worse end of its interval is above",
            "- **h1-small** `cpu_us_per_request` against nginx: 1.100 (1.020 to 1.200), \
             measurably more",
            "- **h1-small** `reload_ms` against the goal: 0.990 (0.980 to 1.010), misses must \
             10.0 us: the worse end of its interval is above",
        ]
    );
    let unresolved = under(&page, "### Unresolved");
    assert!(unresolved.contains("`added_p99_us` against HAProxy (must 1.05)"), "{unresolved}");
    let aims = under(&page, "### Meets must, misses aim");
    assert!(aims.contains("against Envoy: 0.200"), "{aims}");
    assert_eq!(aims.matches("\n- ").count(), 1, "{aims}");
    let wins = under(&page, "### Where it wins");
    assert!(wins.contains("0.830 of HAProxy, 0.200 of Envoy"), "{wins}");
    assert!(!wins.contains("sozu") && !wins.contains("added_p99"), "{wins}");
    assert!(under(&page, "### h1-small").contains("no clear difference"));
}

#[test]
fn a_missing_contender_or_scenario_leaves_a_report() {
    let mut made = plausible("h1-small");
    made.series.retain(|series| series.peer != "nginx");
    made.rows.retain(|row| row.peer != "nginx");
    made.curves.truncate(2);
    let bare = empty("tcp-1m");
    let place = Place::of(&[made, bare, plausible("idle-0")]);
    let latest = crate::results::Results {
        run: run(),
        results: vec![row("h1-16m", "cpu_s_per_gb", "nginx", (0.5, 0.4, 0.6))],
    };
    fs::write(place.results().join("latest.json"), serde_json::to_string(&latest).unwrap())
        .unwrap();
    let page = place.report().unwrap();
    assert!(page.contains("- h1-16m: ratios in latest.json, but no samples kept"), "{page}");
    assert!(page.contains("### tcp-1m"));
    assert!(place.results().join(DATE).join("memory.svg").exists());
    assert!(!place.results().join(DATE).join("cpu-bytes.svg").exists());
}

#[test]
fn many_contenders_have_a_legend_of_several_rows_and_still_a_plot() {
    let mut made = plausible("h1-small");
    for place in 0..12 {
        let like = made.series[0].clone();
        made.series.push(Series { peer: format!("another-proxy-{place}"), ..like });
    }
    let place = Place::of(&[made]);
    let page = place.report().unwrap();
    assert!(page.contains("| another-proxy-11 |"), "{page}");
    let svg = read(&place.results().join(DATE).join("cpu-requests.svg"));
    for text in svg.split("<text ").filter(|text| text.contains("another-proxy")) {
        let left = text.split('"').nth(1).and_then(|left| left.parse::<i32>().ok()).unwrap();
        assert!(left < 1700, "no room for it: {text}");
    }
}

#[test]
fn a_detail_over_the_limit_is_an_error_that_names_it() {
    let place = Place::of(&[plausible("start")]);
    let path = place.results().join("detail/start.json");
    let mut text = read(&path);
    let most = usize::try_from(DETAIL_BYTES_MAX).unwrap();
    text.push_str(&" ".repeat(most - text.len()));
    fs::write(&path, &text).unwrap();
    place.report().unwrap();
    fs::write(&path, text + " ").unwrap();
    let error = place.report().unwrap_err().to_string();
    assert!(error.contains("start.json") && error.contains("bytes"), "{error}");
}

#[test]
fn more_details_than_the_limit_are_an_error() {
    let details: Vec<Detail> = (0..DETAILS_MAX).map(|at| empty(&format!("idle-{at}"))).collect();
    let place = Place::of(&details);
    place.report().unwrap();
    detail::write(&place.results().join("detail"), &empty("start")).unwrap();
    assert!(place.report().unwrap_err().to_string().contains("more than"));
}

#[test]
fn several_commits_are_told_with_their_scenarios() {
    let mut later = plausible("h1-1k");
    later.run.commit = "eeee".to_owned();
    later.date = "2026-11-20".to_owned();
    let page = Place::of(&[plausible("h1-small"), plausible("start"), later]).report().unwrap();
    let told = "- **several commits**: `d879b73aaaaa` (start, h1-small); `eeee` (h1-1k)";
    assert!(page.contains(told), "{page}");
    assert!(page.contains("`2026-11-20` (h1-1k)"), "{page}");
}

#[test]
fn the_readme_shows_the_report_between_its_markers_and_twice_is_once() {
    let place = Place::of(&[plausible("h1-small"), plausible("idle-0")]);
    place.report().unwrap();
    let first = read(&place.readme());
    assert!(first.starts_with("# Mine\n\nbefore\n<!-- bench:begin -->\n"), "{first}");
    assert!(first.ends_with("\n<!-- bench:end -->\nafter, no line break"), "{first}");
    assert!(!first.contains("earlier"));
    assert!(first.contains("(results/2026-11-22/cpu-requests.png)"), "{first}");
    assert!(first.contains("[2026-11-22](results/2026-11-22.md)"), "{first}");
    place.report().unwrap();
    assert_eq!(read(&place.readme()), first);
}

#[test]
fn a_readme_without_markers_is_an_error_and_stays_as_it_is() {
    let place = Place::of(&[plausible("start")]);
    for text in [
        "nothing",
        "<!-- bench:begin --> only",
        "<!-- bench:end --> <!-- bench:begin -->",
        "<!-- bench:begin --> <!-- bench:begin --> <!-- bench:end -->",
    ] {
        fs::write(place.readme(), text).unwrap();
        let error = place.report().unwrap_err();
        assert!(error.to_string().contains("README.md"), "{error}");
        assert_eq!(read(&place.readme()), text);
    }
    assert!(!place.results().join(DATE).exists(), "nothing is written");
}

#[test]
fn a_broken_detail_is_an_error_that_names_it() {
    let place = Place::of(&[plausible("start")]);
    let path = place.results().join("detail/h1-small.json");
    let mut of_another = serde_json::to_string(&plausible("h1-1k")).unwrap();
    let undated = of_another.replace("h1-1k", "h1-small").replace(DATE, "../../etc");
    of_another.push('\n');
    for text in ["{", "[]", of_another.as_str(), undated.as_str()] {
        fs::write(&path, text).unwrap();
        let error = place.report().unwrap_err();
        assert!(error.to_string().contains("detail/h1-small.json"), "{error}");
        assert_eq!(read(&place.readme()), README);
    }
}

#[test]
fn a_day_is_a_day() {
    assert_eq!(input::day("2026-11-22").as_deref(), Ok("2026-11-22"));
    for text in
        ["", "2026-13-01", "2026-00-10", "2026-1-1", "22.11.2026", "2026-11-32", "2026/11/22"]
    {
        assert!(input::day(text).is_err(), "{text}");
    }
}
