//! Progress on a terminal: a line a step, a bar where a step has parts.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use keelson_tests::harness::cluster::Progress;

/// Prints steps as they end, with what they took.
#[derive(Default)]
pub struct Show {
    current: Option<(String, Instant, Option<ProgressBar>)>,
}

impl Show {
    /// Ends the last step.
    pub fn done(&mut self) {
        let Some((what, since, bar)) = self.current.take() else { return };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        println!("  done  {what} ({:.1} s)", since.elapsed().as_secs_f64());
    }
}

impl Progress for Show {
    fn step(&mut self, what: &str, total: u64) {
        self.done();
        let bar = ProgressBar::new(total);
        let style = if total == 0 { "  {spinner}     {msg}" } else { "  {spinner}     {msg} [{bar:24}] {pos}/{len}" };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        self.current = Some((what.to_owned(), Instant::now(), Some(bar)));
    }

    fn tick(&mut self) {
        if let Some((_, _, Some(bar))) = &self.current {
            bar.inc(1);
        }
    }

    fn note(&mut self, line: &str) {
        match &self.current {
            Some((_, _, Some(bar))) => bar.suspend(|| println!("        {line}")),
            _ => println!("        {line}"),
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some((_, _, Some(bar))) = self.current.take() {
            bar.abandon();
        }
    }
}
