//! Metrics of the conversation with the pusher.

use ringway_stats::{Exposition, Kind};

use crate::control::push::{PushStatus, STATES};

/// The stream, policies and certificates from the pusher.
pub(super) fn pusher(push: &PushStatus, out: &mut Exposition) {
    out.family("ringway_control_connected", Kind::Gauge, "1 while a stream of the pusher is open.");
    out.sample(&[], u64::from(push.connected));
    out.family("ringway_control_connects_total", Kind::Counter, "Streams of the pusher opened.");
    out.sample(&[], push.connects);
    out.family(
        "ringway_control_failures_total",
        Kind::Counter,
        "Streams of the pusher that could not be opened or broke off.",
    );
    out.sample(&[], push.failures);
    out.family(
        "ringway_control_policies_total",
        Kind::Counter,
        "Policies of the pusher by what became of them.",
    );
    for (state, count) in STATES.iter().zip(push.states) {
        out.sample(&[("state", state.as_str())], count);
    }
    out.family(
        "ringway_control_generation",
        Kind::Gauge,
        "Generation of the policy in use; 0 before the first.",
    );
    out.sample(&[], push.running.map_or(0, |running| running.generation));
    out.family("ringway_control_on_probation", Kind::Gauge, "1 while that is not confirmed.");
    out.sample(&[], u64::from(push.on_probation));
    out.family(
        "ringway_control_renewals_total",
        Kind::Counter,
        "Certificates asked for by what came of it.",
    );
    for (result, count) in [("taken", push.renewals), ("failed", push.renewal_failures)] {
        out.sample(&[("result", result)], count);
    }
    out.family(
        "ringway_control_stale_clusters",
        Kind::Gauge,
        "Clusters whose endpoints are the last that the pusher's source named.",
    );
    out.sample(&[], push.stale_clusters.len() as u64);
    out.family("ringway_control_bundle_epoch", Kind::Gauge, "Epoch of the roots in use.");
    out.sample(&[], push.epoch);
}
