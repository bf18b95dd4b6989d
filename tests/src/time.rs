//! How long commands take from fork to wait, on a machine that others use too.

use std::process::Command;
use std::time::{Duration, Instant};

/// The time that nine of ten runs of each command take at least, the commands taking turns: whoever
/// else uses the machine disturbs all of them, and the quickest runs least. Panics if one fails.
pub fn start_times<const N: usize>(mut commands: [Command; N], runs: usize) -> [Duration; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..runs {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            let begin = Instant::now();
            let status = command.status().unwrap();
            times.push(begin.elapsed());
            assert!(status.success(), "{command:?}: {status}");
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[runs / 10]
    })
}
