use std::net::SocketAddr;

use ringway_router::{Format, load};
use serde_json::Value;

use super::*;

const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);

fn written(text: &str) -> Result<Value, Vec<Problem>> {
    let config = load(text, Format::Yaml).expect("it is a configuration").config;
    bootstrap(&config, "web", ADMIN)
}
