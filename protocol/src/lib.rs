//! What the pusher and its sidecars say to each other.
#![forbid(unsafe_code)]
