//! Two futures at once, without a macro: the first to finish, or both to the end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Which of two finished.
#[derive(Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    Left(A),
    /// The second one.
    Right(B),
}

/// Runs both until one finishes and drops the other, which must therefore be a wait that holds
/// nothing. The first is asked first.
pub async fn first<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> Either<A, B> {
    let mut a = pin!(a);
    let mut b = pin!(b);
    poll_fn(|context| {
        if let Poll::Ready(value) = a.as_mut().poll(context) {
            return Poll::Ready(Either::Left(value));
        }
        b.as_mut().poll(context).map(Either::Right)
    })
    .await
}

/// Runs both to the end. `on_first` sees each result as it comes, so that the end of one can
/// hasten the other: it is called once for the one that finishes first.
pub async fn both<A, B>(
    a: impl Future<Output = A>,
    b: impl Future<Output = B>,
    on_first: impl FnOnce(Either<&A, &B>),
) -> (A, B) {
    let mut a = pin!(a);
    let mut b = pin!(b);
    let mut done_a = None;
    let mut done_b = None;
    let mut on_first = Some(on_first);
    poll_fn(|context| {
        if done_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            if let Some(call) = on_first.take() {
                call(Either::Left(&value));
            }
            done_a = Some(value);
        }
        if done_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            if let Some(call) = on_first.take() {
                call(Either::Right(&value));
            }
            done_b = Some(value);
        }
        match (done_a.take(), done_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                done_a = a;
                done_b = b;
                Poll::Pending
            }
        }
    })
    .await
}
