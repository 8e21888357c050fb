//! A thread that does what it is given, in order.
//!
//! The core's: what it does waits for the disk and takes memory that outlives the request, so
//! whatever keeps the runtime's own threads for blocking work busy (names, certificates) does not
//! keep it waiting, and the allocator has one arena to keep it in, not one for each thread.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that does what it is given, in order. It ends when this is dropped and all is done.
#[derive(Debug)]
pub struct WorkThread(mpsc::Sender<Work>);

impl WorkThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(name: &str) -> io::Result<WorkThread> {
        let (sender, receiver) = mpsc::channel::<Work>();
        let body = move || {
            for work in receiver {
                // Whoever asked for it is told; what comes next is not to blame.
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(WorkThread(sender))
    }

    /// Has `work` done, and waits for what it gives.
    ///
    /// # Panics
    /// When it does.
    pub async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let (answer, answered) = oneshot::channel::<Result<R, Box<dyn Any + Send>>>();
        self.post(move || {
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
        });
        match answered.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            // The thread lives as long as this.
            Err(_) => std::future::pending().await,
        }
    }

    /// Has `work` done, and waits for nothing.
    pub fn post(&self, work: impl FnOnce() + Send + 'static) {
        let _ = self.0.send(Box::new(work));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_and_a_panic_is_told_to_whoever_asked() {
        let thread = WorkThread::start("test").expect("a thread");
        let done = Arc::new(Mutex::new(Vec::new()));
        for nth in 0..100 {
            let done = Arc::clone(&done);
            thread.post(move || done.lock().expect("no panic").push(nth));
        }
        assert_eq!(thread.run(|| 7).await, 7);
        assert!(done.lock().expect("no panic").iter().copied().eq(0..100));
        let thread = Arc::new(thread);
        let other = Arc::clone(&thread);
        let panicked =
            tokio::spawn(async move { other.run(|| std::panic::panic_any("on purpose")).await });
        assert!(panicked.await.expect_err("it panics").is_panic());
        assert_eq!(thread.run(|| 8).await, 8, "the thread goes on");
    }
}
