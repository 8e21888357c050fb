//! `ringway-bench`: the programs that measure Ringway and let a person try it.
//!
//! ```text
//! origin     HTTP, gRPC and raw TCP origin that answers for a demo or a measurement
//! load       open-loop generator for HTTP, gRPC, TCP and TLS, latency from the intended time
//! load-tcp   closed-loop client of the raw TCP origin, through a tunnel or direct
//! load-http  closed-loop client of HTTP bodies of one size
//! compare    Ringway beside its peers, scenario by scenario, one proxy at a time on its own core
//! proxy      one proxy of the comparison alone, for a load from another host
//! report     tables, plots and a summary of the newest results
//! instructions  what each step of a request costs, by callgrind, held by a ratchet
//! certs      a throw-away authority and certificates of a mesh
//! demo       origin with three variants, the proxy, and the quickstart file
//! fleet      simulated sidecars, and what they cost their pusher
//! guard      (internal) ends what a vanished parent left running
//! ```
//!
//! # Invariants
//! - Every process that is started is ended: by its owner, or by the guard when the owner vanished.
//! - A figure is printed only with the errors that happened while it was taken; a round with errors
//!   counts as failed.
//!
#![forbid(unsafe_code)]

mod authority;
mod bodies;
mod body;
mod certs;
mod child;
mod compare;
mod demo;
mod error;
mod fleet;
mod guard;
mod limits;
mod load;
mod micro;
mod origin;
mod pattern;
mod procfs;
mod report;
mod results;
mod sample;
mod scratch;
mod terminal;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// Measures Ringway against its peers, and runs the demo.
#[derive(Debug, Parser)]
#[command(name = "ringway-bench", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve small answers, bodies of any size and an echo of the request; several variants at once
    Origin(origin::Options),
    /// Send requests at a rate and report latency from the time each was meant to be sent
    Load(Box<load::Options>),
    /// Ask a raw TCP origin for bodies in a closed loop; prints bodies, bytes and errors as JSON
    LoadTcp(bodies::TcpOptions),
    /// GET bodies over HTTP/1.1 in a closed loop; prints bodies, bytes and errors as JSON
    LoadHttp(bodies::HttpOptions),
    /// Compare CPU, latency, memory, start and reload with other proxies on this machine
    Compare(compare::Options),
    /// Start one proxy of the comparison and say what it spends, while another host loads it
    Proxy(compare::serve::Options),
    /// Write the report of the newest results: tables, plots, and where Ringway loses
    Report(report::Options),
    /// Count the instructions of each step of a request and compare them with the ratchet
    Instructions(micro::Options),
    /// Make a throw-away authority and certificates with identities; called again, rotate them
    Certs(certs::Options),
    /// Start three origins and the proxy with the quickstart file, and print what to try
    Demo(demo::Options),
    /// Simulate sidecars with real TLS and measure what they cost their pusher, and how fast it is
    Fleet(fleet::Options),
    /// End registered processes once the pipe on standard input closes
    #[command(hide = true)]
    Guard,
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let code = if error.use_stderr() { error::EXIT_USAGE } else { 0 };
        // A closed terminal is the only way this print fails, and then nobody reads it.
        let _ = error.print();
        std::process::exit(i32::from(code));
    });
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::warn(&format!("ringway-bench: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(command: Command) -> Result<(), Error> {
    match command {
        Command::Origin(options) => origin::run(&options),
        Command::Load(options) => load::run(&options),
        Command::LoadTcp(options) => bodies::run_tcp(&options),
        Command::LoadHttp(options) => bodies::run_http(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Proxy(options) => compare::serve::run(&options),
        Command::Report(options) => report::run(&options),
        Command::Instructions(options) => micro::run(&options),
        Command::Certs(options) => certs::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Fleet(options) => fleet::run(&options),
        Command::Guard => {
            guard::serve();
            Ok(())
        }
    }
}
