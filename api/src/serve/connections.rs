//! Taking connections and serving them, so that none keeps another from being served: of those without a request the
//! oldest makes room, and one that takes too long over the head of a request is closed.
//!
//! HTTP/1.1 alone. What is in a request is never looked at here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::serve::Listener;
use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tower::ServiceExt;

use super::Patience;
use super::pace::Paced;

/// The largest head of a request, in bytes, and what a connection holds of anything.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Serves until `closing`, and then until the last connection is done with its request.
pub async fn serve(mut listener: impl Listener, router: Router, patience: Patience, closing: impl Future<Output = ()>) {
    let seats = Arc::new(Seats::new(patience.connections_max));
    let (close, closed) = watch::channel(());
    // Every connection holds a sender: the last one that is dropped was the last one there.
    let (here, mut gone) = mpsc::channel::<Infallible>(1);
    let mut closing = pin!(closing);
    loop {
        let arriving = async {
            let seat = Seats::take(&seats).await;
            (seat, listener.accept().await.0)
        };
        let (seat, io) = tokio::select! {
            biased;
            () = &mut closing => break,
            arrived = arriving => arrived,
        };
        let (router, closed, here) = (router.clone(), closed.clone(), here.clone());
        tokio::spawn(async move {
            connection(TokioIo::new(io), router, patience, seat, closed).await;
            drop(here);
        });
    }
    drop((listener, close, here));
    gone.recv().await;
}

async fn connection(
    io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    router: Router,
    patience: Patience,
    seat: Arc<Seat>,
    mut closed: watch::Receiver<()>,
) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let busy = Busy::new(seat.clone());
        let answering = router.clone().oneshot(request.map(|body| Body::new(Paced::new(body, patience))));
        async move { Ok::<_, Infallible>(answering.await?.map(|body| Answered { body, _busy: busy })) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(BUFFER_BYTES_MAX);
    let mut serving = pin!(builder.serve_connection(io, service));
    let mut closing = pin!(closed.changed().map(drop).fuse());
    let mut leaving = pin!(seat.leave.notified().fuse());
    loop {
        tokio::select! {
            served = serving.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "connection broken off");
                }
                return;
            }
            () = &mut closing => {}
            () = &mut leaving => {}
        }
        // What has begun is answered. Before that nothing was promised, however much of a head there is.
        if !seat.is_busy() {
            return;
        }
        serving.as_mut().graceful_shutdown();
    }
}

/// Places for connections.
struct Seats {
    free: Arc<Semaphore>,
    order: Mutex<Order>,
}

#[derive(Default)]
struct Order {
    next: u64,
    /// How to tell those without a request to leave, in the order in which they came to be without one.
    idle: BTreeMap<u64, Arc<Notify>>,
    /// Somebody waits for a seat, and nobody was idle.
    is_wanted: bool,
}

/// A connection's place.
struct Seat {
    seats: Arc<Seats>,
    standing: Mutex<Standing>,
    leave: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// With the number under which it is among the idle.
    Idle(u64),
    Busy,
    /// It was told to.
    Leaving,
}

impl Seats {
    fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count.max(1))), order: Mutex::default() }
    }

    /// Waits for a seat; where there is none, whoever has been idle for longest gives up his.
    async fn take(seats: &Arc<Self>) -> Arc<Seat> {
        let permit = match seats.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                seats.send_one_away();
                seats.free.clone().acquire_owned().await.expect("seats are never closed")
            }
        };
        let seat =
            Seat { seats: seats.clone(), standing: Mutex::new(Standing::Busy), leave: Arc::default(), _permit: permit };
        seat.rest();
        Arc::new(seat)
    }

    fn send_one_away(&self) {
        let mut order = self.order.lock();
        match order.idle.pop_first() {
            Some((_, leave)) => leave.notify_one(),
            None => {
                order.is_wanted = true;
                tracing::warn!("every connection there may be has a request: new ones wait");
            }
        }
    }
}

impl Seat {
    fn is_busy(&self) -> bool {
        *self.standing.lock() == Standing::Busy
    }

    fn work(&self) {
        let before = std::mem::replace(&mut *self.standing.lock(), Standing::Busy);
        self.forget(before);
    }

    fn rest(&self) {
        let mut order = self.seats.order.lock();
        *self.standing.lock() = if std::mem::take(&mut order.is_wanted) {
            self.leave.notify_one();
            Standing::Leaving
        } else {
            let number = order.next;
            order.next += 1;
            order.idle.insert(number, self.leave.clone());
            Standing::Idle(number)
        };
    }

    fn forget(&self, standing: Standing) {
        if let Standing::Idle(number) = standing {
            self.seats.order.lock().idle.remove(&number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let standing = *self.standing.get_mut();
        self.forget(standing);
    }
}

/// A request, until its answer is written.
struct Busy(Arc<Seat>);

impl Busy {
    fn new(seat: Arc<Seat>) -> Self {
        seat.work();
        Self(seat)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The body of an answer, and the request that it is of.
struct Answered {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told(seat: &Seat) -> bool {
        seat.leave.notified().now_or_never().is_some()
    }

    #[tokio::test]
    async fn whoever_is_idle_for_longest_makes_room() {
        let seats = Arc::new(Seats::new(3));
        let [first, second, third] = [Seats::take(&seats).await, Seats::take(&seats).await, Seats::take(&seats).await];
        let busy = Busy::new(first.clone());
        let mut fourth = pin!(Seats::take(&seats));
        assert!(fourth.as_mut().now_or_never().is_none(), "until somebody has left");
        assert_eq!([is_told(&first), is_told(&second), is_told(&third)], [false, true, false]);
        drop(second);
        let fourth = fourth.await;
        // The first is idle again, and now behind the others.
        drop(busy);
        let mut fifth = pin!(Seats::take(&seats));
        assert!(fifth.as_mut().now_or_never().is_none());
        assert_eq!([is_told(&first), is_told(&third), is_told(&fourth)], [false, true, false]);
    }

    #[tokio::test]
    async fn where_everybody_is_busy_the_first_to_be_done_makes_room() {
        let seats = Arc::new(Seats::new(2));
        let [first, second] = [Seats::take(&seats).await, Seats::take(&seats).await];
        let working = [Busy::new(first.clone()), Busy::new(second.clone())];
        let mut third = pin!(Seats::take(&seats));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(!is_told(&first) && !is_told(&second));
        drop(working);
        assert_eq!([is_told(&first), is_told(&second)], [true, false]);
        drop(first);
        third.await;
    }

    #[tokio::test]
    async fn nothing_is_kept_of_who_left() {
        let seats = Arc::new(Seats::new(2));
        let seat = Seats::take(&seats).await;
        drop(Busy::new(seat.clone()));
        assert_eq!(seats.order.lock().idle.len(), 1);
        drop(seat);
        assert_eq!((seats.order.lock().idle.len(), seats.free.available_permits()), (0, 2));
    }
}
