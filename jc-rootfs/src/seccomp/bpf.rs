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
const fn jump(over: usize) -> Instruction {
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: over as u32 }
}

/// Ends the program.
const fn ret(result: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: result }
}

/// Where a program goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// Nowhere: it ends with this result.
    Return(u32),
    /// At an instruction, by how many there are from it to the end.
    At(usize),
}

/// A program, written from its end to its beginning, as it only ever leads on. A result that several
/// comparisons lead to is there once, within their reach: the shorter a program, the sooner the
/// kernel has taken it in.
#[derive(Debug, Default)]
pub struct Writer {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// Where each result was last returned.
    returned: Vec<(u32, usize)>,
}

/// How many instructions a comparison can pass over.
const REACH: usize = u8::MAX as usize;

impl Writer {
    /// Does this, then goes on there.
    pub fn plain(&mut self, instruction: Instruction, next: Target) -> Target {
        if next != Target::At(self.reversed.len()) {
            self.lead(next);
        }
        self.put(instruction)
    }

    /// Goes on at the first if the comparison holds, else at the second.
    pub fn branch(&mut self, test: Test, operand: u32, yes: Target, no: Target) -> Target {
        // What the second needs may move the first away by one.
        let yes = self.within(REACH - 1, yes);
        let no = self.within(REACH, no);
        let over = |at: usize| (self.reversed.len() - at) as u8;
        let (jump_true, jump_false) = (over(yes), over(no));
        self.put(Instruction { code: test as u16, jump_true, jump_false, operand })
    }

    /// The program, which begins with what was written last.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// Where one can go on there from the next instruction, which passes over at most so many.
    fn within(&mut self, reach: usize, target: Target) -> usize {
        let length = self.reversed.len();
        let near = |at: &usize| length - at <= reach;
        let known = match target {
            Target::At(at) => Some(at),
            Target::Return(result) => {
                self.returned.iter().find(|(known, _)| *known == result).map(|(_, at)| *at)
            }
        };
        known.filter(near).unwrap_or_else(|| self.lead(target))
    }

    /// Writes what leads there from right behind the next instruction.
    fn lead(&mut self, target: Target) -> usize {
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

    fn put(&mut self, instruction: Instruction) -> Target {
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
