use super::*;
use correlate::Correlator;

fn pod(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some("ns".into()),
        name: Some(name.into()),
        uid: Some(format!("uid-{name}")),
        ..ObjectReference::default()
    }
}

fn observation(name: &str, reason: &str, message: &str) -> Observation {
    Observation {
        object: pod(name),
        kind: Kind::Normal,
        reason: reason.into(),
        message: message.into(),
        annotations: Default::default(),
    }
}

fn at(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

#[test]
fn equal_events_are_counted_on_one_object() {
    let mut correlator = Correlator::default();
    let first = correlator.observe(observation("p", "Pulled", "m"), at(0)).unwrap();
    let second = correlator.observe(observation("p", "Pulled", "m"), at(5)).unwrap();
    assert_eq!((first.count, first.is_repeat()), (1, false));
    assert_eq!((second.count, second.is_repeat()), (2, true));
    assert_eq!(first.name, second.name);
    assert_eq!(second.first, at(0));
    assert_eq!(first.namespace(), "ns");
    let other = correlator.observe(observation("p", "Created", "m"), at(6)).unwrap();
    assert_eq!(other.count, 1);
    assert_ne!(other.name, first.name);
}

#[test]
fn a_counted_event_that_was_deleted_is_made_once_more_under_its_name() {
    let mut correlator = Correlator::default();
    let first = correlator.observe(observation("p", "BackOff", "m"), at(0)).unwrap();
    let second = correlator.observe(observation("p", "BackOff", "m"), at(5)).unwrap().anew();
    assert_eq!((second.count, second.first, second.is_repeat()), (2, at(0), false));
    let third = correlator.observe(observation("p", "BackOff", "m"), at(9)).unwrap();
    assert_eq!((third.count, third.is_repeat()), (3, true));
    assert_eq!([&second.name, &third.name], [&first.name; 2]);
}

#[test]
fn names_that_are_too_long_are_replaced_by_an_id() {
    let mut correlator = Correlator::default();
    let long = "p".repeat(240);
    let [first, second] =
        [0, 5].map(|second| correlator.observe(observation(&long, "Pulled", "m"), at(second)).unwrap().name);
    assert_eq!(first, second, "it is found again");
    let lengths: Vec<_> = first.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{first}");
    assert_eq!((first.as_bytes()[14], first.contains(&long)), (b'4', false));
    let other = correlator.observe(observation(&long, "Created", "m"), at(6)).unwrap().name;
    assert_ne!(other, first);
    assert!(correlator.observe(observation("p", "Pulled", "m"), at(0)).unwrap().name.starts_with("p."));
}

#[test]
fn the_eleventh_message_is_combined() {
    let mut correlator = Correlator::default();
    for n in 0..10 {
        let outcome = correlator.observe(observation("p", "Failed", &format!("m{n}")), at(n)).unwrap();
        assert_eq!(outcome.message, format!("m{n}"));
    }
    let combined = correlator.observe(observation("p", "Failed", "m10"), at(10)).unwrap();
    assert_eq!(combined.message, "(combined from similar events): m10");
    assert_eq!(combined.count, 1);
    let again = correlator.observe(observation("p", "Failed", "m11"), at(11)).unwrap();
    assert_eq!((again.count, again.name.as_str()), (2, combined.name.as_str()));
    // After ten quiet minutes messages are told apart again.
    let later = correlator.observe(observation("p", "Failed", "m12"), at(1000)).unwrap();
    assert_eq!(later.message, "m12");
}

#[test]
fn an_object_has_a_burst_of_25_and_then_one_in_five_minutes() {
    let mut correlator = Correlator::default();
    let sent = (0..40).filter(|_| correlator.observe(observation("p", "BackOff", "m"), at(0)).is_some()).count();
    assert_eq!(sent, 25);
    assert!(correlator.observe(observation("q", "BackOff", "m"), at(0)).is_some());
    assert!(correlator.observe(observation("p", "BackOff", "m"), at(200)).is_none());
    let passed = correlator.observe(observation("p", "BackOff", "m"), at(301)).unwrap();
    assert_eq!(passed.count, 42);
}

#[test]
fn a_forgotten_event_starts_over() {
    let mut correlator = Correlator::default();
    let first = correlator.observe(observation("p", "Pulled", "m"), at(0)).unwrap();
    correlator.forget(&first);
    let next = correlator.observe(observation("p", "Pulled", "m"), at(1)).unwrap();
    assert_eq!(next.count, 1);
    assert_ne!(next.name, first.name);
}

#[test]
fn events_of_nodes_are_in_default() {
    let mut correlator = Correlator::default();
    let observation = Observation { object: node_reference("n1"), ..observation("", "Starting", "Starting kubelet.") };
    assert_eq!(correlator.observe(observation, at(0)).unwrap().namespace(), "default");
}

#[tokio::test]
async fn a_full_queue_drops_and_never_waits() {
    let (recorder, mut queue) = Recorder::channel();
    for n in 0..QUEUE + 10 {
        recorder.event(&pod("p"), Kind::Warning, "Failed", &n.to_string());
    }
    assert_eq!(recorder.dropped.load(Ordering::Relaxed), 10);
    assert_eq!(queue.recv().await.unwrap().message, "0");
}
