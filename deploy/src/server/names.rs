//! Looks up the names of endpoints with the system's resolver.
//!
//! # Invariants
//! - At most 16 look-ups at once, also of earlier rounds: one without an answer keeps a thread for
//!   as long as the system's resolver waits, and cannot be ended.
//! - The order is drawn anew for each round: names without an answer take no turn from others for
//!   ever.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Look-ups at once.
const LOOKUPS_MAX: usize = 16;
/// How long one round may take.
const ROUND_TIME: Duration = Duration::from_secs(5);

/// The look-ups of a process.
#[derive(Debug, Clone)]
pub struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Lookups {
        Lookups(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Lookups {
    /// What was found of `names` within 5 s; nothing of a name without an answer.
    pub async fn round(&self, names: BTreeSet<String>) -> Vec<(String, Vec<SocketAddr>)> {
        let look_up = |name: &str| name.to_socket_addrs().map(Iterator::collect);
        self.round_by(names, ROUND_TIME, look_up).await
    }

    async fn round_by(
        &self,
        names: BTreeSet<String>,
        time: Duration,
        look_up: impl Fn(&str) -> std::io::Result<Vec<SocketAddr>> + Clone + Send + 'static,
    ) -> Vec<(String, Vec<SocketAddr>)> {
        let mut names: Vec<String> = names.into_iter().collect();
        fastrand::shuffle(&mut names);
        let mut lookups = JoinSet::new();
        for name in names {
            let (turns, look_up) = (Arc::clone(&self.0), look_up.clone());
            lookups.spawn(async move {
                let turn = turns.acquire_owned().await.ok()?;
                let looked = tokio::task::spawn_blocking(move || {
                    let found = look_up(&name);
                    drop(turn);
                    found.ok().map(|found| (name, found))
                });
                looked.await.ok().flatten()
            });
        }
        let mut answers = Vec::new();
        let collect = async {
            while let Some(looked) = lookups.join_next().await {
                answers.extend(looked.ok().flatten());
            }
        };
        let _ = tokio::time::timeout(time, collect).await;
        answers
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex, PoisonError};
    use std::time::Instant;

    use super::*;

    /// Keeps threads until it is opened.
    #[derive(Default)]
    struct Gate(Mutex<bool>, Condvar);

    impl Gate {
        fn wait(&self) {
            let is_open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = self.1.wait_while(is_open, |is_open| !*is_open);
            drop(passed.unwrap_or_else(PoisonError::into_inner));
        }

        fn open(&self) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.1.notify_all();
        }
    }

    fn names(count: usize) -> BTreeSet<String> {
        (0..count).map(|nth| format!("{nth}:80")).collect()
    }

    #[tokio::test]
    async fn names_that_nobody_answers_for_keep_some_threads_and_not_all() {
        let lookups = Lookups::default();
        let (running, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Gate::default()));
        let (count, may_answer) = (Arc::clone(&running), Arc::clone(&answers));
        let never = move |_: &str| {
            count.fetch_add(1, Ordering::Relaxed);
            may_answer.wait();
            Ok(Vec::new())
        };
        for _ in 0..3 {
            let found = lookups.round_by(names(1000), Duration::from_millis(50), never.clone());
            assert_eq!(found.await, []);
        }
        assert_eq!(running.load(Ordering::Relaxed), LOOKUPS_MAX, "of three rounds together");
        let began = Instant::now();
        tokio::task::spawn_blocking(|| ()).await.expect("there is a thread");
        assert!(began.elapsed() < Duration::from_secs(5));
        answers.open();

        let one = SocketAddr::from(([10, 0, 0, 1], 80));
        let found = move |name: &str| match name {
            "3:80" => Err(std::io::ErrorKind::NotFound.into()),
            _ => Ok(vec![one]),
        };
        let mut found = lookups.round_by(names(5), Duration::from_secs(30), found).await;
        found.sort();
        let expected = ["0:80", "1:80", "2:80", "4:80"].map(|name| (name.to_owned(), vec![one]));
        assert_eq!(found, expected);
    }
}
