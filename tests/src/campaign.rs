//! The choice of faults for a command line, and the file of results.

use std::env;
use std::fs;
use std::io::Write;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::faults::{Act, Call, Fault, can_fail};
use crate::volume::Random;

const SIGNALS: [Signal; 3] = [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM];

const ERRORS: [Errno; 7] = [
    Errno::ENOMEM,
    Errno::EAGAIN,
    Errno::EMFILE,
    Errno::EPERM,
    Errno::EIO,
    Errno::ENOSPC,
    Errno::EINTR,
];

/// The faults of `JC_TEST_FAULTS`: a number of random faults; `all`; `KILL`, which is SIGKILL at each call; or
/// `each`, which is one other fault at each call. The seed selects the fault of the first call, and each later call
/// gets the next fault. Nine seeds in a row and `KILL` together are `all`.
pub fn chosen(calls: &[Vec<Call>]) -> Vec<Fault> {
    let mut all = Vec::new();
    for (process, calls) in calls.iter().enumerate() {
        for (call, met) in calls.iter().enumerate() {
            all.push(possible(*met).map(|act| Fault { process, call, act }).collect::<Vec<_>>());
        }
    }
    let wanted = env::var("JC_TEST_FAULTS").unwrap_or_else(|_| "15".to_owned());
    match wanted.as_str() {
        "all" => all.concat(),
        "KILL" => all.iter().map(|faults| faults[0]).collect(),
        "each" => {
            let pick = |(turn, faults): (usize, &Vec<Fault>)| {
                faults[1 + (turn + seed() as usize) % (faults.len() - 1)]
            };
            all.iter().enumerate().map(pick).collect()
        }
        number => {
            let (all, mut random) = (all.concat(), Random(seed()));
            let pick = |_| all[random.below(all.len() as u64) as usize];
            (0..number.parse().unwrap()).map(pick).collect()
        }
    }
}

/// The disturbances of a call. An error of a call before `main` concerns libc only, so such calls do not fail.
fn possible(call: Call) -> impl Iterator<Item = Act> {
    let fails = call.has_begun && can_fail(call.number);
    let errors = errors().into_iter().map(Act::Fail).filter(move |_| fails);
    SIGNALS.map(Act::Send).into_iter().chain(errors)
}

/// The errors that calls return: the numbers in `JC_TEST_ERRORS`, or the usual errors.
fn errors() -> Vec<Errno> {
    let Ok(set) = env::var("JC_TEST_ERRORS") else { return ERRORS.to_vec() };
    set.split(',').map(|number| Errno::from_raw(number.parse().unwrap())).collect()
}

/// The seed of the choice: `JC_TEST_SEED`, or the time.
pub fn seed() -> u64 {
    let set = env::var("JC_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    set.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now.subsec_nanos().into()
    })
}

/// Writes a line of results to stderr, and to the file of `JC_FAULTS_LOG`.
pub fn note(line: &str) {
    println!("{line}");
    if let Some(path) = env::var_os("JC_FAULTS_LOG") {
        let file = fs::File::options().append(true).create(true).open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}
