//! Frames: round trips, cuts at every byte, limits, and what is not a frame.

use proptest::prelude::*;

use super::*;

fn stage(policy: &str) -> Frame {
    let hash = PolicyHash::of(policy);
    let (generation, release) = (7, 3);
    let requires = vec!["http2".to_owned()];
    Frame::Stage(Stage { generation, hash, release, requires, policy: policy.to_owned() })
}

fn all() -> Vec<Frame> {
    let member = Member { address: "10.0.0.7:8443".parse().unwrap(), weight: 2 };
    let endpoints = |change, stale| {
        Frame::Endpoints(Endpoints { cluster: "shop:http".into(), sequence: 1, change, stale })
    };
    vec![
        stage("{\"listeners\":[]}\n"),
        stage(""),
        Frame::Commit(Commit { generation: 7, hash: PolicyHash::of(""), probation_ms: 60_000 }),
        endpoints(EndpointsChange::Full(vec![member]), true),
        endpoints(EndpointsChange::Change { set: vec![member], gone: vec![member.address] }, false),
        endpoints(EndpointsChange::Gone {}, false),
        Frame::Bundle(Bundle { epoch: 2, roots: "-----".into(), revocations: String::new() }),
        Frame::Ping(Ping { now_ms: 1, stream: 2, endpoints: None }),
        Frame::Move(Move { retry_ms: 500, to: None }),
        Frame::Hold(Hold { reason: "no workload has this identity".into() }),
        Frame::Sample(Sample { max: 1000 }),
    ]
}

fn decoded(decoder: &mut Decoder) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.frame().unwrap()).collect()
}

#[test]
fn frames_come_back_as_they_were_wherever_the_bytes_are_cut() {
    let bytes: Vec<u8> = all().iter().flat_map(|frame| frame.encode().unwrap()).collect();
    for cut in 0..=bytes.len() {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            decoder.push(part);
            frames.extend(decoded(&mut decoder));
        }
        assert_eq!(frames, all(), "cut at {cut}");
    }
}

#[test]
fn a_frame_of_a_later_version_is_skipped() {
    let mut decoder = Decoder::default();
    decoder.push(&[0, 0, 0, 2, 200, b'{', b'}']);
    decoder.push(&stage("x").encode().unwrap());
    assert_eq!(decoded(&mut decoder), [stage("x")]);
}

#[test]
fn a_field_of_a_later_version_is_skipped() {
    let payload = br#"{"now_ms":5,"stream":1,"mood":"fine"}"#;
    let ping = Frame::decode(5, payload).unwrap();
    assert_eq!(ping, Some(Frame::Ping(Ping { now_ms: 5, stream: 1, endpoints: None })));
}

#[test]
fn a_policy_with_a_flipped_bit_is_refused() {
    let mut bytes = stage("{\"listeners\":[]}").encode().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    let error = decoder.frame().unwrap_err();
    assert!(matches!(error, FrameError::Hash { .. }), "{error}");
}

#[test]
fn the_longest_frame_is_taken_and_one_byte_more_is_not() {
    let line = stage("").encode().unwrap().len() - HEADER;
    let longest = stage(&"x".repeat(FRAME_BYTES_MAX - line)).encode().unwrap();
    let mut decoder = Decoder::default();
    decoder.push(&longest);
    assert_eq!(decoded(&mut decoder).len(), 1);
    assert!(stage(&"x".repeat(FRAME_BYTES_MAX - line + 1)).encode().is_none());
    decoder.push(&[&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()[..], &[5]].concat());
    assert!(matches!(decoder.frame(), Err(FrameError::TooLong { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(parts: Vec<Vec<u8>>) {
        let mut decoder = Decoder::default();
        for part in parts {
            decoder.push(&part);
            while let Ok(Some(_)) = decoder.frame() {}
        }
    }

    #[test]
    fn no_payload_makes_it_panic(number in 0_u8..9, payload: Vec<u8>) {
        let _ = Frame::decode(number, &payload);
    }
}
