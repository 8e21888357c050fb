//! placeholder
use super::Tree;
pub(super) fn parse(_text: &str) -> Option<Tree<'_>> {
    None
}
