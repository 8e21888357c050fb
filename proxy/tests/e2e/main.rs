//! End-to-end tests: the real program, real sockets, real peers, on both backends.
//!
//! Every claim runs twice, as `claim::io_uring` and `claim::epoll`. `RINGWAY_BIN` names another
//! build of the program to test, such as the release one.

#![allow(missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[macro_use]
extern crate ringway_testing;

mod admin;
mod basics;
mod cli;
mod deadlines;
mod detection;
mod edge_tls;
mod gathering;
mod grpc;
mod http1;
mod http2;
mod http2_abuse;
mod http2_memory;
mod http2_pairings;
mod http2_peers;
mod http2_soak;
mod http2_upstream;
mod idle;
mod mutual_tls;
mod overload;
mod pool;
mod reload;
mod resets;
mod rotation;
mod silence;
mod smuggling;
mod startup;
mod streaming_http;
mod support;
mod tls_peers;
mod tunnel;
mod websocket;
