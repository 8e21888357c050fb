//! Rollouts over simulated sidecars, with time and chance put in.

mod large;
mod random;
mod sim;
mod steps;
