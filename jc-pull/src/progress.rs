//! What a person sees meanwhile, on stderr: bars on a terminal, plain lines elsewhere, or nothing.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How progress is shown.
pub enum Progress {
    /// A bar for each layer.
    Bars(MultiProgress),
    /// A line for each layer, when it is done.
    Lines,
    /// Not at all.
    None,
}

impl Progress {
    /// As it suits stderr.
    pub fn new(quiet: bool) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::None,
            (false, true) => Self::Bars(MultiProgress::new()),
            (false, false) => Self::Lines,
        }
    }

    /// Says something once.
    pub fn say(&self, text: &str) {
        match self {
            Self::None => {}
            // Progress that nobody can read is not worth failing for.
            Self::Bars(bars) => drop(bars.println(text)),
            Self::Lines => drop(writeln!(io::stderr(), "jc-pull: {text}")),
        }
    }

    /// Begins with a layer of `size` bytes.
    pub fn layer(&self, label: String, size: u64) -> LayerProgress<'_> {
        let bar = match self {
            Self::Bars(bars) => {
                let bar = bars.add(ProgressBar::new(size));
                let template = "{prefix:12} {bar:30} {bytes:>10}/{total_bytes:10} {bytes_per_sec}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(label.clone());
                Some(bar)
            }
            Self::Lines | Self::None => None,
        };
        LayerProgress { progress: self, label, size, seen: AtomicU64::new(0), bar }
    }
}

/// One layer's progress.
pub struct LayerProgress<'a> {
    progress: &'a Progress,
    label: String,
    size: u64,
    seen: AtomicU64,
    bar: Option<ProgressBar>,
}

impl LayerProgress<'_> {
    /// More of the layer has come, in bytes as they are transferred.
    pub fn add(&self, bytes: usize) {
        self.seen.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(bytes as u64);
        }
    }

    /// The layer is unpacked and verified.
    pub fn done(&self) {
        match &self.bar {
            Some(bar) => bar.finish(),
            None => self.progress.say(&format!("layer {}: {} done", self.label, human(self.size))),
        }
    }
}

impl Drop for LayerProgress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}

/// Bytes, for people: three digits and an SI unit.
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
