//! A pusher and its sidecars as processes, and everything that goes wrong between them.
//!
//! One file for each topic: `failures` (who dies when), `rollouts` (what is undone, by whom),
//! `certificates` (tokens, renewal, rotation), `guards` (what the folder may not do), `admin`
//! (metrics).

#![allow(missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::unwrap_used)]

#[macro_use]
extern crate ringway_testing;

mod admin;
mod certificates;
mod failures;
mod guards;
mod old;
mod rollouts;
mod support;
