//! An interactive shell on a real terminal, tmux(1).

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::require::require;
use crate::sandbox::Sandbox;

/// How long the screen may take to change.
const LIMIT: Duration = Duration::from_secs(10);

/// A terminal with a bash that prompts `o$ `.
pub struct Screen<'a> {
    s: &'a Sandbox,
}

impl<'a> Screen<'a> {
    /// Starts it, with 120 columns and 50 lines.
    pub fn new(s: &'a Sandbox) -> Self {
        require(s, "tmux", "tmux");
        let shell = "exec env PS1='o$ ' HISTFILE= VIMINIT= EXINIT= bash --norc --noprofile";
        let screen = Self { s };
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "50", shell]);
        screen.wait(|screen| screen == "o$");
        screen
    }

    /// Tells tmux(1) something.
    pub fn tmux(&self, args: &[&str]) -> String {
        self.s
            .cmd("tmux")
            .env("TERM", "screen")
            .env("TMUX_TMPDIR", "/srv")
            .args(args)
            .run()
            .code(0)
            .out()
    }

    /// What it shows, without the spaces and empty lines that end it.
    pub fn shown(&self) -> String {
        let lines = self.tmux(&["capture-pane", "-p"]);
        lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    /// Waits until the screen is so.
    #[track_caller]
    pub fn wait(&self, there: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !there(&self.shown()) {
            assert!(start.elapsed() < LIMIT, "not to be seen:\n{}", self.shown());
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this program runs in the foreground of the terminal, which ps(1) shows by a plus.
    #[track_caller]
    pub fn runs(&self, name: &str) {
        let states = || self.s.cmd("ps").args(["-o", "stat=", "-C", name]).run().out();
        let runs = |state: &str| state.contains('+') && !state.starts_with(['T', 'Z']);
        let start = Instant::now();
        while !states().lines().any(runs) {
            assert!(start.elapsed() < LIMIT, "{name} is not in front:\n{}", self.shown());
            sleep(Duration::from_millis(10));
        }
    }

    /// Presses a key, by tmux's name.
    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
        self.key("Enter");
    }

    /// Types a command that shows something, and waits for the prompt after it.
    #[track_caller]
    pub fn ask(&self, text: &str, prompt: &str) {
        self.line(text);
        self.prompts(text, prompt);
    }

    /// Waits for a prompt after this text.
    #[track_caller]
    pub fn prompts(&self, text: &str, prompt: &str) {
        self.wait(|screen| {
            let after = screen.rsplit_once(text).map(|(_, after)| after);
            after.is_some_and(|after| after.lines().last() == Some(prompt) && after.contains('\n'))
        });
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        drop(self.s.cmd("tmux").env("TMUX_TMPDIR", "/srv").arg("kill-server").run());
        self.s.wait_for_no_process();
    }
}
