//! Times of commands, on a machine that others use too.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Delays the other tests of the same file that call this function, as long as the guard exists.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // A panic of another test is no failure of this one.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The median of the values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The CPU time of the processes that `run` starts and waits for.
pub fn cpu_time_of_children(run: impl FnOnce()) -> Duration {
    let spent = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(micros as u64)
    };
    let before = spent();
    run();
    spent() - before
}

/// The 10th percentile of the durations of each command. The commands take turns, so that other users of the machine
/// disturb all of them, and the fastest runs least. Panics if a command fails.
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
