//! What a configuration may say but probably does not mean.

use super::Config;
use crate::problem::Sink;

/// Looks for suspicious things in a configuration without errors.
pub(crate) fn config(_config: &Config, _sink: &mut Sink) {}
