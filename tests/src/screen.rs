//! An interactive shell on a real terminal, tmux(1).

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::require::require;
use crate::sandbox::Sandbox;

/// The longest wait for a change of the screen.
const LIMIT: Duration = Duration::from_secs(30);

/// A terminal with a bash whose prompt is `o$ `.
pub struct Screen<'a> {
    s: &'a Sandbox,
}

impl<'a> Screen<'a> {
    /// Starts a terminal with 120 columns and 50 lines.
    pub fn new(s: &'a Sandbox) -> Self {
        require(s, "tmux", "tmux");
        let shell = "exec env PS1='o$ ' HISTFILE= VIMINIT= EXINIT= bash --norc --noprofile";
        let screen = Self { s };
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "50", shell]);
        screen.wait(|screen| screen == "o$");
        screen
    }

    /// Executes a command of tmux(1).
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

    /// The text of the screen, without spaces and empty lines at its end.
    pub fn shown(&self) -> String {
        let lines = self.tmux(&["capture-pane", "-p"]);
        lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    /// Waits until the text of the screen meets a condition.
    #[track_caller]
    pub fn wait(&self, there: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !there(&self.shown()) {
            assert!(start.elapsed() < LIMIT, "not to be seen:\n{}", self.shown());
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a program runs in the foreground of the terminal, which ps(1) marks with a plus.
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

    /// Presses a key, which tmux(1) names.
    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a line of text.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
        self.key("Enter");
    }

    /// Types a command with output, and waits for the prompt after it.
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
