//! What `/metrics` says of TLS: handshakes, faults, who still speaks plaintext, certificates.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::PoisonError;

use ringway_stats::limits::LATENCY_BOUNDS_NS;
use ringway_stats::{Counter, Exposition, Kind, Snapshot};
use ringway_tls::Fault;

use crate::admin::Admin;
use crate::admin::certificates::fingerprint;
use crate::control::status::CredentialStatus;
use crate::recorder::TlsSeries;
use crate::shared::Shared;
use crate::tls::handshake::Side;

const SIDES: [(Side, &str); 2] = [(Side::Downstream, "downstream"), (Side::Upstream, "upstream")];

fn sum(shared: &Shared, side: Side, counter: impl Fn(&TlsSeries) -> &Counter) -> u64 {
    shared.seats.iter().map(|seat| counter(seat.shard.tls(side)).value()).sum()
}

/// Handshakes and what became of the connections.
pub(super) fn connections(shared: &Shared, out: &mut Exposition) {
    out.family("ringway_tls_handshakes_total", Kind::Counter, "TLS connections established.");
    for (side, word) in SIDES {
        let (full, resumed) = (sum(shared, side, |s| &s.full), sum(shared, side, |s| &s.resumed));
        out.sample(&[("side", word), ("resumed", "no")], full);
        out.sample(&[("side", word), ("resumed", "yes")], resumed);
    }
    out.family("ringway_tls_handshake_seconds", Kind::Histogram, "Time of handshakes.");
    for (side, word) in SIDES {
        let mut merged = Snapshot::new();
        for seat in &shared.seats {
            seat.shard.tls(side).handshake.add_to(&mut merged);
        }
        out.histogram(&[("side", word)], &merged, &LATENCY_BOUNDS_NS);
    }
    out.family("ringway_tls_failures_total", Kind::Counter, "TLS connections failed, by fault.");
    for (side, word) in SIDES {
        for (index, label) in Fault::LABELS.iter().enumerate() {
            let count = sum(shared, side, |series| &series.faults[index]);
            if count > 0 {
                out.sample(&[("side", word), ("fault", label)], count);
            }
        }
    }
    counter(
        shared,
        out,
        "ringway_tls_connections_cut_total",
        "Connections closed because their peer is trusted no more.",
        |series| &series.cut,
    );
    counter(
        shared,
        out,
        "ringway_tls_handshakes_given_up_total",
        "Handshakes whose peer was silent while others waited for a place.",
        |series| &series.given_up,
    );
}

/// A family with a sample for each side.
fn counter(
    shared: &Shared,
    out: &mut Exposition,
    name: &str,
    help: &str,
    counter: impl Fn(&TlsSeries) -> &Counter,
) {
    out.family(name, Kind::Counter, help);
    for (side, word) in SIDES {
        out.sample(&[("side", word)], sum(shared, side, &counter));
    }
}

/// Who speaks plaintext to listeners that speak TLS too.
pub(super) fn plaintext(admin: &Admin, out: &mut Exposition) {
    let mut peers: BTreeMap<(u32, IpAddr), u64> = BTreeMap::new();
    let mut others: BTreeMap<u32, u64> = BTreeMap::new();
    for seat in &admin.shared.seats {
        let counts = seat.plaintext.counts();
        for (peer, count) in counts.peers {
            *peers.entry(peer).or_default() += count;
        }
        for (listener, count) in counts.others {
            *others.entry(listener).or_default() += count;
        }
    }
    let registries = admin.registries.lock().unwrap_or_else(PoisonError::into_inner);
    let name = |listener: u32| registries.listeners.name(listener).unwrap_or("unknown");
    out.family(
        "ringway_plaintext_connections_total",
        Kind::Counter,
        "Connections in plaintext where TLS is spoken too, by client address.",
    );
    for ((listener, address), count) in peers {
        out.sample(&[("listener", name(listener)), ("peer", &address.to_string())], count);
    }
    for (listener, count) in others {
        out.sample(&[("listener", name(listener)), ("peer", "other")], count);
    }
}

/// The certificates in use.
pub(super) fn certificates(status: &CredentialStatus, out: &mut Exposition) {
    out.family("ringway_certificates_generation", Kind::Gauge, "Number of the set in use.");
    out.sample(&[], status.generation);
    out.family("ringway_certificates_taken_total", Kind::Counter, "Changed files that were taken.");
    out.sample(&[], status.taken);
    out.family(
        "ringway_certificates_refused_total",
        Kind::Counter,
        "Changed files that were refused; the ones before stay in use.",
    );
    out.sample(&[], status.refused);
    out.family("ringway_certificates_valid", Kind::Gauge, "1 if the newest files are in use.");
    out.sample(&[], u64::from(status.problems.is_empty()));
    out.family(
        "ringway_certificate_not_after_timestamp_seconds",
        Kind::Gauge,
        "When a certificate in use expires.",
    );
    for shown in &status.shown {
        let certificate = &shown.certificate;
        let sha256 = fingerprint(certificate);
        let subject = certificate.spiffe.as_ref().map_or(&*certificate.subject, |id| id.as_str());
        let labels = [("name", &*shown.name), ("subject", subject), ("fingerprint", &sha256[..16])];
        out.sample(&labels, u64::try_from(certificate.not_after).unwrap_or_default());
    }
}
