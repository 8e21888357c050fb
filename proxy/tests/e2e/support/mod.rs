//! What every end-to-end test needs: a running proxy, an origin that does as it is told, and a
//! client that sends exact bytes.

pub mod http;
pub mod origin;
pub mod pair;
pub mod process;
pub mod proxy;

pub use http::Client;
pub use origin::Origin;
pub use proxy::{Backend, Proxy};

/// Declares tests that run on both backends: `fn claim(backend: Backend) { ... }` becomes
/// `claim::io_uring` and `claim::epoll`.
macro_rules! on_both_backends {
    ($($(#[$meta:meta])* fn $name:ident($backend:ident: Backend) $body:block)*) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                fn claim($backend: Backend) $body

                #[test]
                fn io_uring() {
                    claim(Backend::IoUring);
                }

                #[test]
                fn epoll() {
                    claim(Backend::Epoll);
                }
            }
        )*
    };
}

/// Waits until `condition` holds, and fails with `what` after ten seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
