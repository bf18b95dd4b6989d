//! Programs without some system calls, as on an older kernel or behind a container's filter.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::thread;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Calls `f` in a thread in which these system calls fail with an errno. The programs that the thread starts inherit
/// that, and no_new_privs.
pub fn without<T: Send>(syscalls: &[libc::c_long], errno: i32, f: impl FnOnce() -> T + Send) -> T {
    under(syscalls.iter().map(|number| (*number, Vec::new())).collect(), errno, f)
}

/// Does the same as [`without`] for calls with a certain value of one argument.
pub fn without_if<T: Send>(
    syscall: libc::c_long,
    (argument, value): (u8, u64),
    errno: i32,
    f: impl FnOnce() -> T + Send,
) -> T {
    let (width, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
    let condition = SeccompCondition::new(argument, width, equal, value).unwrap();
    let rule = SeccompRule::new(vec![condition]).unwrap();
    under(BTreeMap::from([(syscall, vec![rule])]), errno, f)
}

fn under<T: Send>(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
    f: impl FnOnce() -> T + Send,
) -> T {
    let fails = SeccompAction::Errno(errno as u32);
    let arch = ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, fails, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    thread::scope(|scope| {
        let run = || {
            apply_filter(&program).unwrap();
            f()
        };
        match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
