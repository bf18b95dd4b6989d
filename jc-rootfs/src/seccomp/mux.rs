//! socketcall(2) and ipc(2) of x86, each of which carries many others: what is said of one of those
//! holds for it this way too, as libseccomp has it.

use super::abi::Abi;
use super::rules::{Condition, Operator};
use super::syscalls::{Index, calls};

const CARRIERS: &[Index] = calls!("socketcall ipc");

/// In the order of their numbers, which begin at 1 (Linux' net.h).
const SOCKETS: &[Index] = calls!(
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown \
     setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
);

/// With their numbers (Linux' ipc.h).
const IPC: &[Index] =
    calls!("semop semget semctl semtimedop msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl");
const IPC_NUMBERS: [u64; 12] = [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24];

/// The number of the call that carries this one on x86, and the condition by which it does.
pub fn carried(call: Index) -> Option<(u32, Condition)> {
    let socket = SOCKETS.iter().position(|known| *known == call).map(|at| (0, at as u64 + 1));
    let (carrier, value) = socket
        .or_else(|| IPC.iter().position(|known| *known == call).map(|at| (1, IPC_NUMBERS[at])))?;
    let condition = Condition { argument: 0, operator: Operator::Equal, value };
    Some((CARRIERS[carrier].number(Abi::X86)?, condition))
}
