//! What a history keeps, in which order, and how much of it.

use std::collections::BTreeMap;

use super::*;
use crate::version::PolicyHash;

fn draft(byte: u8) -> Draft {
    Draft {
        classes: BTreeMap::from([("web".to_owned(), PolicyHash::new([byte; 32]))]).into(),
        author: "alice".to_owned(),
        message: "a change".to_owned(),
        forced: false,
        profile: Profile::Standard,
    }
}

fn confirm(history: &mut History, number: u64) {
    history.settle(number, Outcome::Confirmed { at_ms: 0 });
}

#[test]
fn generations_of_releases_never_touch() {
    let mut history = History::starting_above(40);
    let mut spent = 40;
    for byte in 0..5 {
        let release = history.add(draft(byte), 0).unwrap();
        assert!(release.restore_generation() > spent);
        spent = release.revert_generation();
    }
}

#[test]
fn going_back_is_a_higher_generation_with_old_hashes() {
    let mut history = History::default();
    let first = history.add(draft(1), 0).unwrap();
    confirm(&mut history, 1);
    history.add(draft(2), 0).unwrap();
    confirm(&mut history, 2);
    assert_eq!(history.draft_back(Some(9), "bob"), Err(DraftFault::Unknown(9)));
    let draft = history.draft_back(None, "bob").unwrap();
    let third = history.add(draft, 7).unwrap();
    assert_eq!(third.classes, first.classes);
    assert_eq!((third.number, third.parent, third.created_ms), (3, Some(2), 7));
    assert_eq!(third.message, "back to release 1: a change");
    assert!(third.generation > first.generation);
}

#[test]
fn without_an_earlier_good_release_there_is_no_way_back() {
    let mut history = History::default();
    history.add(draft(1), 0).unwrap();
    assert_eq!(history.draft_back(None, "bob"), Err(DraftFault::NothingEarlier));
    confirm(&mut history, 1);
    assert_eq!(history.draft_back(None, "bob"), Err(DraftFault::NothingEarlier));
}

#[test]
fn the_oldest_is_forgotten_but_never_the_last_good() {
    let mut history = History::default();
    history.add(draft(1), 0).unwrap();
    confirm(&mut history, 1);
    for _ in 1..RELEASES_KEPT_MAX {
        history.add(draft(2), 0).unwrap();
    }
    assert_eq!(history.entries().len(), RELEASES_KEPT_MAX);
    history.add(draft(2), 0).unwrap();
    assert_eq!(history.entries().len(), RELEASES_KEPT_MAX);
    assert_eq!(history.last_good().unwrap().number, 1);
    assert!(history.entry(2).is_none());
}

#[test]
fn drafts_have_limits() {
    let mut history = History::default();
    let named = |count: usize| {
        let hash = PolicyHash::new([0; 32]);
        Classes::from((0..count).map(|class| (class.to_string(), hash)).collect::<BTreeMap<_, _>>())
    };
    let mut full = draft(1);
    full.classes = named(CLASSES_MAX);
    full.author = "a".repeat(AUTHOR_BYTES_MAX);
    full.message = "m".repeat(MESSAGE_BYTES_MAX);
    assert!(history.add(full.clone(), 0).is_ok());
    let over = Draft { classes: named(CLASSES_MAX + 1), ..full.clone() };
    assert_eq!(history.add(over, 0), Err(DraftFault::Classes(CLASSES_MAX + 1)));
    let over = Draft { author: "a".repeat(AUTHOR_BYTES_MAX + 1), ..full.clone() };
    assert_eq!(history.add(over, 0), Err(DraftFault::Author));
    let over = Draft { message: "m".repeat(MESSAGE_BYTES_MAX + 1), ..full };
    assert_eq!(history.add(over, 0), Err(DraftFault::Message(MESSAGE_BYTES_MAX + 1)));
    assert_eq!(history.entries().len(), 1);
}

#[test]
fn generations_end_before_they_lose_precision() {
    let mut history = History::starting_above(GENERATION_MAX - GENERATIONS_PER_RELEASE - 1);
    assert!(history.add(draft(1), 0).is_ok());
    assert_eq!(history.add(draft(1), 0), Err(DraftFault::Generations));
}

#[test]
fn a_stored_history_reads_back_and_is_checked() {
    let mut history = History::default();
    history.add(draft(1), 0).unwrap();
    confirm(&mut history, 1);
    history.add(draft(2), 0).unwrap();
    let json = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<History>(&json).unwrap(), history);
    let falling = json.replace("\"number\":2", "\"number\":1");
    assert!(serde_json::from_str::<History>(&falling).is_err());
}
