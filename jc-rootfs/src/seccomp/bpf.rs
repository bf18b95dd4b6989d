//! Programs of the classic Berkeley Packet Filter, as seccomp(2) runs them.

/// An instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Instruction {
    code: u16,
    /// How many instructions to pass over if the comparison holds.
    jump_true: u8,
    /// And if it does not.
    jump_false: u8,
    operand: u32,
}

/// The longest program that the kernel takes (BPF_MAXINSNS).
pub const MAX: usize = 4096;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Test {
    /// BPF_JMP | BPF_JEQ | BPF_K
    Equal = 0x15,
    /// BPF_JMP | BPF_JGT | BPF_K
    Greater = 0x25,
    /// BPF_JMP | BPF_JGE | BPF_K
    GreaterOrEqual = 0x35,
}

/// Offset of the number in `struct seccomp_data`.
pub const NUMBER: u32 = 0;
/// Of the architecture.
pub const ARCH: u32 = 4;

/// The offset of an argument's lower half, on the little-endian machines that this runs on.
pub const fn low(argument: u32) -> u32 {
    16 + 8 * argument
}

/// Of its upper half.
pub const fn high(argument: u32) -> u32 {
    low(argument) + 4
}

/// Loads a word of `struct seccomp_data`.
pub const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

/// Keeps some bits of what was loaded.
pub const fn and(mask: u32) -> Instruction {
    Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask }
}

/// Passes over instructions.
pub const fn jump(over: u32) -> Instruction {
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: over }
}

/// Passes over one number of instructions or another.
pub const fn branch(test: Test, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: test as u16, jump_true, jump_false, operand }
}

/// Ends the program.
pub const fn ret(action: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: action }
}

/// The first part if the comparison holds, else the second, which each end the program.
pub fn choose(
    test: Test,
    operand: u32,
    then: Vec<Instruction>,
    other: &[Instruction],
) -> Vec<Instruction> {
    let mut code = Vec::with_capacity(then.len() + other.len() + 2);
    match u8::try_from(then.len()) {
        Ok(over) => code.push(branch(test, operand, 0, over)),
        // Branches reach 255 instructions, jumps all.
        Err(_) => code.extend([branch(test, operand, 1, 0), jump(then.len() as u32)]),
    }
    code.extend(then);
    code.extend_from_slice(other);
    code
}

/// Runs a program on a number, an architecture and arguments.
#[cfg(test)]
pub fn run(program: &[Instruction], number: u32, arch: u32, arguments: [u64; 6]) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let instruction = program[at];
        let operand = instruction.operand;
        at += 1;
        let test = match instruction.code {
            RETURN => return operand,
            LOAD => {
                a = match operand {
                    NUMBER => number,
                    ARCH => arch,
                    _ => {
                        let argument = arguments[(operand as usize - 16) / 8];
                        (if operand.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
                    }
                };
                continue;
            }
            AND => {
                a &= operand;
                continue;
            }
            JUMP => {
                at += operand as usize;
                continue;
            }
            code if code == Test::Equal as u16 => a == operand,
            code if code == Test::Greater as u16 => a > operand,
            code if code == Test::GreaterOrEqual as u16 => a >= operand,
            code => panic!("code {code:#x}"),
        };
        at += usize::from(if test { instruction.jump_true } else { instruction.jump_false });
    }
}
