//! A sidecar of an older version, by openssl and curl: it stages nothing that needs what it cannot do.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use ringway_protocol::{
    CertificateState, Decoder, Frame, Joined, Report, Stage, State, StateReport, Traffic,
};

use super::support::{Process, World, wait_for};

/// A joined sidecar that listens.
pub struct OldSidecar {
    folder: PathBuf,
    pusher: String,
    node: &'static str,
    _stream: Process,
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {complained}");
    output.stdout
}

impl OldSidecar {
    /// Joins as `workload` with a token of its own, and opens a stream.
    pub fn join(world: &World, workload: &str, node: &'static str) -> OldSidecar {
        let folder = world.path(node);
        fs::create_dir(&folder).unwrap();
        let pusher = format!("https://127.0.0.1:{}", world.listen());
        let openssl =
            |words: &[&str]| run(Command::new("openssl").args(words).current_dir(&folder));
        openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-out", "key.pem"]);
        openssl(&["req", "-new", "-key", "key.pem", "-subj", "/", "-out", "csr.pem"]);
        let csr = fs::read_to_string(folder.join("csr.pem")).unwrap();
        let token = world.token(workload, &[]);
        let join = serde_json::json!({"token": token, "csr": csr, "node": node}).to_string();
        let joined =
            run(Command::new("curl").args(["-skf", "-d", &join, &format!("{pusher}/v1/join")]));
        let joined: Joined = serde_json::from_slice(&joined).unwrap();
        fs::write(folder.join("chain.pem"), joined.chain).unwrap();
        let query = format!("node={node}&version=0.0.1&capabilities=tcp&bundle={}", joined.epoch);
        let mut curl = Command::new("curl");
        curl.current_dir(&folder)
            .args(["-skN", "--cert", "chain.pem", "--key", "key.pem", "-o", "frames"])
            .arg(format!("{pusher}/v1/stream?{query}"));
        let _stream = Process::start(curl, folder.join("curl.log"));
        OldSidecar { folder, pusher, node, _stream }
    }

    /// What the pusher has said so far.
    fn frames(&self) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        decoder.push(&fs::read(self.folder.join("frames")).unwrap_or_default());
        std::iter::from_fn(|| decoder.frame().unwrap()).collect()
    }

    /// Waits for a policy that says `text`.
    pub fn staged_with(&self, text: &str) -> Stage {
        wait_for("a policy is to be staged", || {
            self.frames().into_iter().rev().find_map(|frame| match frame {
                Frame::Stage(stage) if stage.policy.contains(text) => Some(stage),
                _ => None,
            })
        })
    }

    /// Whether it was ever told to apply something of this generation.
    pub fn is_committed(&self, generation: u64) -> bool {
        let is_it =
            |frame: &Frame| matches!(frame, Frame::Commit(it) if it.generation == generation);
        self.frames().iter().any(is_it)
    }

    /// Reports what became of a policy.
    pub fn report(&self, stage: &Stage, state: State, reason: &str) {
        let (generation, hash, reason) = (stage.generation, stage.hash, reason.to_owned());
        let states = vec![StateReport { generation, hash, state, reason, took_ms: 1 }];
        assert!(self.send(1, states).starts_with("204"));
    }

    /// Reports nothing new `times` times over one connection. Gives the status and `Retry-After` of
    /// each answer.
    pub fn report_nothing(&self, times: usize) -> Vec<(u16, Option<u64>)> {
        let answers = self.send(times, Vec::new());
        let answer = |line: &str| {
            let (status, wait) = line.split_once(' ').unwrap();
            (status.parse().unwrap(), wait.parse().ok())
        };
        answers.lines().map(answer).collect()
    }

    fn send(&self, times: usize, states: Vec<StateReport>) -> String {
        let stream = self.frames().into_iter().find_map(|frame| match frame {
            Frame::Ping(ping) => Some(ping.stream),
            _ => None,
        });
        let report = Report {
            node: self.node.parse().unwrap(),
            stream: stream.expect("a ping comes first"),
            states,
            running: None,
            on_probation: false,
            endpoints: None,
            certificate: CertificateState {
                not_after_s: u64::MAX / 2000,
                root: String::new(),
                problem: String::new(),
            },
            epoch: 1,
            traffic: Traffic::default(),
        };
        let report = serde_json::to_string(&report).unwrap();
        let mut curl = Command::new("curl");
        curl.current_dir(&self.folder).args(["-sk", "--cert", "chain.pem", "--key", "key.pem"]);
        curl.args(["-d", &report, "-w", "%{http_code} %header{retry-after}\\n"]);
        for _ in 0..times {
            curl.args(["-o", "answer"]).arg(format!("{}/v1/report", self.pusher));
        }
        String::from_utf8(run(&mut curl)).unwrap()
    }
}
