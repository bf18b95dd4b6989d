//! Programs of the classic Berkeley Packet Filter, which seccomp(2) takes.

/// An instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Instruction {
    /// The operation, a sum of BPF_* constants.
    pub code: u16,
    /// The number of instructions to skip if the comparison holds.
    pub jump_true: u8,
    /// The number of instructions to skip if the comparison fails.
    pub jump_false: u8,
    /// The constant that the operation uses.
    pub operand: u32,
}

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

/// The offset of the number of the call in `struct seccomp_data`.
pub const NUMBER: u32 = 0;
/// The offset of the architecture in `struct seccomp_data`.
pub const ARCH: u32 = 4;

/// The offset of the lower half of an argument on little-endian machines, the only ones supported.
pub const fn low(argument: u32) -> u32 {
    16 + 8 * argument
}

/// The offset of the upper half of an argument.
pub const fn high(argument: u32) -> u32 {
    low(argument) + 4
}

/// Loads a word of `struct seccomp_data`.
pub const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

/// Clears the bits of the accumulator that the mask lacks.
pub const fn and(mask: u32) -> Instruction {
    Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask }
}

/// Skips a number of instructions.
const fn jump(over: usize) -> Instruction {
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: over as u32 }
}

/// Ends the program with a result.
const fn ret(result: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: result }
}

/// The continuation of a program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// The end of the program, with this result.
    Return(u32),
    /// An instruction, given by the number of instructions from there to the end.
    At(usize),
}

/// A program, written from the end to the beginning, since jumps only lead forward. Comparisons share the
/// instruction that returns a result, where they can reach it: the kernel loads a shorter program sooner.
#[derive(Debug, Default)]
pub struct Writer {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// For each result, the last instruction that returns it.
    returned: Vec<(u32, usize)>,
}

/// The most instructions that a comparison can skip.
const REACH: usize = u8::MAX as usize;

impl Writer {
    /// Writes an instruction that continues at `next`.
    pub fn plain(&mut self, instruction: Instruction, next: Target) -> Target {
        if next != Target::At(self.reversed.len()) {
            self.write_lead(next);
        }
        self.push(instruction)
    }

    /// Writes a comparison that continues at `yes` if it holds, else at `no`.
    pub fn branch(&mut self, test: Test, operand: u32, yes: Target, no: Target) -> Target {
        // A jump to `no` may add one instruction between the comparison and `yes`.
        let yes = self.reachable(REACH - 1, yes);
        let no = self.reachable(REACH, no);
        let over = |at: usize| (self.reversed.len() - at) as u8;
        let (jump_true, jump_false) = (over(yes), over(no));
        self.push(Instruction { code: test as u16, jump_true, jump_false, operand })
    }

    /// The program, first instruction first.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// The position of an instruction that leads to `target`, at most `reach` instructions behind the next one.
    fn reachable(&mut self, reach: usize, target: Target) -> usize {
        let length = self.reversed.len();
        let is_near = |at: &usize| length - at <= reach;
        let known = match target {
            Target::At(at) => Some(at),
            Target::Return(result) => {
                self.returned.iter().find(|(known, _)| *known == result).map(|(_, at)| *at)
            }
        };
        known.filter(is_near).unwrap_or_else(|| self.write_lead(target))
    }

    /// Writes a jump or a return that leads to `target`.
    fn write_lead(&mut self, target: Target) -> usize {
        match target {
            Target::At(at) => self.reversed.push(jump(self.reversed.len() - at)),
            Target::Return(result) => {
                self.reversed.push(ret(result));
                self.returned.retain(|(known, _)| *known != result);
                self.returned.push((result, self.reversed.len()));
            }
        }
        self.reversed.len()
    }

    fn push(&mut self, instruction: Instruction) -> Target {
        self.reversed.push(instruction);
        Target::At(self.reversed.len())
    }
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
