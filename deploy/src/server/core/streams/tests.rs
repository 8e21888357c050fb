//! Streams: what is shared, who is told what, who is pinged and who is cut off.

use ringway_protocol::{Decoder, Member};

use super::*;

fn key(node: u32) -> SidecarKey {
    SidecarKey::new("spiffe://mesh.example/ns/default/sa/web", &format!("node-{node}"))
        .expect("a key")
}

fn wanted(clusters: usize, last: u8) -> Wanted {
    let mut state = EndpointsState::default();
    for nth in 0..clusters {
        let address = ([10, 0, 0, last], 80).into();
        state.put(&format!("c{nth}"), vec![Member { address, weight: 1 }]);
    }
    Wanted { state, stale: BTreeSet::new() }
}

/// The pieces that wait.
fn waiting(receiver: &mut mpsc::Receiver<Bytes>) -> Vec<Bytes> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

/// What a sidecar makes of them.
fn applied(state: &mut EndpointsState, sequence: &mut u64, pieces: &[Bytes]) {
    let mut decoder = Decoder::default();
    for piece in pieces {
        decoder.push(piece);
        while let Some(frame) = decoder.frame().expect("frames") {
            if let Frame::Endpoints(endpoints) = frame {
                state.apply(endpoints, sequence).expect("in step");
            }
        }
    }
}

#[test]
fn a_class_with_more_clusters_than_pieces_may_wait_is_told_all_of_them() {
    let mut streams = Streams::default();
    let clusters = 10 * PIECES_QUEUED_MAX;
    let mut receiver = streams.open(&key(1), ConnectionId(1), None, || wanted(clusters, 1));
    let pieces = waiting(&mut receiver);
    let (mut state, mut sequence) = (EndpointsState::default(), 0);
    applied(&mut state, &mut sequence, &pieces);
    assert_eq!((state, sequence), (wanted(clusters, 1).state, clusters as u64));
}

#[test]
fn frames_are_shared_among_the_streams_of_a_class() {
    let mut streams = Streams::default();
    let mut receivers: Vec<_> = (0..100)
        .map(|nth| streams.open(&key(nth), ConnectionId(u64::from(nth)), None, || wanted(3, 1)))
        .collect();
    let mut places = HashSet::new();
    for receiver in &mut receivers {
        places.extend(waiting(receiver).iter().map(|piece| piece.as_ptr()));
    }
    assert_eq!(places.len(), 1, "all of it");
    streams.tell(key(0).identity(), wanted(3, 2));
    places.clear();
    for receiver in &mut receivers {
        places.extend(waiting(receiver).iter().map(|piece| piece.as_ptr()));
    }
    assert_eq!(places.len(), 1, "a change");
    streams.tell(key(0).identity(), wanted(3, 2));
    assert!(waiting(&mut receivers[0]).is_empty(), "nothing has changed");
}

#[test]
fn whoever_comes_when_is_told_the_same_in_steps_of_its_own() {
    let mut streams = Streams::default();
    let mut early = streams.open(&key(1), ConnectionId(1), None, || wanted(3, 1));
    streams.tell(key(1).identity(), wanted(2, 2));
    let has = Some(wanted(2, 2).state.hash());
    let mut late =
        streams.open(&key(2), ConnectionId(2), has, || unreachable!("the class is known"));
    let mut empty = streams.open(&key(3), ConnectionId(3), None, || unreachable!("likewise"));
    streams.tell(key(1).identity(), wanted(4, 3));
    let starts = [EndpointsState::default(), wanted(2, 2).state, EndpointsState::default()];
    for (receiver, mut state) in [&mut early, &mut late, &mut empty].into_iter().zip(starts) {
        let mut sequence = 0;
        applied(&mut state, &mut sequence, &waiting(receiver));
        assert_eq!(state, wanted(4, 3).state);
    }
}

#[test]
fn only_those_who_are_due_are_pinged_and_with_the_hash_of_their_class() {
    let mut streams = Streams::default();
    let start = Instant::now();
    let mut receivers = Vec::new();
    for nth in 0..3 {
        let connection = ConnectionId(u64::from(nth));
        receivers.push(streams.open(&key(nth), connection, None, || wanted(1, 1)));
        streams.ping(&key(nth), start + Duration::from_secs(u64::from(nth)), 0);
        waiting(&mut receivers[nth as usize]);
    }
    streams.close(&key(0), ConnectionId(0));
    streams.ping_due(start + PING_EVERY + Duration::from_secs(1), 7);
    assert!(waiting(&mut receivers[0]).is_empty(), "closed");
    assert!(waiting(&mut receivers[2]).is_empty(), "not due");
    let mut decoder = Decoder::default();
    decoder.push(&waiting(&mut receivers[1])[0]);
    let endpoints = Some(wanted(1, 1).state.hash());
    let ping = Ping { now_ms: 7, stream: 1, endpoints };
    assert_eq!(decoder.frame().expect("a frame"), Some(Frame::Ping(ping)));
    assert_eq!(streams.pings.len(), 2, "each once");
}

#[test]
fn who_does_not_read_is_cut_off_and_a_class_goes_with_its_last_stream() {
    let mut streams = Streams::default();
    let _receiver = streams.open(&key(1), ConnectionId(1), None, || wanted(0, 1));
    for _ in 0..PIECES_QUEUED_MAX {
        streams.send(&key(1), Bytes::from_static(b"x"));
    }
    assert_eq!((streams.len(), streams.slow_readers), (1, 0));
    streams.send(&key(1), Bytes::from_static(b"x"));
    assert_eq!((streams.len(), streams.slow_readers), (0, 1));
    assert!(streams.classes.is_empty());
}

#[test]
fn what_is_stale_is_told_to_those_who_are_connected_and_to_those_who_come() {
    let mut streams = Streams::default();
    let marks = |receiver: &mut mpsc::Receiver<Bytes>| -> Vec<(String, bool, bool)> {
        let mut decoder = Decoder::default();
        for piece in waiting(receiver) {
            decoder.push(&piece);
        }
        let frames = std::iter::from_fn(|| decoder.frame().expect("frames"));
        let marks = frames.filter_map(|frame| match frame {
            Frame::Endpoints(it) => Some((it.cluster, it.stale, it.change.is_empty())),
            _ => None,
        });
        marks.collect()
    };
    let stale = |mut wanted: Wanted| {
        wanted.stale.insert("c1".to_owned());
        wanted
    };
    let mut early = streams.open(&key(1), ConnectionId(1), None, || wanted(2, 1));
    waiting(&mut early);
    streams.tell(key(1).identity(), stale(wanted(2, 1)));
    assert_eq!(marks(&mut early), [("c1".to_owned(), true, true)]);
    let has = Some(wanted(2, 1).state.hash());
    let mut late = streams.open(&key(2), ConnectionId(2), has, || unreachable!());
    assert_eq!(marks(&mut late), [("c1".to_owned(), true, true)]);
    let mut empty = streams.open(&key(3), ConnectionId(3), None, || unreachable!());
    let all = [("c0".to_owned(), false, false), ("c1".to_owned(), true, false)];
    assert_eq!(marks(&mut empty), all);

    streams.tell(key(1).identity(), wanted(2, 1));
    let fresh = [("c1".to_owned(), false, true)];
    for receiver in [&mut early, &mut late, &mut empty] {
        assert_eq!(marks(receiver), fresh);
    }
    streams.tell(key(1).identity(), stale(wanted(2, 1)));
    marks(&mut early);
    // Given up: the endpoints themselves go, and with them the mark.
    streams.tell(key(1).identity(), wanted(1, 1));
    assert_eq!(marks(&mut early), [("c1".to_owned(), false, false)]);
    streams.tell(key(1).identity(), wanted(1, 1));
    assert_eq!(marks(&mut early), []);
}

#[test]
fn reports_come_in_bursts_but_not_without_end() {
    let mut streams = Streams::default();
    let _receiver = streams.open(&key(1), ConnectionId(1), None, || wanted(0, 1));
    let start = Instant::now();
    let taken = (0..1000).filter(|_| streams.may_report(&key(1), start)).count();
    assert_eq!(taken, REPORTS_AHEAD as usize);
    let later = start + REPORT_EVERY * 3;
    let taken = (0..1000).filter(|_| streams.may_report(&key(1), later)).count();
    assert_eq!(taken, 3);
    assert!(streams.may_report(&key(2), start), "one without a stream is refused elsewhere");
}
