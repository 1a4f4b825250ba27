//! What long work shows: a spinner or a bar on a terminal, else a line now and then.
//!
//! A step that takes more than a few seconds is never silent: off the terminal it says every five seconds
//! where it stands.

use std::{
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

const SAY_EVERY: Duration = Duration::from_secs(5);
const MESSAGE_MAX: usize = 100;

/// Where progress goes. Clones draw on the same screen.
#[derive(Debug, Clone)]
pub struct Ui {
    bars: MultiProgress,
    terminal: bool,
}

impl Default for Ui {
    fn default() -> Self {
        Self::new()
    }
}

impl Ui {
    /// Progress on stderr.
    pub fn new() -> Self {
        Self { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// A line on stdout, above the bars.
    pub fn line(&self, text: impl AsRef<str>) {
        self.bars.suspend(|| println!("{}", text.as_ref()));
    }

    /// A notice on stderr, above the bars.
    pub fn notice(&self, text: impl AsRef<str>) {
        self.bars.suspend(|| eprintln!("{} {}", style("note:").yellow().bold(), text.as_ref()));
    }

    /// Begins a piece of work of unknown length.
    pub fn step(&self, title: impl Into<String>) -> Step {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
        {
            bar.set_style(style);
        }
        self.begin(title.into(), bar)
    }

    /// Begins a piece of work of `length` parts.
    pub fn bar(&self, title: impl Into<String>, length: u64) -> Step {
        let bar = ProgressBar::new(length);
        let template = "{prefix} [{bar:24.cyan/dim}] {pos}/{len} {elapsed} {wide_msg:.dim}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        self.begin(title.into(), bar)
    }

    fn begin(&self, title: String, bar: ProgressBar) -> Step {
        let state = Arc::new(Mutex::new(String::new()));
        let ticker = if self.terminal {
            bar.set_prefix(title.clone());
            self.bars.add(bar.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            None
        } else {
            eprintln!("{title} …");
            Some(tokio::spawn(say(title.clone(), Arc::clone(&state), bar.clone())))
        };
        Step { ui: self.clone(), title, bar, state, ticker, started: Instant::now(), ended: false }
    }
}

async fn say(title: String, state: Arc<Mutex<String>>, bar: ProgressBar) {
    let started = Instant::now();
    loop {
        tokio::time::sleep(SAY_EVERY).await;
        let message = state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seconds = started.elapsed().as_secs();
        let part =
            bar.length().map_or_else(String::new, |all| format!(" {}/{all}", bar.position()));
        eprintln!("  {title}{part} ({seconds} s) {message}");
    }
}

/// A piece of work that is under way. Dropped before [`Step::done`] it counts as failed.
#[derive(Debug)]
pub struct Step {
    ui: Ui,
    title: String,
    bar: ProgressBar,
    state: Arc<Mutex<String>>,
    ticker: Option<JoinHandle<()>>,
    started: Instant,
    ended: bool,
}

impl Step {
    /// What it does at this moment.
    pub fn message(&self, text: &str) {
        let text: String = console::strip_ansi_codes(text).chars().take(MESSAGE_MAX).collect();
        self.bar.set_message(text.clone());
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// How many of its parts are done.
    pub fn position(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// It is done; `result` completes its line.
    pub fn done(mut self, result: &str) {
        self.end(true, result);
    }

    fn end(&mut self, good: bool, result: &str) {
        self.ended = true;
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
        }
        self.bar.finish_and_clear();
        self.ui.bars.remove(&self.bar);
        let mark = if good { style("✓").green() } else { style("✗").red() };
        let seconds = self.started.elapsed().as_secs_f64();
        let result = if result.is_empty() { String::new() } else { format!(": {result}") };
        self.ui.bars.suspend(|| eprintln!("{mark} {}{result} ({seconds:.1} s)", self.title));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end(false, "");
        }
    }
}
