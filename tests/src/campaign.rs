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

/// The faults that `JC_TEST_FAULTS` asks for: a number of them, by chance, or `all`.
pub fn chosen(calls: &[Vec<Call>]) -> Vec<Fault> {
    let mut all = Vec::new();
    for (process, calls) in calls.iter().enumerate() {
        for (call, Call { number, has_begun }) in calls.iter().enumerate() {
            let fault = |act| Fault { process, call, act };
            all.extend(SIGNALS.map(Act::Send).map(fault));
            if *has_begun && can_fail(*number) {
                all.extend(ERRORS.map(Act::Fail).map(fault));
            }
        }
    }
    let wanted = env::var("JC_TEST_FAULTS").unwrap_or_else(|_| "25".to_owned());
    if wanted == "all" {
        return all;
    }
    let mut random = Random(seed());
    let pick = |_| all[random.below(all.len() as u64) as usize];
    (0..wanted.parse().unwrap()).map(pick).collect()
}

/// The seed of the choice: `JC_TEST_SEED`, or the time.
pub fn seed() -> u64 {
    let set = env::var("JC_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    set.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now.subsec_nanos().into()
    })
}

/// Writes a line of results, also to the file that `JC_FAULTS_LOG` names.
pub fn note(line: &str) {
    println!("{line}");
    if let Some(path) = env::var_os("JC_FAULTS_LOG") {
        let file = fs::File::options().append(true).create(true).open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}
