//! Progress on stderr: bars on a terminal, plain lines elsewhere, or none.

use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use jc_unshare::Tool;
use jc_unshare::escape::Escaped;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Style {
    /// Bars if stderr is a terminal, lines if not.
    Auto,
    /// A bar for each layer, and a bar for all.
    Bar,
    /// A line for each complete layer, and lines with the total in between.
    Plain,
    /// Nothing.
    None,
}

/// The time between plain lines with the total.
const INTERVAL: Duration = Duration::from_secs(5);

/// The words of a direction: for layers that were transferred, and for all others.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub transferred: &'static str,
    pub others: &'static str,
}

/// The progress of all layers.
pub struct Progress {
    tool: Tool,
    words: Words,
    screen: Screen,
    started: Instant,
    /// The bytes to transfer, and the bytes transferred.
    size: AtomicU64,
    transferred: AtomicU64,
    fetched: AtomicU64,
    /// The plain lines with the total so far.
    lines: AtomicU64,
}

enum Screen {
    Bars(MultiProgress, ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    pub fn new(tool: Tool, words: Words, style: Style) -> Arc<Self> {
        let screen = match style {
            Style::None => Screen::Nothing,
            Style::Auto if !io::stderr().is_terminal() => Screen::Lines,
            Style::Plain => Screen::Lines,
            Style::Auto | Style::Bar => {
                let total = bar(0, "total");
                total.set_draw_target(ProgressDrawTarget::hidden());
                Screen::Bars(MultiProgress::new(), total)
            }
        };
        let (size, transferred) = (AtomicU64::new(0), AtomicU64::new(0));
        let (fetched, lines) = (AtomicU64::new(0), AtomicU64::new(0));
        let started = Instant::now();
        Arc::new(Self { tool, words, screen, started, size, transferred, fetched, lines })
    }

    fn write_line(&self, text: &str) {
        let text = &Escaped(text).to_string();
        match &self.screen {
            Screen::Nothing => {}
            // An error of stderr does not end a pull.
            Screen::Bars(bars, _) => drop(bars.println(text)),
            Screen::Lines => drop(writeln!(io::stderr(), "{}: {text}", self.tool.name())),
        }
    }

    /// Says that layers come from another process.
    pub fn wait(&self, layers: usize) {
        let layers = if layers == 1 { "a layer".to_owned() } else { format!("{layers} layers") };
        self.write_line(&format!("waiting for {layers} that another process fetches"));
    }

    /// Adds bytes to transfer.
    pub fn expect(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let size = self.size.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Screen::Bars(_, total) = &self.screen {
            total.set_length(size);
        }
    }

    /// Adds a layer of `size` bytes.
    pub fn layer(self: &Arc<Self>, label: &str, size: u64) -> Arc<LayerProgress> {
        let bar = match &self.screen {
            Screen::Bars(bars, total) => {
                // A pull that fetches nothing shows no bar.
                if total.is_hidden() {
                    bars.add(total.clone());
                }
                Some(bars.insert_before(total, bar(size, label)))
            }
            _ => None,
        };
        let unpacked = AtomicU64::new(0);
        let progress = Arc::clone(self);
        Arc::new(LayerProgress { progress, label: label.to_owned(), size, unpacked, bar })
    }

    /// Ends the progress. If `succeeded`, a last line has the totals, with `layers` layers in all.
    pub fn finish(&self, layers: usize, succeeded: bool) {
        if let Screen::Bars(bars, total) = &self.screen {
            total.finish_and_clear();
            drop(bars.clear());
            // A bar of a layer ends later, and would be drawn once more.
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        if !succeeded {
            return;
        }
        let fetched = self.fetched.load(Ordering::Relaxed);
        let reused = (layers as u64).saturating_sub(fetched);
        let (bytes, time) =
            (human(self.transferred.load(Ordering::Relaxed)), self.started.elapsed());
        let time = time.as_secs_f64();
        let Words { transferred, others } = self.words;
        let layers = if fetched == 1 { "layer" } else { "layers" };
        let text =
            format!("{fetched} {layers} {transferred}, {reused} {others}, {bytes} in {time:.1} s");
        match &self.screen {
            // An error of stderr does not end a pull.
            Screen::Bars(..) => drop(writeln!(io::stderr(), "{text}")),
            _ => self.write_line(&text),
        }
    }

    fn add(&self, bytes: u64) {
        let transferred = self.transferred.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.screen {
            Screen::Bars(_, total) => total.inc(bytes),
            Screen::Nothing => {}
            Screen::Lines => {
                let due = self.started.elapsed().as_secs() / INTERVAL.as_secs();
                if self.lines.fetch_max(due, Ordering::Relaxed) < due {
                    let size = self.size.load(Ordering::Relaxed);
                    self.write_line(&format!("{} of {}", human(transferred), human(size)));
                }
            }
        }
    }
}

fn bar(size: u64, label: &str) -> ProgressBar {
    let bar = ProgressBar::new(size);
    // A line fits a terminal of 80 columns, and has the units of the other lines.
    let template = "{prefix:12} {bar:20} {done:>8}/{size:8} {rate:>10} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        let style = style
            .with_key("done", shown(|state| human(state.pos())))
            .with_key("size", shown(|state| human(state.len().unwrap_or_default())))
            .with_key("rate", shown(|state| format!("{}/s", human(state.per_sec() as u64))));
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(label.to_owned());
    bar
}

/// A part of a bar that this program writes itself.
fn shown(
    text: impl Fn(&ProgressState) -> String + Clone + Send + Sync + 'static,
) -> impl Fn(&ProgressState, &mut dyn fmt::Write) + Clone + Send + Sync + 'static {
    move |state, writer| {
        // An error of stderr does not end a pull.
        let _: fmt::Result = writer.write_str(&text(state));
    }
}

/// A reader that adds its bytes to the progress of a layer.
pub struct Counted {
    pub inner: Box<dyn Read + Send>,
    pub progress: Arc<LayerProgress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.add(n);
        Ok(n)
    }
}

pub struct LayerProgress {
    progress: Arc<Progress>,
    label: String,
    size: u64,
    unpacked: AtomicU64,
    bar: Option<ProgressBar>,
}

impl LayerProgress {
    /// Adds bytes that were transferred.
    pub fn add(&self, bytes: usize) {
        self.progress.add(bytes as u64);
        if let Some(bar) = &self.bar {
            bar.inc(bytes as u64);
        }
    }

    /// Adds bytes that were decompressed.
    pub fn unpacked(&self, bytes: usize) {
        if let Some(bar) = &self.bar {
            let all = self.unpacked.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
            bar.set_message(format!("-> {}", human(all)));
        }
    }

    /// Marks the layer as complete.
    pub fn done(&self) {
        self.progress.fetched.fetch_add(1, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.finish(),
            None => self.progress.write_line(&format!(
                "layer {}: {} done",
                self.label,
                human(self.size)
            )),
        }
    }
}

impl Drop for LayerProgress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}

/// A number of bytes with up to four digits and an SI unit.
pub fn human(bytes: u64) -> String {
    let mut value = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 10_000 {
            return format!("{value} {unit}");
        }
        value /= 1000;
    }
    format!("{value} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in
            [(0, "0 B"), (9999, "9999 B"), (10_000, "10 kB"), (u64::MAX, "18446744 TB")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
