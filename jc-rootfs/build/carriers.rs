//! Calls of x86 that socketcall(2) and ipc(2) carry. A rule for such a call holds for the carrier as well,
//! as in libseccomp.

/// The number of socketcall(2).
const SOCKETCALL: u32 = 102;
/// The number of ipc(2).
const IPC: u32 = 117;

/// The calls of socketcall(2) in the order of their operations, the first of which is 1 (Linux' net.h).
const SOCKETS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// The calls of ipc(2) with their operations (Linux' ipc.h).
const QUEUES: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The number of the call that carries this one on x86, and the operation, the first argument.
pub fn carrier(name: &str) -> Option<(u32, u64)> {
    match SOCKETS.iter().position(|socket| *socket == name) {
        Some(index) => Some((SOCKETCALL, index as u64 + 1)),
        None => QUEUES.iter().find(|(queue, _)| *queue == name).map(|(_, value)| (IPC, *value)),
    }
}
