//! Where a mesh comes from.

pub mod directory;
pub mod folder;

pub use folder::{File, Folder, ReadError};
