//! Sends what the workers have sampled, when the pusher asks.

use ringway_protocol::limits::SAMPLE_KEYS_MAX;
use ringway_protocol::{Name, Samples};

use super::connection::{PushError, Target};
use crate::sample::{Gathered, gather};
use crate::shared::Shared;

/// What is said to a pusher that asks for at most `max` keys on the stream `stream`.
#[must_use]
pub fn answer(shared: &Shared, node: Name, stream: u64, max: usize) -> Samples {
    let reservoirs = || shared.seats.iter().map(|seat| &seat.samples);
    let enabled = reservoirs().any(crate::sample::Reservoir::is_enabled);
    let Gathered { mut keys, seen, mut left_out } = gather(reservoirs());
    let over = keys.split_off(keys.len().min(max).min(SAMPLE_KEYS_MAX));
    left_out += over.iter().map(|sampled| u64::from(sampled.count)).sum::<u64>();
    let mut samples = Samples { node, stream, enabled, seen, left_out, keys };
    samples.fit();
    samples
}

/// Sends them. What fails is logged: the pusher asks again when it wants to know.
pub async fn send(target: Target, samples: Samples) {
    let sent = async {
        let mut connection = target.connect().await?;
        connection.post::<()>("/v1/samples", &samples).await
    };
    let sent: Result<(), PushError> = sent.await;
    match sent {
        Ok(()) => tracing::info!(keys = samples.keys.len(), "the pusher asked for samples"),
        Err(error) => tracing::warn!("samples were not taken: {error}"),
    }
}
