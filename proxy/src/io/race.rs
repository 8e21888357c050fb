//! Two futures at once, without a macro: the first to finish, or both to the end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Which of two finished.
#[derive(Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    Left(A),
    /// The second one.
    Right(B),
}

/// Runs both until one finishes. The first is asked first. The other is left as it is: it must be
/// a wait that can be dropped, or go on to be polled.
///
/// Takes what is pinned already: as an `async fn` this would hold each of the two twice, once as
/// argument and once pinned, and that is most of what an idle connection is made of.
pub fn first<A, B>(a: A, b: B) -> First<A, B>
where
    A: Future + Unpin,
    B: Future + Unpin,
{
    First { a, b }
}

/// The future of [`first`].
#[derive(Debug)]
pub struct First<A, B> {
    a: A,
    b: B,
}

impl<A, B> Future for First<A, B>
where
    A: Future + Unpin,
    B: Future + Unpin,
{
    type Output = Either<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(value) = Pin::new(&mut this.a).poll(context) {
            return Poll::Ready(Either::Left(value));
        }
        Pin::new(&mut this.b).poll(context).map(Either::Right)
    }
}

/// Runs both to the end. `on_first` sees each result as it comes, so that the end of one can
/// hasten the other: it is called once for the one that finishes first.
pub async fn both<A, B>(
    mut a: Pin<&mut impl Future<Output = A>>,
    mut b: Pin<&mut impl Future<Output = B>>,
    on_first: impl FnOnce(Either<&A, &B>),
) -> (A, B) {
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
