//! What the tests of several crates have in common.

pub mod corpus;
pub mod metrics;

/// Declares tests that run on both backends: `fn claim(backend: Backend) { ... }` becomes
/// `claim::io_uring` and `claim::epoll`. `Backend` is whatever has these two where it is used.
#[macro_export]
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
