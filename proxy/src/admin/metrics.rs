//! `/metrics`: every worker's shard, added up, in the text format of Prometheus.
//!
//! # Invariants
//! - Reading stops nobody: shards are single-writer atomics.
//! - Only series that were ever touched are printed.

mod control;
mod tls;

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ringway_stats::busy::Reading;
use ringway_stats::clock::now_ns;
pub use ringway_stats::exposition::CONTENT_TYPE;
use ringway_stats::limits::LATENCY_BOUNDS_NS;
use ringway_stats::{Counter, Exposition, Gauge, Kind, Registry, Slots, Snapshot};

use super::Admin;
use crate::detect::Found;
use crate::http2::flood::Flood;
use crate::http2::grpc::Status;
use crate::outcome::{Blame, Cause};
use crate::recorder::{STATUS_CLASSES, Series, Shard};
use crate::shared::Shared;

/// Busy time of each worker at the last scrape.
pub type BusyReadings = Vec<Reading>;

/// All metrics.
#[must_use]
pub fn render(admin: &Admin) -> String {
    let mut out = Exposition::new();
    process(admin, &mut out);
    config(admin, &mut out);
    workers(admin, &mut out);
    connections(&admin.shared, &mut out);
    listeners(admin, &mut out);
    http2(&admin.shared, &mut out);
    tls::connections(&admin.shared, &mut out);
    tls::plaintext(admin, &mut out);
    tls::certificates(&admin.status.get().credentials, &mut out);
    if let Some(push) = &admin.status.get().push {
        control::pusher(push, &mut out);
    }
    let registries = admin.registries.lock().unwrap_or_else(PoisonError::into_inner);
    exchanges(&admin.shared, &mut out, "route", &registries.routes, |shard| &shard.routes);
    exchanges(&admin.shared, &mut out, "cluster", &registries.clusters, |shard| &shard.clusters);
    out.finish()
}

fn process(admin: &Admin, out: &mut Exposition) {
    out.family("ringway_info", Kind::Gauge, "Version and backend of this proxy.");
    let backend = admin.shared.backend.name();
    out.sample(&[("version", crate::cli::VERSION), ("backend", backend)], 1u64);
    out.family("ringway_uptime_seconds", Kind::Gauge, "Seconds since the start.");
    let up = now_ns().saturating_sub(admin.started_ns);
    out.sample(&[], ringway_stats::Value::Nanoseconds(up));
    out.family("ringway_log_lines_dropped_total", Kind::Counter, "Lines the log could not take.");
    out.sample(&[], crate::logging::dropped_lines());
    out.family("ringway_draining", Kind::Gauge, "1 while the proxy is on its way out.");
    out.sample(&[], u64::from(admin.shared.draining()));
}

fn config(admin: &Admin, out: &mut Exposition) {
    let status = admin.status.get();
    let running = admin.shared.current();
    out.family("ringway_config_applied_total", Kind::Counter, "Files applied.");
    out.sample(&[], status.applied);
    out.family("ringway_config_rejected_total", Kind::Counter, "Files rejected.");
    out.sample(&[], status.rejected);
    out.family("ringway_config_valid", Kind::Gauge, "1 if the newest file is in use.");
    out.sample(&[], u64::from(status.problem.is_none()));
    out.family("ringway_config_generation", Kind::Gauge, "Number of the table in use.");
    out.sample(&[], running.generation);
    out.family("ringway_config_reload_seconds", Kind::Gauge, "Time the last file took.");
    out.sample(&[], status.last_reload.as_secs_f64());
    out.family("ringway_config_table_bytes", Kind::Gauge, "Memory of the table in use.");
    out.sample(
        &[("table", &running.table.hash().short().to_string())],
        running.table.bytes() as u64,
    );
    out.family("ringway_config_routes", Kind::Gauge, "Routes of the table in use.");
    out.sample(&[], running.table.route_count() as u64);
}

fn workers(admin: &Admin, out: &mut Exposition) {
    let readings: Vec<Reading> =
        admin.shared.seats.iter().map(|seat| busy_reading(&seat.shard)).collect();
    let mut last = admin.busy.lock().unwrap_or_else(PoisonError::into_inner);
    let started = Reading { at_ns: admin.started_ns, busy_ns: 0 };
    out.family(
        "ringway_worker_busy_ratio",
        Kind::Gauge,
        "Share of the time since the last scrape that a worker was on a processor.",
    );
    for (id, reading) in readings.iter().enumerate() {
        let earlier = last.get(id).copied().unwrap_or(started);
        out.sample(&[("worker", &id.to_string())], reading.ratio_since(earlier));
    }
    *last = readings;
    let each = |out: &mut Exposition, value: &dyn Fn(&Shard) -> i64| {
        for (id, seat) in admin.shared.seats.iter().enumerate() {
            out.sample(&[("worker", &id.to_string())], value(&seat.shard));
        }
    };
    out.family("ringway_worker_connections", Kind::Gauge, "Connections that a worker has.");
    for (id, seat) in admin.shared.seats.iter().enumerate() {
        let load = seat.load.load(Ordering::Relaxed);
        out.sample(&[("worker", &id.to_string())], u64::from(load));
    }
    out.family("ringway_worker_generation", Kind::Gauge, "Table that a worker uses.");
    each(out, &|shard| shard.generation.value());
    out.family(
        "ringway_worker_allocations_total",
        Kind::Counter,
        "Heap allocations of a worker, as of its last exchange.",
    );
    each(out, &|shard| shard.allocations.value());
}

/// Processor time of a worker's thread, from the scheduler's own account.
fn busy_reading(shard: &Shard) -> Reading {
    let path = format!("/proc/self/task/{}/schedstat", shard.thread.value());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let busy_ns = text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    Reading { at_ns: now_ns(), busy_ns }
}

fn total(shared: &Shared, counter: impl Fn(&Shard) -> &Counter) -> u64 {
    shared.seats.iter().map(|seat| counter(&seat.shard).value()).sum()
}

fn level(shared: &Shared, gauge: impl Fn(&Shard) -> &Gauge) -> i64 {
    shared.seats.iter().map(|seat| gauge(&seat.shard).value()).sum()
}

/// A counter, its name and its help.
type CounterRow = (&'static str, &'static str, fn(&Shard) -> &Counter);

const COUNTERS: [CounterRow; 14] = [
    ("ringway_downstream_accepted_total", "Connections accepted.", |s| &s.downstream_accepted),
    ("ringway_downstream_closed_total", "Accepted connections ended.", |s| &s.downstream_closed),
    ("ringway_upstream_opened_total", "Connections to endpoints opened.", |s| &s.upstream_opened),
    ("ringway_upstream_closed_total", "Connections to endpoints ended.", |s| &s.upstream_closed),
    ("ringway_upstream_reused_total", "Exchanges on an open connection.", |s| &s.upstream_reused),
    ("ringway_connect_failures_total", "Attempts to connect that failed.", |s| &s.connect_failures),
    ("ringway_retries_total", "Requests sent once more.", |s| &s.retries),
    ("ringway_splice_bytes_total", "Payload moved inside the kernel.", |s| &s.splice_bytes),
    ("ringway_copy_bytes_total", "Payload moved through buffers.", |s| &s.copy_bytes),
    ("ringway_tunnels_total", "Tunnels that have ended.", |s| &s.tunnels),
    ("ringway_accept_pauses_total", "Pauses for want of descriptors.", |s| &s.accept_pauses),
    ("ringway_handed_over_total", "Connections given to another worker.", |s| &s.handed_over),
    ("ringway_silent_peers_total", "Connections given up: nothing acknowledged for 30 s.", |s| {
        &s.silent_peers
    }),
    ("ringway_panics_total", "Connections ended by a defect.", |s| &s.panics),
];

fn connections(shared: &Shared, out: &mut Exposition) {
    for (name, help, counter) in COUNTERS {
        out.family(name, Kind::Counter, help);
        out.sample(&[], total(shared, counter));
    }
    out.family("ringway_downstream_connections", Kind::Gauge, "Connections open with clients.");
    out.sample(&[], shared.open_connections());
    out.family("ringway_upstream_idle_connections", Kind::Gauge, "Connections in the pools.");
    out.sample(&[], level(shared, |shard| &shard.pooled));
    out.family(
        "ringway_failures_total",
        Kind::Counter,
        "Exchanges and connections that failed, by cause and by who is to blame.",
    );
    for (index, cause) in Cause::ALL.iter().enumerate() {
        let count: u64 = shared.seats.iter().map(|seat| seat.shard.causes[index].value()).sum();
        let blame = match cause.blame() {
            Blame::Downstream => "downstream",
            Blame::Upstream => "upstream",
            Blame::Local => "local",
        };
        out.sample(&[("cause", cause.label()), ("blame", blame)], count);
    }
}

fn listeners(admin: &Admin, out: &mut Exposition) {
    let registries = admin.registries.lock().unwrap_or_else(PoisonError::into_inner);
    let seats = &admin.shared.seats;
    let touched: BTreeSet<usize> =
        seats.iter().flat_map(|seat| seat.shard.listeners.iter().map(|(index, _)| index)).collect();
    out.family("ringway_listener_accepted_total", Kind::Counter, "Connections by listener.");
    for &index in &touched {
        let name = registries.listeners.name(index as u32).unwrap_or("unknown");
        let accepted: u64 = seats
            .iter()
            .filter_map(|seat| seat.shard.listeners.get(index))
            .map(|series| series.accepted.value())
            .sum();
        out.sample(&[("listener", name)], accepted);
    }
    out.family(
        "ringway_protocol_detected_total",
        Kind::Counter,
        "Connections to `auto` listeners by what they were found to speak.",
    );
    for index in touched {
        let name = registries.listeners.name(index as u32).unwrap_or("unknown");
        for (nth, label) in Found::LABELS.iter().enumerate() {
            let count: u64 = seats
                .iter()
                .filter_map(|seat| seat.shard.listeners.get(index))
                .map(|series| series.found[nth].value())
                .sum();
            if count > 0 {
                out.sample(&[("listener", name), ("protocol", label)], count);
            }
        }
    }
}

/// HTTP/2 connections with clients, their streams, and those that were ended for what the client
/// did.
fn http2(shared: &Shared, out: &mut Exposition) {
    let sum = |of: &dyn Fn(&Shard) -> u64| -> u64 {
        shared.seats.iter().map(|seat| of(&seat.shard)).sum()
    };
    out.family("ringway_http2_connections_total", Kind::Counter, "HTTP/2 connections of clients.");
    out.sample(&[], sum(&|shard| shard.http2.connections.value()));
    out.family("ringway_http2_streams_total", Kind::Counter, "Streams of clients.");
    out.sample(&[], sum(&|shard| shard.http2.streams.value()));
    out.family("ringway_http2_streams_open", Kind::Gauge, "Streams of clients that are open.");
    out.sample(&[], sum(&|shard| shard.http2.open.value().max(0).unsigned_abs()));
    out.family(
        "ringway_http2_connections_ended_total",
        Kind::Counter,
        "HTTP/2 connections that were ended because their client sent too much of something or broke \
         the protocol.",
    );
    for (nth, label) in Flood::LABELS.iter().enumerate() {
        out.sample(&[("reason", label)], sum(&|shard| shard.http2.floods[nth].value()));
    }
    out.sample(&[("reason", "excess")], sum(&|shard| shard.http2.calmed.value()));
    out.sample(&[("reason", "protocol_error")], sum(&|shard| shard.http2.breaches.value()));
}

fn exchanges(
    shared: &Shared,
    out: &mut Exposition,
    kind: &str,
    names: &Registry,
    slots: fn(&Shard) -> &Slots<Series>,
) {
    let touched: BTreeSet<usize> = shared
        .seats
        .iter()
        .flat_map(|seat| slots(&seat.shard).iter().map(|(index, _)| index))
        .collect();
    let name = |index: usize| names.name(index as u32).unwrap_or("unknown");
    let of =
        |index: usize| shared.seats.iter().filter_map(move |seat| slots(&seat.shard).get(index));
    let family = format!("ringway_{kind}_requests_total");
    out.family(&family, Kind::Counter, "Exchanges by class of status; none: no status was sent.");
    for &index in &touched {
        for (class, word) in STATUS_CLASSES.iter().enumerate() {
            let count: u64 = of(index).map(|series| series.by_class[class].value()).sum();
            if count > 0 {
                out.sample(&[(kind, name(index)), ("class", word)], count);
            }
        }
    }
    let family = format!("ringway_{kind}_grpc_calls_total");
    out.family(&family, Kind::Counter, "Calls of gRPC by how they ended; none: without a status.");
    for &index in &touched {
        for (code, word) in Status::LABELS.iter().enumerate() {
            let of_code = |series: &Series| Some(series.by_grpc.get()?[code].value());
            let count: u64 = of(index).filter_map(of_code).sum();
            if count > 0 {
                out.sample(&[(kind, name(index)), ("status", word)], count);
            }
        }
    }
    let family = format!("ringway_{kind}_latency_seconds");
    out.family(
        &family,
        Kind::Histogram,
        "Time of exchanges: the whole by route, to first byte by cluster.",
    );
    for &index in &touched {
        let mut merged = Snapshot::new();
        of(index).for_each(|series| series.latency.add_to(&mut merged));
        out.histogram(&[(kind, name(index))], &merged, &LATENCY_BOUNDS_NS);
    }
}
