//! bpf(2) for programs that decide about devices. No other module of this package has unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;

/// An instruction of eBPF (`struct bpf_insn`): a code, two registers, an offset and a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    number: i32,
}

/// Codes of instructions (RFC 9669).
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xBC;
const MOVE_NUMBER: u8 = 0xB4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_IF_BITS: u8 = 0x46;
const EXIT: u8 = 0x95;

impl Instruction {
    const fn new(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Self {
        Self { code, registers: from << 4 | to, offset, number }
    }

    /// Loads a word of the context, which register 1 points to.
    pub fn load(to: u8, offset: i16) -> Self {
        Self::new(LOAD_WORD, to, 1, offset, 0)
    }

    /// Copies the value of a register to another one.
    pub fn copy(to: u8, from: u8) -> Self {
        Self::new(MOVE_REGISTER, to, from, 0, 0)
    }

    /// Clears the bits of a register that the number lacks.
    pub fn and(to: u8, number: i32) -> Self {
        Self::new(AND, to, 0, 0, number)
    }

    /// Shifts a register to the right.
    pub fn shift_right(to: u8, bits: i32) -> Self {
        Self::new(SHIFT_RIGHT, to, 0, 0, bits)
    }

    /// Skips instructions, whose number [`skipping`](Self::skipping) sets, unless a register has a value.
    pub fn unless(register: u8, value: i32) -> Self {
        Self::new(JUMP_UNLESS_EQUAL, register, 0, 0, value)
    }

    /// Skips instructions, whose number [`skipping`](Self::skipping) sets, when a register has a value.
    pub fn when(register: u8, value: i32) -> Self {
        Self::new(JUMP_IF_EQUAL, register, 0, 0, value)
    }

    /// The same jump over a number of instructions.
    pub fn skipping(self, count: usize) -> Self {
        Self { offset: count as i16, ..self }
    }

    /// Skips instructions unless a register has the bit. The instruction behind the first jump is the second one.
    pub fn skip_unless_bit(register: u8, bit: i32, count: usize) -> [Self; 2] {
        [Self::new(JUMP_IF_BITS, register, 0, 1, bit), Self::jump(count)]
    }

    /// Skips a number of instructions.
    pub fn jump(count: usize) -> Self {
        Self::new(JUMP, 0, 0, count as i16, 0)
    }

    /// Sets the result of the program.
    pub fn set_result(allow: bool) -> Self {
        Self::new(MOVE_NUMBER, 0, 0, 0, allow.into())
    }

    /// Ends the program with the result that is set.
    pub fn exit() -> Self {
        Self::new(EXIT, 0, 0, 0, 0)
    }
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The most programs of a group that are replaced (BPF_CGROUP_MAX_PROGS).
const MAX_PROGRAMS: usize = 64;

/// The members of `union bpf_attr` for BPF_PROG_LOAD, as far as used.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 8],
}

/// The members for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[derive(Default)]
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// The members for BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` outlives the call, and the kernel gets its size. Pointers in it lead to arrays of the callers,
    // which outlive the call too.
    match unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    } {
        result if result < 0 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}

/// Loads a program. EPERM: this process lacks CAP_BPF or CAP_SYS_ADMIN. E2BIG, EINVAL: the kernel refuses the program.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"".as_ptr() as u64,
        log: [0; 8],
    };
    owned(bpf(BPF_PROG_LOAD, &mut load)?)
}

/// Attaches a program to a group and detaches the group's other ones, so that rules hold at any time.
pub fn replace_device_programs(group: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let target = group.as_raw_fd() as u32;
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut query = Query {
        target,
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut query)?;
    let (kind, flags) = (BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI);
    bpf(BPF_PROG_ATTACH, &mut Attach { target, program: program.as_raw_fd() as u32, kind, flags })?;
    for id in ids.into_iter().take(query.count as usize) {
        let old = owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut [id, 0, 0])?)?;
        let program = old.as_raw_fd() as u32;
        bpf(BPF_PROG_DETACH, &mut Attach { target, program, kind, flags: 0 })?;
    }
    Ok(())
}

fn owned(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor, which is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Runs a program on a context, as the kernel does.
#[cfg(test)]
pub fn interpret(program: &[Instruction], context: [u32; 3]) -> bool {
    let mut registers = [0u32; 6];
    let mut place = 0;
    loop {
        let Instruction { code, registers: pair, offset, number } = program[place];
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let jump = |condition: bool| if condition { offset as usize } else { 0 };
        match code {
            LOAD_WORD => registers[to] = context[offset as usize / 4],
            MOVE_REGISTER => registers[to] = registers[from],
            MOVE_NUMBER => registers[to] = number as u32,
            AND => registers[to] &= number as u32,
            SHIFT_RIGHT => registers[to] >>= number,
            JUMP => place += offset as usize,
            JUMP_UNLESS_EQUAL => place += jump(registers[to] != number as u32),
            JUMP_IF_EQUAL => place += jump(registers[to] == number as u32),
            JUMP_IF_BITS => place += jump(registers[to] & number as u32 != 0),
            EXIT => return registers[0] == 1,
            other => panic!("{other:#x}"),
        }
        place += 1;
    }
}
