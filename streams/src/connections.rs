//! The connections of a server: how many there are, and for how long one may be idle.
//!
//! Anybody can connect before he says who he is. So that nobody shuts out others by connections alone, one for which there is no
//! place takes that of an idle one: of the address that has most, the one that is idle for longest. Those who showed a certificate
//! have places of their own.
//!
//! ```text
//! enter(address) ---> a stranger's Place -- recognise() --> a known one's
//!                        |                                     |
//!                        +-- serve(connection): to its end ----+
//!                        +-- idle for too long: told to go ----+
//!                        +-- needed(): another has its place --+
//! ```

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Between requests, as a kubelet and an API server wait.
pub const IDLE: Duration = Duration::from_secs(90);
/// From the beginning to the first request, as an API server waits.
const FIRST: Duration = Duration::from_secs(32);
/// For what is being sent when a connection is told to go.
const FAREWELL: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Served = Pin<Box<dyn GracefulConnection<Error = BoxError, Output = Result<(), BoxError>> + Send>>;

/// How many connections there are places for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of those who have not shown a certificate.
    pub strangers: usize,
    /// Of those who have.
    pub known: usize,
}

/// The connections of one server.
#[derive(Debug)]
pub struct Connections {
    tables: Arc<Tables>,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let table = |limit| Mutex::new(Table { limit, next: 0, seats: HashMap::new() });
        Self { tables: Arc::new(Tables { strangers: table(limits.strangers), known: table(limits.known) }) }
    }

    /// A place for a new connection; `None` when all have something under way.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let state = State { requests: 0, since: Instant::now(), patience: FIRST };
        // A peer of IPv4 is the same by whatever socket it came.
        let seat = Arc::new(Seat { address: address.to_canonical(), state: Mutex::new(state), needed: Notify::new() });
        let id = lock(&self.tables.strangers).take(&seat)?;
        Some(Place { tables: Arc::clone(&self.tables), id, is_known: false, seat })
    }
}

#[derive(Debug)]
struct Tables {
    strangers: Mutex<Table>,
    known: Mutex<Table>,
}

impl Tables {
    fn of(&self, known: bool) -> MutexGuard<'_, Table> {
        lock(if known { &self.known } else { &self.strangers })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Table {
    limit: usize,
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
}

impl Table {
    /// Seats one more, in place of another if need be.
    fn take(&mut self, seat: &Arc<Seat>) -> Option<u64> {
        if self.seats.len() >= self.limit {
            let id = self.idlest()?;
            // Not when its connection has ended: its place is another's by now.
            self.seats.remove(&id)?.needed.notify_one();
        }
        self.next += 1;
        self.seats.insert(self.next, Arc::clone(seat));
        Some(self.next)
    }

    /// Of the address with most connections the one that is idle for longest, if any of them is.
    fn idlest(&self) -> Option<u64> {
        let mut crowds: HashMap<IpAddr, (usize, Option<(Instant, u64)>)> = HashMap::new();
        for (id, seat) in &self.seats {
            let (many, idlest) = crowds.entry(seat.address).or_default();
            *many += 1;
            *idlest = idlest.iter().copied().chain(seat.idle_since().map(|since| (since, *id))).min();
        }
        let crowds = crowds.into_values().filter_map(|(many, idlest)| Some((many, Reverse(idlest?))));
        crowds.max().map(|(_, Reverse((_, id)))| id)
    }
}

#[derive(Debug)]
struct Seat {
    address: IpAddr,
    state: Mutex<State>,
    needed: Notify,
}

#[derive(Debug)]
struct State {
    /// Under way.
    requests: usize,
    /// Since when there are none.
    since: Instant,
    patience: Duration,
}

impl Seat {
    fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.requests == 0).then_some(state.since)
    }

    /// When it has been idle for too long.
    fn deadline(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.requests == 0).then(|| state.since + state.patience)
    }
}

/// A connection's place; dropping it gives it to others.
#[derive(Debug)]
pub struct Place {
    tables: Arc<Tables>,
    id: u64,
    is_known: bool,
    seat: Arc<Seat>,
}

impl Place {
    /// Takes a place among those who are known; the connection must end where there is none.
    #[must_use]
    pub fn recognise(&mut self) -> bool {
        let Some(id) = self.tables.of(true).take(&self.seat) else { return false };
        self.tables.of(self.is_known).seats.remove(&self.id);
        (self.id, self.is_known) = (id, true);
        true
    }

    /// Where the connection's requests are counted.
    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.seat))
    }

    /// Resolves when another takes this place: the connection, which is idle, is then to be closed at once.
    pub fn needed(&self) -> impl Future<Output = ()> + Send + use<> {
        let seat = Arc::clone(&self.seat);
        async move { seat.needed.notified().await }
    }

    /// Serves until the connection ends. When it is idle for too long, or `stop` resolves, it is told to go, and what is under way
    /// ends first.
    ///
    /// # Errors
    /// The connection's own.
    pub fn serve<C>(
        &self,
        connection: C,
        stop: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Result<(), BoxError>> + Send
    where
        C: GracefulConnection<Error = BoxError> + Send + 'static,
    {
        // Its type names all that a server is made of, more than the compiler can show to be fit for a task.
        self.serve_any(Box::pin(connection), stop)
    }

    async fn serve_any(&self, mut connection: Served, stop: impl Future<Output = ()>) -> Result<(), BoxError> {
        // Of these, only the connection has anything to lose, and it is polled again.
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.idle() => {}
            () = stop => {}
        }
        connection.as_mut().graceful_shutdown();
        loop {
            match timeout(FAREWELL, connection.as_mut()).await {
                Ok(ended) => return ended,
                Err(_) if self.seat.idle_since().is_some() => return Ok(()),
                Err(_) => {}
            }
        }
    }

    /// Resolves when nothing was asked for too long.
    async fn idle(&self) {
        loop {
            match self.seat.deadline() {
                None => sleep(IDLE).await,
                Some(deadline) if deadline <= Instant::now() => return,
                Some(deadline) => sleep_until(deadline).await,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tables.of(self.is_known).seats.remove(&self.id);
    }
}

/// Counts the requests of one connection.
#[derive(Debug, Clone)]
pub struct Requests(Arc<Seat>);

impl Requests {
    /// Answers a request, which is under way until the answer's body is sent. An answer that only refuses is none to wait for:
    /// who does not take it keeps nobody out.
    pub async fn answer<B>(&self, answering: impl Future<Output = Response<B>>) -> Response<Answer<B>> {
        let busy = Busy::new(Arc::clone(&self.0));
        let response = answering.await;
        let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        response.map(|body| Answer { body, _busy: (!refused).then_some(busy) })
    }
}

/// While it lives, a request is under way.
#[derive(Debug)]
struct Busy(Arc<Seat>);

impl Busy {
    fn new(seat: Arc<Seat>) -> Self {
        let mut state = lock(&seat.state);
        state.requests += 1;
        state.patience = IDLE;
        drop(state);
        Self(seat)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.requests -= 1;
        state.since = Instant::now();
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Answer<B> {
    body: B,
    _busy: Option<Busy>,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
