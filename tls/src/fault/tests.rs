//! Words and labels.

use std::collections::BTreeSet;

use super::*;

#[test]
fn labels_are_a_closed_set_without_doubles() {
    let set: BTreeSet<_> = Fault::LABELS.iter().collect();
    assert_eq!(set.len(), Fault::LABELS.len());
    assert_eq!(Fault::NotTls.label(), "not_tls");
    assert_eq!(Fault::Internal(String::new()).label(), "internal");
}
