//! A table of routes: the names in it, the requests that meet it, and how a reload of it shows.
//!
//! # Invariants
//! - Route `n` is the host `h(n / 10).example` and the path prefix `/p(n % 10)`, in every peer's
//!   language: `hosts` in its templates.
//! - The host [`MARKER`] is answered by the proxy itself, with the generation of its files.

use minijinja::{Value, context};

use crate::load::Request;

/// Host of the route whose answer tells which generation of the files is in force.
pub(super) const MARKER: &str = "generation.example";
/// Routes that share a host name; their paths differ.
const PATHS_PER_HOST: u32 = 10;
/// Different requests of the load, spread evenly over the table.
const REQUESTS_MAX: u32 = 5000;

/// A table of so many routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) routes: u32,
    pub(super) generation: u32,
}

impl Table {
    pub(super) fn new(routes: u32) -> Self {
        Self { routes, generation: 0 }
    }

    pub(super) fn next(self) -> Self {
        Self { generation: self.generation + 1, ..self }
    }

    /// What the marker's host is answered with.
    pub(super) fn answer(self) -> String {
        format!("generation-{}", self.generation)
    }

    /// What templates may name.
    pub(super) fn values(self) -> Value {
        let hosts: Vec<Value> = (0..self.routes.div_ceil(PATHS_PER_HOST))
            .map(|host| {
                let first = host * PATHS_PER_HOST;
                let paths = first..self.routes.min(first + PATHS_PER_HOST);
                let paths: Vec<String> =
                    paths.map(|route| format!("/p{}", route % PATHS_PER_HOST)).collect();
                context! { name => format!("h{host}.example"), paths }
            })
            .collect();
        context! { hosts, marker => MARKER, generation => self.generation }
    }

    /// GET requests for routes all over the table, each with its host and path.
    pub(super) fn requests(self) -> Vec<Request> {
        let count = self.routes.min(REQUESTS_MAX);
        let step = self.routes / count;
        (0..count)
            .map(|number| {
                let route = number * step + number % step;
                let (host, path) = (route / PATHS_PER_HOST, route % PATHS_PER_HOST);
                Request::get(format!("h{host}.example"), format!("/p{path}/item"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_meets_a_route() {
        for routes in [1, 10, 25, 1000, 100_000] {
            let requests = Table::new(routes).requests();
            assert_eq!(requests.len(), routes.min(REQUESTS_MAX) as usize);
            for request in requests {
                let number = |text: &str, before: &str, after: &str| -> u32 {
                    let rest = text.strip_prefix(before).unwrap();
                    rest.strip_suffix(after).unwrap().parse().unwrap()
                };
                let host = number(&request.host, "h", ".example");
                let route = host * PATHS_PER_HOST + number(&request.path, "/p", "/item");
                assert!(route < routes, "{request:?}");
            }
        }
    }

    #[test]
    fn a_host_has_ten_paths_and_the_last_one_what_is_left() {
        let values = Table::new(25).values();
        let hosts = values.get_attr("hosts").unwrap();
        assert_eq!(hosts.len(), Some(3));
        let last = hosts.get_item(&Value::from(2)).unwrap();
        assert_eq!(last.get_attr("paths").unwrap().len(), Some(5));
    }
}
