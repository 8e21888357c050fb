//! Choice of certificates.
