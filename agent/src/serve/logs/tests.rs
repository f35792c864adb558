use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::*;

/// Runs until the flag is cleared.
struct Flag(Arc<AtomicBool>);

impl Liveness for Flag {
    async fn is_running(&mut self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

fn dead() -> Flag {
    Flag(Arc::default())
}

/// Somebody who follows a log, what he is told, and whether its container runs.
fn followed(temp: &Temp) -> (JoinHandle<io::Result<()>>, mpsc::Receiver<Bytes>, Arc<AtomicBool>) {
    let running = Arc::new(AtomicBool::new(true));
    let (sink, chunks) = mpsc::channel(1);
    let (path, flag) = (temp.log(), Flag(running.clone()));
    let reading = tokio::spawn(async move {
        let options = LogOptions { follow: true, ..LogOptions::default() };
        read(&path, &options, sink, flag).await
    });
    (reading, chunks, running)
}

struct Temp(PathBuf);

impl Temp {
    fn new(name: &str, content: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("keelson-logs-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("0.log"), content).unwrap();
        Self(dir)
    }

    fn log(&self) -> PathBuf {
        self.0.join("0.log")
    }

    fn append(&self, text: &str) {
        fs::OpenOptions::new().append(true).open(self.log()).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const GOLDEN: &str = "\
2026-01-01T00:00:01.000000001Z stdout F one
2026-01-01T00:00:02.000000002Z stderr F two
garbage that no runtime wrote
2026-01-01T00:00:03.000000003Z stdout P thr
2026-01-01T00:00:04.000000004Z stdout F ee
2026-01-01T00:00:05.000000005Z stdout F four
";

async fn read_all(content: &str, name: &str, options: &LogOptions) -> String {
    let temp = Temp::new(name, content);
    let (sink, mut chunks) = mpsc::channel(1);
    let path = temp.log();
    let reading = read(&path, options, sink, dead());
    let collecting = async {
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.extend_from_slice(&chunk);
        }
        String::from_utf8(all).unwrap()
    };
    let (done, all) = tokio::join!(reading, collecting);
    done.unwrap();
    all
}

#[tokio::test]
async fn partial_entries_are_joined() {
    assert_eq!(read_all(GOLDEN, "all", &LogOptions::default()).await, "one\ntwo\nthree\nfour\n");
}

#[tokio::test]
async fn time_stamps_stand_at_line_starts() {
    let options = LogOptions { timestamps: true, ..LogOptions::default() };
    assert_eq!(
        read_all(GOLDEN, "stamps", &options).await,
        "2026-01-01T00:00:01.000000001Z one\n2026-01-01T00:00:02.000000002Z two\n\
         2026-01-01T00:00:03.000000003Z three\n2026-01-01T00:00:05.000000005Z four\n"
    );
}

#[tokio::test]
async fn time_stamps_have_one_width() {
    let options = LogOptions { timestamps: true, ..LogOptions::default() };
    let text = read_all("2026-01-01T00:00:01.25+01:00 stdout F one\n", "width", &options).await;
    assert_eq!(text, "2026-01-01T00:00:01.250000000+01:00 one\n");
}

#[tokio::test]
async fn tail_since_limit_and_stream() {
    let tail = |lines| LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
    assert_eq!(read_all(GOLDEN, "tail0", &tail(0)).await, "");
    assert_eq!(read_all(GOLDEN, "tail1", &tail(1)).await, "four\n");
    assert_eq!(read_all(GOLDEN, "tail2", &tail(2)).await, "ee\nfour\n");
    assert_eq!(read_all(GOLDEN, "tail99", &tail(99)).await, "one\ntwo\nthree\nfour\n");
    let since = LogOptions { since: Some("2026-01-01T00:00:05Z".parse().unwrap()), ..LogOptions::default() };
    assert_eq!(read_all(GOLDEN, "since", &since).await, "four\n");
    let limit = LogOptions { limit_bytes: Some(6), ..LogOptions::default() };
    assert_eq!(read_all(GOLDEN, "limit", &limit).await, "one\ntw");
    let stderr = LogOptions { stream: Some(Stream::Stderr), ..LogOptions::default() };
    assert_eq!(read_all(GOLDEN, "stream", &stderr).await, "two\n");
}

/// Once `tail -n 2` knows where to begin, a container that goes on writing changes nothing.
#[tokio::test]
async fn a_tail_is_no_longer_than_asked_for() {
    let temp = Temp::new("limited", "");
    let line = |n: u32| format!("2026-01-01T00:00:01Z stdout F {n} {}\n", "x".repeat(40_000));
    temp.append(&(1..=8).map(line).collect::<String>());
    let (sink, mut chunks) = mpsc::channel(1);
    let path = temp.log();
    let options = LogOptions { tail_lines: Some(7), ..LogOptions::default() };
    let reading = tokio::spawn(async move { read(&path, &options, sink, dead()).await });
    let mut all = chunks.recv().await.unwrap().to_vec();
    // It waits with the third of four blocks.
    temp.append(&line(9));
    while let Some(chunk) = chunks.recv().await {
        all.extend_from_slice(&chunk);
    }
    reading.await.unwrap().unwrap();
    let lines = String::from_utf8(all).unwrap();
    let numbers: Vec<&str> = lines.lines().map(|line| &line[..1]).collect();
    assert_eq!(numbers, ["2", "3", "4", "5", "6", "7", "8"]);
}

#[tokio::test]
async fn an_unfinished_last_line_is_not_lost() {
    assert_eq!(read_all("2026-01-01T00:00:01Z stdout F cut", "cut", &LogOptions::default()).await, "cut\n");
}

#[tokio::test]
async fn tails_are_found_over_block_borders() {
    use std::fmt::Write as _;
    let mut content = String::new();
    for n in 0..5000 {
        writeln!(content, "2026-01-01T00:00:01Z stdout F line {n} {}", "x".repeat(n % 50)).unwrap();
    }
    let options = LogOptions { tail_lines: Some(3000), ..LogOptions::default() };
    let text = read_all(&content, "blocks", &options).await;
    assert_eq!(text.lines().count(), 3000);
    assert!(text.starts_with("line 2000 "), "{}", &text[..20]);
}

#[tokio::test]
async fn following_goes_over_a_rotation_and_ends_with_the_container() {
    let temp = Temp::new("follow", "2026-01-01T00:00:01Z stdout F one\n");
    let (reading, mut chunks, running) = followed(&temp);
    assert_eq!(chunks.recv().await.unwrap(), "one\n");
    temp.append("2026-01-01T00:00:02Z stdout F tw");
    temp.append("o\n");
    assert_eq!(chunks.recv().await.unwrap(), "two\n");
    fs::rename(temp.log(), temp.0.join("0.log.20260101-000003")).unwrap();
    fs::write(temp.log(), "").unwrap();
    temp.append("2026-01-01T00:00:03Z stdout F three\n");
    assert_eq!(chunks.recv().await.unwrap(), "three\n");
    running.store(false, Ordering::SeqCst);
    assert_eq!(chunks.recv().await, None);
    reading.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_follower_of_what_has_ended_ends_at_once() {
    let temp = Temp::new("ended", "2026-01-01T00:00:01Z stdout F one\n");
    let (sink, mut chunks) = mpsc::channel(1);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let begun = Instant::now();
    read(&temp.log(), &options, sink, dead()).await.unwrap();
    assert_eq!(chunks.recv().await.unwrap(), "one\n");
    assert_eq!((chunks.recv().await, begun.elapsed()), (None, Duration::ZERO));
}

/// Rotated logs, and those of earlier runs, lie in the same folder.
#[tokio::test]
async fn a_follower_ends_soon_whatever_else_is_written_beside_its_log() {
    let temp = Temp::new("beside", "2026-01-01T00:00:01Z stdout F one\n");
    let (reading, mut chunks, running) = followed(&temp);
    assert_eq!(chunks.recv().await.unwrap(), "one\n");
    running.store(false, Ordering::SeqCst);
    let beside = temp.0.join("1.log");
    let writing = async {
        loop {
            fs::write(&beside, "x").unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        done = reading => done.unwrap().unwrap(),
        () = writing => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it goes on"),
    }
}

#[tokio::test]
async fn a_follower_ends_when_nobody_listens() {
    let temp = Temp::new("deaf", "2026-01-01T00:00:01Z stdout F one\n");
    let (sink, chunks) = mpsc::channel(1);
    drop(chunks);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    read(&temp.log(), &options, sink, dead()).await.unwrap();
}
