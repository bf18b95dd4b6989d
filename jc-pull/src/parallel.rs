//! Jobs in several threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. A panic ends the process, so no other thread can leave the data half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does jobs in their order, at most `at_a_time` of them at a time, or fewer if threads cannot be made.
pub fn parallel<J: Send>(at_a_time: usize, jobs: Vec<J>, work: impl Fn(J) + Sync) {
    let threads = at_a_time.min(jobs.len());
    let queue = Mutex::new(jobs.into_iter());
    let worker = || {
        loop {
            // The lock is free while a job runs.
            let job = lock(&queue).next();
            let Some(job) = job else { break };
            work(job);
        }
    };
    std::thread::scope(|scope| {
        // This thread is a worker, too.
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_is_done_once_and_not_too_many_at_a_time() {
        let (sum, now, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        parallel(3, (1..=100).collect(), |n| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sum.fetch_add(n, Ordering::SeqCst);
            now.fetch_sub(1, Ordering::SeqCst);
        });
        assert_eq!(sum.into_inner(), 5050);
        assert!(most.into_inner() <= 3);
        parallel(3, Vec::<()>::new(), |()| ());
    }
}
