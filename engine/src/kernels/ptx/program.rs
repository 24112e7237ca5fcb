//! The text of a program (PTX ISA 9.0, "Syntax"), as NVRTC writes it: a statement a line.

use std::collections::HashMap;

use super::lanes::{Compare, Function, Type};

/// The kernels of a program.
#[derive(Debug)]
pub(super) struct Program(HashMap<String, Kernel>);

#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) instructions: Vec<Instruction>,
    pub(super) registers: usize,
    /// Bytes that a block shares, and that each lane has of its own.
    pub(super) shared: usize,
    pub(super) local: usize,
}

#[derive(Debug)]
pub(super) struct Instruction {
    /// A predicate that a lane must have, or must not.
    pub(super) guard: Option<(usize, bool)>,
    pub(super) operation: Operation,
    pub(super) operands: Vec<Operand>,
    pub(super) text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Register(usize),
    Number(u64),
    /// `%tid.x`, and `%ctaid` in one of its directions.
    Thread,
    Block(usize),
    /// A place in memory: what a register says, and so much more.
    Place(Option<usize>, i64),
    Several(Vec<Operand>),
    Label(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Parameter,
    Global,
    Shared,
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Evaluate(Function, Type),
    Load(Space, Type),
    Store(Space, Type),
    CopyAhead,
    CloseCopies,
    WaitForCopies,
    MeetBlock,
    MeetWarp,
    Shuffle,
    Ballot,
    LoadMatrices,
    /// Whether the first factor's bytes have a sign.
    MultiplyBytes(bool),
    Branch,
    Return,
}

impl Program {
    pub(super) fn parse(text: &str) -> Self {
        let kernel = |text: &str| {
            let (head, rest) = text.split_once("\n{\n").expect("a body");
            let (body, _) = rest.split_once("\n}").expect("its end");
            let (name, parameters) = head.split_once('(').expect("parameters");
            let mut reader = Reader::default();
            // There is one, and its place is 0.
            let parameter = parameters.split_whitespace().find_map(|word| Some(word.split_once('[')?.0)).expect("a parameter");
            reader.arrays.insert(parameter, 0);
            (name.to_owned(), reader.read(body))
        };
        Self(text.split(".visible .entry ").skip(1).map(kernel).collect())
    }

    pub(super) fn kernel(&self, name: &str) -> &Kernel {
        self.0.get(name).unwrap_or_else(|| panic!("no kernel {name} among {:?}", self.0.keys()))
    }
}

/// Reads the body of a kernel.
#[derive(Debug, Default)]
struct Reader<'a> {
    kernel: Kernel,
    registers: HashMap<&'a str, usize>,
    /// Where arrays begin among parameters, in what a block shares, or in what a lane has.
    arrays: HashMap<&'a str, u64>,
    labels: HashMap<&'a str, usize>,
}

impl<'a> Reader<'a> {
    fn read(mut self, body: &'a str) -> Kernel {
        let mut statements = Vec::new();
        for line in body.lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if let Some(label) = line.strip_suffix(':') {
                self.labels.insert(label, statements.len());
            } else if let Some(statement) = line.strip_suffix(';') {
                match statement.split_whitespace().collect::<Vec<_>>()[..] {
                    [".shared", ".align", align, ".b8", array] => self.arrays.extend([reserved(&mut self.kernel.shared, align, array)]),
                    [".local", ".align", align, ".b8", array] => self.arrays.extend([reserved(&mut self.kernel.local, align, array)]),
                    [".reg" | ".pragma", ..] => {}
                    _ => statements.push(statement),
                }
            } else {
                assert!(matches!(line, "" | "{" | "}"), "a line that is not known: {line}");
            }
        }
        let instructions = statements.into_iter().map(|statement| self.instruction(statement)).collect();
        Kernel { instructions, registers: self.registers.len(), ..self.kernel }
    }

    fn instruction(&mut self, statement: &'a str) -> Instruction {
        let (guard, rest) = match statement.strip_prefix('@') {
            None => (None, statement),
            Some(guarded) => {
                let (guard, rest) = guarded.split_once(char::is_whitespace).expect("what is guarded");
                let name = guard.trim_start_matches('!');
                (Some((self.register(name), name == guard)), rest.trim())
            }
        };
        let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let operation = operation(name).unwrap_or_else(|| panic!("an instruction that is not known: {statement}"));
        Instruction { guard, operation, operands: self.operands(operands), text: statement.to_owned() }
    }

    fn operands(&mut self, text: &'a str) -> Vec<Operand> {
        let mut operands = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let closing = if rest.starts_with('{') { rest.find('}') } else { None };
            let end = rest[closing.unwrap_or(0)..].find(',').map_or(rest.len(), |comma| closing.unwrap_or(0) + comma);
            operands.push(self.operand(rest[..end].trim()));
            rest = rest.get(end + 1..).unwrap_or_default().trim();
        }
        operands
    }

    fn operand(&mut self, text: &'a str) -> Operand {
        let bracketed = |open, close| text.strip_prefix(open).and_then(|rest: &'a str| rest.strip_suffix(close));
        if let Some(several) = bracketed('{', '}') {
            return Operand::Several(self.operands(several));
        }
        if let Some(place) = bracketed('[', ']') {
            let (base, beyond) = place.split_once('+').unwrap_or((place, "0"));
            let beyond: i64 = beyond.parse().expect("bytes");
            return match self.operand(base) {
                Operand::Register(base) => Operand::Place(Some(base), beyond),
                Operand::Number(base) => Operand::Place(None, base as i64 + beyond),
                other => panic!("{other:?} is no place in memory"),
            };
        }
        match text {
            "%tid.x" => return Operand::Thread,
            "%ctaid.x" => return Operand::Block(0),
            "%ctaid.y" => return Operand::Block(1),
            "%ctaid.z" => return Operand::Block(2),
            _ => {}
        }
        if text.starts_with('%') {
            // Of `result|predicate` nobody reads the second.
            return Operand::Register(self.register(text.split('|').next().unwrap_or(text)));
        }
        if text.starts_with('$') {
            return Operand::Label(self.labels[text]);
        }
        let of_hexadecimal = |prefix: &str| Some(u64::from_str_radix(text.strip_prefix(prefix)?, 16).expect("a number"));
        let number = of_hexadecimal("0f").or_else(|| of_hexadecimal("0d")).or_else(|| Some(text.parse::<i64>().ok()? as u64));
        Operand::Number(number.unwrap_or_else(|| self.arrays.get(text).copied().unwrap_or_else(|| panic!("what is {text}?"))))
    }

    fn register(&mut self, name: &'a str) -> usize {
        let next = self.registers.len();
        *self.registers.entry(name).or_insert(next)
    }
}

/// Room for `array`, such as `name[64]`, after so many bytes: its name, and where it begins.
fn reserved<'a>(bytes: &mut usize, align: &str, array: &'a str) -> (&'a str, u64) {
    let (name, rest) = array.split_once('[').expect("an array");
    let start = bytes.next_multiple_of(align.parse().expect("bytes"));
    *bytes = start + rest.trim_end_matches(']').parse::<usize>().expect("bytes");
    (name, start as u64)
}

fn operation(name: &str) -> Option<Operation> {
    let words: Vec<&str> = name.split('.').collect();
    let of = Type::named;
    let value = |function, name: &str| Some(Operation::Evaluate(function, of(name)?));
    match words[..] {
        ["ld", space, ref of_what @ ..] => Some(Operation::Load(Space::named(space)?, of(of_what.last()?)?)),
        ["st", space, ref of_what @ ..] => Some(Operation::Store(Space::named(space)?, of(of_what.last()?)?)),
        ["cp", "async", "cg", "shared", "global"] => Some(Operation::CopyAhead),
        ["cp", "async", "commit_group"] => Some(Operation::CloseCopies),
        ["cp", "async", "wait_group"] => Some(Operation::WaitForCopies),
        ["bar", "sync"] => Some(Operation::MeetBlock),
        ["bar", "warp", "sync"] => Some(Operation::MeetWarp),
        ["shfl", "sync", "bfly", "b32"] => Some(Operation::Shuffle),
        ["vote", "sync", "ballot", "b32"] => Some(Operation::Ballot),
        ["ldmatrix", "sync", "aligned", "m8n8", "x4", "shared", "b16"] => Some(Operation::LoadMatrices),
        ["mma", "sync", "aligned", "m16n8k32", "row", "col", "s32", first @ ("s8" | "u8"), "s8", "s32"] => {
            Some(Operation::MultiplyBytes(first == "s8"))
        }
        ["bra"] | ["bra", "uni"] => Some(Operation::Branch),
        ["ret"] => Some(Operation::Return),
        ["mov", of] => value(Function::Move, of),
        ["cvta", "to", _, of] | ["cvta", _, of] => value(Function::Move, of),
        ["add", of] | ["add", "rn", of] => value(Function::Add, of),
        ["sub", of] => value(Function::Subtract, of),
        ["mul", of] | ["mul", "lo" | "rn", of] => value(Function::Multiply, of),
        ["mul", "wide", of] => value(Function::MultiplyWide, of),
        ["fma", "rn", of] => value(Function::MultiplyAdd, of),
        ["div", of] | ["div", "rn", of] => value(Function::Divide, of),
        ["rem", of] => value(Function::Remainder, of),
        ["neg", of] => value(Function::Negate, of),
        ["min", of] => value(Function::Least, of),
        ["max", of] => value(Function::Largest, of),
        ["and", of] => value(Function::And, of),
        ["or", of] => value(Function::Or, of),
        ["xor", of] => value(Function::Xor, of),
        ["not", of] => value(Function::Not, of),
        ["shl", of] => value(Function::ShiftLeft, of),
        ["shr", of] => value(Function::ShiftRight, of),
        ["selp", of] => value(Function::Select, of),
        ["setp", compare, of] => value(Function::Compare(Compare::named(compare)?), of),
        ["cvt", to, from] => value(Function::Convert(of(from)?), to),
        ["cvt", rounding, to, from] if rounding == of(to)?.rounding() => value(Function::Convert(of(from)?), to),
        ["prmt", of] => value(Function::Permute, of),
        ["dp4a", "u32", "u32"] => value(Function::DotOfBytes, "u32"),
        ["bfi", of] => value(Function::Insert, of),
        ["popc", of] => value(Function::CountBits, of),
        ["ex2", "approx", "ftz", of] => value(Function::PowerOfTwo, of),
        ["rcp", "rn", of] => value(Function::Reciprocal, of),
        ["sqrt", "rn", of] => value(Function::Root, of),
        _ => None,
    }
}

impl Operation {
    /// Whether all lanes of a warp do it together.
    pub(super) fn is_of_all_lanes(self) -> bool {
        match self {
            Self::MeetBlock | Self::MeetWarp | Self::Shuffle | Self::Ballot | Self::LoadMatrices | Self::MultiplyBytes(_) => true,
            // Each lane has groups of its own; here a warp has them.
            Self::CloseCopies | Self::WaitForCopies => true,
            Self::Evaluate(..) | Self::Load(..) | Self::Store(..) | Self::CopyAhead | Self::Branch | Self::Return => false,
        }
    }
}

impl Space {
    fn named(name: &str) -> Option<Self> {
        match name {
            "param" => Some(Self::Parameter),
            "global" => Some(Self::Global),
            "shared" => Some(Self::Shared),
            "local" => Some(Self::Local),
            _ => None,
        }
    }
}
