use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt as _, StreamExt as _};
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::*;

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn connections(strangers: usize, known: usize) -> Connections {
    Connections::new(Limits { strangers, known })
}

fn is_needed(place: &Place) -> bool {
    place.needed().now_or_never().is_some()
}

async fn answer(place: &Place, code: u16) -> Response<Answer<String>> {
    let response = Response::builder().status(code).body(String::new()).unwrap();
    place.requests().answer(async { response }).await
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_ipv4_is_the_same_by_a_socket_of_both_families() {
    let connections = connections(1, 0);
    let place = connections.enter("::ffff:10.0.0.1".parse().unwrap()).unwrap();
    assert_eq!(place.seat.address, address(1));
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_of_the_largest_crowd_goes() {
    let connections = connections(4, 0);
    let enter = async |last| {
        sleep(Duration::from_millis(1)).await;
        connections.enter(address(last))
    };
    let lonely = enter(1).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..3 {
        crowd.push(enter(2).await.unwrap());
    }
    // The first of the crowd has just been answered.
    drop(answer(&crowd[0], 200).await);
    let newcomer = enter(3).await.unwrap();
    assert_eq!(crowd.iter().map(is_needed).collect::<Vec<_>>(), [false, true, false]);
    assert!(!is_needed(&lonely) && !is_needed(&newcomer));
    // Who left has given his place already, whenever his connection is closed.
    drop(crowd.remove(1));
    assert_eq!(lock(&connections.tables.strangers).seats.len(), 4);
    drop(newcomer);
    assert!(enter(4).await.is_some());
    assert!(!crowd.iter().any(is_needed));
}

#[tokio::test(start_paused = true)]
async fn who_is_being_served_stays() {
    let connections = connections(2, 0);
    let (one, other) = (connections.enter(address(1)).unwrap(), connections.enter(address(1)).unwrap());
    let served = answer(&one, 200).await;
    // It does not take what refuses it.
    let refused = answer(&other, 401).await;
    let third = connections.enter(address(2)).unwrap();
    assert!(!is_needed(&one) && is_needed(&other));
    let also_served = answer(&third, 404).await;
    assert!(connections.enter(address(3)).is_none(), "all have something under way");
    drop((served, refused, also_served));
    assert!(connections.enter(address(3)).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_known_have_places_of_their_own() {
    let connections = connections(1, 2);
    let known = || {
        let mut place = connections.enter(address(1)).unwrap();
        place.recognise().then_some(place)
    };
    let (one, two) = (known().unwrap(), known().unwrap());
    let stranger = connections.enter(address(1)).unwrap();
    assert!(!is_needed(&one) && !is_needed(&stranger));
    let (first, second) = (answer(&one, 200).await, answer(&two, 200).await);
    assert!(known().is_none(), "all of them have something under way");
    assert!(is_needed(&stranger));
    drop((first, second));
    sleep(Duration::from_millis(1)).await;
    assert!(known().is_some() && is_needed(&one) != is_needed(&two));
    drop((one, two));
    assert_eq!(lock(&connections.tables.known).seats.len(), 0);
}

type Parts = Result<Frame<Bytes>, io::Error>;
type Bodies = UnboundedSender<StreamBody<UnboundedReceiver<Parts>>>;
type Served = JoinHandle<Result<(), Box<dyn std::error::Error + Send + Sync>>>;

/// A server whose answers have the bodies that are sent to it.
fn serve(stop: impl Future<Output = ()> + Send + 'static) -> (DuplexStream, Bodies, Served) {
    let (client, server) = tokio::io::duplex(4096);
    let (bodies, given) = unbounded();
    let place = connections(1, 0).enter(address(1)).unwrap();
    let (requests, given) = (place.requests(), Arc::new(tokio::sync::Mutex::new(given)));
    let service = service_fn(move |_: Request<Incoming>| {
        let (requests, given) = (requests.clone(), Arc::clone(&given));
        async move {
            let answering = async { Response::new(given.lock().await.next().await.unwrap()) };
            Ok::<_, Infallible>(requests.answer(answering).await)
        }
    });
    let served = tokio::spawn(async move {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
        place.serve(builder.serve_connection_with_upgrades(TokioIo::new(server), service).into_owned(), stop).await
    });
    (client, bodies, served)
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_goes() {
    let (mut client, _bodies, served) = serve(std::future::pending());
    let begun = Instant::now();
    assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    assert!(begun.elapsed() >= FIRST && begun.elapsed() <= FIRST + FAREWELL, "{:?}", begun.elapsed());
    let _ = served.await.unwrap();
    // Nor does it help to say a part.
    let (mut client, _bodies, served) = serve(std::future::pending());
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let begun = Instant::now();
    let _ = client.read_to_end(&mut Vec::new()).await;
    assert!(begun.elapsed() <= FIRST + FAREWELL, "{:?}", begun.elapsed());
    let _ = served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_last_and_the_pause_after_it_may_not() {
    let (mut client, bodies, served) = serve(std::future::pending());
    let (sender, parts) = unbounded();
    bodies.unbounded_send(StreamBody::new(parts)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut read = vec![0; 4096];
    for _ in 0..10 {
        sleep(IDLE).await;
        sender.unbounded_send(Ok(Frame::data(Bytes::from_static(b"more")))).unwrap();
        let length = client.read(&mut read).await.unwrap();
        assert!(length > 0, "it goes on");
    }
    drop(sender);
    let begun = Instant::now();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(begun.elapsed() >= IDLE && begun.elapsed() <= IDLE + FAREWELL, "{:?}", begun.elapsed());
    served.await.unwrap().ok();
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_ends_before_a_server_does() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (mut client, bodies, served) = serve(async move { drop(stopped.await) });
    let (sender, parts) = unbounded();
    bodies.unbounded_send(StreamBody::new(parts)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(stop);
    sleep(2 * FAREWELL).await;
    sender.unbounded_send(Ok(Frame::data(Bytes::from_static(b"the end")))).unwrap();
    drop(sender);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("the end"), "{answer}");
    served.await.unwrap().unwrap();
}
