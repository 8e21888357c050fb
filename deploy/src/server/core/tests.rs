//! The core alone: a disk that fills up, a restart, and what a sidecar is told at its hello.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::{fs, iter};

use ringway_protocol::Decoder;
use ringway_tls::SpiffeId;

use super::*;
use crate::fleet::Running;
use crate::limits::RELEASES_KEPT_MAX;
use crate::model::Mode;
use crate::rollout::Waits;
use crate::store::troubled::Troubled;
use crate::version::Version;

/// The certificate of a sidecar.
pub(super) fn peer(key: &SidecarKey) -> Peer {
    let id = SpiffeId::parse(key.identity()).expect("an identity");
    Peer { id, serial: String::new(), until_s: 0, issuer: None }
}

/// What a sidecar says that never ran a policy.
pub(super) fn hello() -> Hello {
    Hello {
        running: None,
        endpoints: None,
        certificate: None,
        bundle_epoch: 0,
        software: "1".to_owned(),
        capabilities: iter::empty().collect(),
        labels: iter::empty().collect(),
    }
}

const IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/web";

fn key() -> SidecarKey {
    SidecarKey::new(IDENTITY, "n").expect("a key")
}

fn opened(store: &Arc<Troubled>, folder: &Path, profile: Profile, now_ms: u64) -> Core {
    let texts = Texts::open(&folder.join("texts")).expect("a folder");
    let (waits, mode) = (Waits::default(), Mode::Strict);
    let settings = Settings { profile, waits, manual: false, mode };
    Core::open(Arc::clone(store) as Arc<dyn Store>, texts, settings, now_ms).expect("a store")
}

/// The mesh of `web`, which listens at `port`.
fn mesh(folder: &Path, port: u16) -> Folder {
    let dir = folder.join("mesh");
    fs::create_dir_all(&dir).expect("a folder");
    let text = format!(
        "services:\n- {{name: shop, identities: [], ports: [{{name: http, port: 80, protocol: http1}}]}}\n\
         endpoints:\n- {{service: shop, addresses: [{{address: \"127.0.0.1:1\"}}]}}\n\
         workloads:\n- {{name: web, outbound: \"127.0.0.1:{port}\", imports: [shop]}}\n"
    );
    fs::write(dir.join("mesh.yaml"), text).expect("room");
    Folder::read(&dir).expect("a mesh")
}

fn frames(receiver: &mut mpsc::Receiver<Bytes>) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    while let Ok(bytes) = receiver.try_recv() {
        decoder.push(&bytes);
    }
    iter::from_fn(|| decoder.frame().expect("frames")).collect()
}

fn staged(frames: &[Frame]) -> Option<(u64, PolicyHash)> {
    frames.iter().find_map(|frame| match frame {
        Frame::Stage(stage) => Some((stage.generation, stage.hash)),
        _ => None,
    })
}

/// Ticks until the release is the last good one; nobody is there to be asked. Gives the time.
fn confirmed(core: &mut Core) -> u64 {
    assert_eq!(core.diagnostics(), [], "the mesh is good");
    let done = |core: &Core| core.conductor().history().last_good().is_some();
    let tick = |now_ms: &u64| {
        core.tick(*now_ms);
        done(core)
    };
    (0..1000).map(|second| second * 1000).find(tick).expect("it is confirmed")
}

#[test]
fn what_could_not_be_written_down_is_carried_out_once_it_can_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Troubled::default());
    let mut core = opened(&store, folder.path(), Profile::Now, 0);
    core.folder(&mesh(folder.path(), 1000), 0).expect("the first");
    let now = confirmed(&mut core);
    let (connection, mut receiver) =
        core.hello(&key(), peer(&key()), hello(), None, now).expect("room");
    let (generation, hash) = staged(&frames(&mut receiver)).expect("a policy");
    let running = Running { version: Version { generation, hash }, confirmed: true };
    core.goodbye(&key(), connection, now);
    let hello_of = || Hello { running: Some(running), ..hello() };
    let (_, mut receiver) = core.hello(&key(), peer(&key()), hello_of(), None, now).expect("room");
    frames(&mut receiver);

    store.is_full.store(true, Ordering::Relaxed);
    let refused = core.folder(&mesh(folder.path(), 1001), now);
    assert!(refused.is_err(), "it cannot be written down");
    core.tick(now + 1000);
    assert_eq!(staged(&frames(&mut receiver)), None, "nothing is said before");
    assert_eq!(core.disk_problem(), Some("write: no space left"));
    store.is_full.store(false, Ordering::Relaxed);
    core.tick(now + 1500);
    assert!(core.disk_problem().is_some(), "a disk is not asked without end");
    core.tick(now + 2000);
    assert_eq!(core.disk_problem(), None);
    assert!(staged(&frames(&mut receiver)).is_some_and(|(_, new)| new != hash));
}

#[test]
fn after_a_restart_a_changed_folder_waits_for_the_sidecars() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Troubled::default());
    let mut core = opened(&store, folder.path(), Profile::Standard, 0);
    core.folder(&mesh(folder.path(), 1000), 0).expect("the first");
    let now = confirmed(&mut core);
    drop(core);

    let mut core = opened(&store, folder.path(), Profile::Standard, now);
    core.folder(&mesh(folder.path(), 1001), now).expect("the second");
    core.tick(now + 59_000);
    assert!(core.waiting().is_some(), "it may concern who is on the way back");
    core.tick(now + 61_000);
    assert!(core.waiting().is_none(), "who is missing for so long is not waited for");

    let mut core = opened(&store, folder.path(), Profile::Dev, now);
    core.folder(&mesh(folder.path(), 1002), now).expect("the third");
    assert!(core.waiting().is_none(), "developers do not wait");
}

#[test]
fn who_connects_is_told_what_was_revoked_although_the_epoch_is_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut core = opened(&Arc::default(), folder.path(), Profile::Now, 0);
    let mut told = |revoked| {
        let roots =
            Roots { epoch: 0, revoked, revocations: revoked.to_string(), ..Roots::default() };
        core.set_roots(roots);
        let (connection, mut receiver) =
            core.hello(&key(), peer(&key()), hello(), None, 1).expect("room");
        core.goodbye(&key(), connection, 1);
        frames(&mut receiver).iter().any(|frame| matches!(frame, Frame::Bundle(_)))
    };
    assert!(!told(0));
    assert!(told(1));
}

#[test]
fn who_is_not_of_the_mesh_keeps_its_endpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut core = opened(&Arc::default(), folder.path(), Profile::Now, 0);
    core.folder(&mesh(folder.path(), 1000), 0).expect("a mesh");
    let mut told = |key: &SidecarKey| {
        let (_, mut receiver) = core.hello(key, peer(key), hello(), None, 1).expect("room");
        let told = frames(&mut receiver).into_iter().find_map(|frame| match frame {
            Frame::Ping(ping) => Some(ping.endpoints),
            _ => None,
        });
        told.expect("a ping")
    };
    assert!(told(&key()).is_some());
    let lost = SidecarKey::new("spiffe://cluster.local/ns/default/sa/lost", "n").expect("a key");
    assert_eq!(told(&lost), None);
}

#[test]
fn endpoints_stay_for_who_stayed_on_a_policy_that_no_release_knows_any_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut core = opened(&Arc::default(), folder.path(), Profile::Dev, 0);
    core.folder(&mesh(folder.path(), 1000), 0).expect("a mesh");
    let now = confirmed(&mut core);
    let (connection, mut receiver) =
        core.hello(&key(), peer(&key()), hello(), None, now).expect("room");
    let (generation, hash) = staged(&frames(&mut receiver)).expect("a policy");
    let running = Running { version: Version { generation, hash }, confirmed: true };
    core.goodbye(&key(), connection, now);
    let hello_of = Hello { running: Some(running), ..hello() };
    let (connection, _) = core.hello(&key(), peer(&key()), hello_of, None, now).expect("room");
    core.goodbye(&key(), connection, now);

    let other = fs::read_to_string(folder.path().join("mesh/mesh.yaml")).expect("a mesh");
    let other = other.replace("shop", "cart");
    for port in 0..=RELEASES_KEPT_MAX {
        let text = other.replace(":1000", &format!(":{}", 2000 + port));
        fs::write(folder.path().join("mesh/mesh.yaml"), text).expect("room");
        let read = Folder::read(&folder.path().join("mesh")).expect("a mesh");
        core.folder(&read, now).expect("a release");
        core.tick(now);
    }
    let history = core.conductor().history();
    assert!(history.entry(1).is_none(), "{} releases", history.entries().len());
    assert!(core.texts.get(&hash).is_some());
    assert!(core.sets.wanted(IDENTITY).state.of("shop:http").is_some());
    assert!(core.sets.wanted(IDENTITY).state.of("cart:http").is_some());
}

#[test]
fn a_policy_that_could_not_be_kept_is_released_once_it_can_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut core = opened(&Arc::default(), folder.path(), Profile::Now, 0);
    core.folder(&mesh(folder.path(), 1000), 0).expect("the first");
    let now = confirmed(&mut core);
    // As a full disk: a file where the folder of the texts was.
    let (texts, aside) = (folder.path().join("texts"), folder.path().join("aside"));
    fs::rename(&texts, &aside).expect("renamed");
    fs::write(&texts, "").expect("written");
    core.folder(&mesh(folder.path(), 1001), now).expect("it is said elsewhere");
    assert!(core.disk_problem().is_some_and(|text| text.contains("cannot be kept")));
    core.tick(now + 1000);
    assert_eq!(core.conductor().history().entries().len(), 1);
    fs::remove_file(&texts).expect("removed");
    fs::rename(&aside, &texts).expect("renamed");
    core.tick(now + 2000);
    assert_eq!(core.conductor().history().entries().len(), 2);
    assert_eq!(core.disk_problem(), None);
}
