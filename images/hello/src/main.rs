//! `hello`: the example's and the tests' web server. Answers who it is and what it was asked, can be made to fail its health
//! checks, to use memory and to burn CPU, speaks the gRPC health protocol on the same port, and ends gracefully.
//!
//!     hello [--port 8080] [--start-delay SECONDS] [--linger SECONDS] [--bad]
//!     hello exit CODE | sleep SECONDS | print TEXT… | get URL

mod get;
mod grpc;
mod load;
mod web;

use std::process::ExitCode;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: hello [--port PORT] [--start-delay SECONDS] [--linger SECONDS] [--bad] | exit CODE | sleep SECONDS | print TEXT";

struct Options {
    port: u16,
    /// Before it listens, as an application that loads something would.
    start_delay: Duration,
    /// How long it goes on answering after SIGTERM.
    linger: Duration,
    bad: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["exit", code] => return code.parse::<u8>().map_or_else(|_| usage(), ExitCode::from),
        ["sleep", seconds] => {
            seconds.parse().map(Duration::from_secs_f64).map_err(|_| USAGE.to_owned()).map(std::thread::sleep)
        }
        ["get", url] => get::get(url).map(|answer| print!("{answer}")),
        ["print", text @ ..] => {
            println!("{}", text.join(" "));
            Ok(())
        }
        _ => parse(&words).and_then(serve),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn parse(words: &[&str]) -> Result<Options, String> {
    let mut options = Options { port: 8080, start_delay: Duration::ZERO, linger: Duration::ZERO, bad: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
        let seconds = |text: &str| {
            text.parse().map(Duration::from_secs_f64).map_err(|_| format!("{word}: {text:?} is no number"))
        };
        match *word {
            "--port" => options.port = value()?.parse().map_err(|_| "--port: not a port".to_owned())?,
            "--start-delay" => options.start_delay = seconds(value()?)?,
            "--linger" => options.linger = seconds(value()?)?,
            "--bad" => options.bad = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

fn serve(options: Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(run(options)).map_err(|e| e.to_string())
}

async fn run(options: Options) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        () = tokio::time::sleep(options.start_delay) => {}
        _ = term.recv() => return Ok(()),
    }
    let listener = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, options.port)).await?;
    println!("listening on port {}", options.port);
    let web = web::Web::new(options.bad);
    let mut ending = std::pin::pin!(async {
        term.recv().await;
        println!("SIGTERM: {} s until the end", options.linger.as_secs_f64());
        tokio::time::sleep(options.linger).await;
    });
    loop {
        let (stream, peer) = tokio::select! {
            // Cancel-safe: a connection that was not accepted stays in the backlog.
            accepted = listener.accept() => accepted?,
            () = &mut ending => break,
        };
        let web = web.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let web = web.clone();
                async move { Ok::<_, std::convert::Infallible>(web.answer(request, peer).await) }
            });
            // A client that breaks off is its own affair.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
    println!("bye");
    Ok(())
}
