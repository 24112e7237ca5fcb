//! What a lane does by itself: functions of values, which are bits in a register. Those of a type that is narrower than a register lie in its lowest bits.

use half::{bf16, f16};

/// What a lane does by itself with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Move,
    Add,
    Subtract,
    Multiply,
    MultiplyWide,
    MultiplyAdd,
    Divide,
    Remainder,
    Negate,
    Least,
    Largest,
    And,
    Or,
    Xor,
    Not,
    ShiftLeft,
    ShiftRight,
    Select,
    Compare(Compare),
    /// From that type.
    Convert(Type),
    Permute,
    DotOfBytes,
    Insert,
    CountBits,
    PowerOfTwo,
    Reciprocal,
    Root,
}

/// The type that an instruction takes its values for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Predicate,
    /// Bits, and numbers without sign, of so many bytes.
    Unsigned(usize),
    Signed(usize),
    Fp64,
    Fp32,
    Fp16,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The same, and true of what is no number.
    OrUnordered(Ordered),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordered {
    NotEqual,
    Less,
    LessOrEqual,
}

impl Type {
    pub(super) fn named(name: &str) -> Option<Self> {
        let sized = |bits: &str| Some(bits.parse::<usize>().ok()? / 8);
        match name {
            "pred" => Some(Self::Predicate),
            "f64" => Some(Self::Fp64),
            "f32" => Some(Self::Fp32),
            "f16" => Some(Self::Fp16),
            "bf16" => Some(Self::Bf16),
            _ if name.starts_with('s') => Some(Self::Signed(sized(&name[1..])?)),
            _ if name.starts_with(['b', 'u']) => Some(Self::Unsigned(sized(&name[1..])?)),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Predicate => 1,
            Self::Unsigned(bytes) | Self::Signed(bytes) => bytes,
            Self::Fp64 => 8,
            Self::Fp32 => 4,
            Self::Fp16 | Self::Bf16 => 2,
        }
    }

    /// The bits of a value of this type.
    pub(super) fn cut(self, bits: u64) -> u64 {
        match self {
            Self::Predicate => u64::from(bits != 0),
            _ if self.bytes() == 8 => bits,
            _ => bits & ((1 << (8 * self.bytes())) - 1),
        }
    }

    /// The whole number that bits of this type are.
    fn whole(self, bits: u64) -> i128 {
        let unused = 64 - 8 * self.bytes();
        match self {
            Self::Signed(_) => i128::from((bits << unused) as i64 >> unused),
            Self::Predicate | Self::Unsigned(_) => i128::from(self.cut(bits)),
            Self::Fp64 | Self::Fp32 | Self::Fp16 | Self::Bf16 => panic!("{self:?} is no type of whole numbers"),
        }
    }

    /// What a register has of such a value that comes from memory: a sign goes up to the highest bit.
    pub(super) fn extended(self, bits: u64) -> u64 {
        if matches!(self, Self::Signed(_)) { self.whole(bits) as u64 } else { bits }
    }

    /// How what is converted to it is rounded here: `rzi` to whole numbers, `rn` to others.
    pub(super) fn rounding(self) -> &'static str {
        if matches!(self, Self::Signed(_) | Self::Unsigned(_)) { "rzi" } else { "rn" }
    }
}

impl Compare {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "eq" => Self::Equal,
            "ne" => Self::NotEqual,
            "lt" => Self::Less,
            "le" => Self::LessOrEqual,
            "gt" => Self::Greater,
            "ge" => Self::GreaterOrEqual,
            "neu" => Self::OrUnordered(Ordered::NotEqual),
            "ltu" => Self::OrUnordered(Ordered::Less),
            "leu" => Self::OrUnordered(Ordered::LessOrEqual),
            _ => return None,
        })
    }

    fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        let is_ordered = a.partial_cmp(&b).is_some();
        match self {
            Self::Equal => a == b,
            // Of a number and what is none it is false.
            Self::NotEqual => is_ordered && a != b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::OrUnordered(Ordered::NotEqual) => a != b,
            Self::OrUnordered(Ordered::Less) => !is_ordered || a < b,
            Self::OrUnordered(Ordered::LessOrEqual) => !is_ordered || a <= b,
        }
    }
}

fn float(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn bits(x: f32) -> u64 {
    x.to_bits().into()
}

/// What a function makes of values of that type.
pub(super) fn evaluate(function: Function, of: Type, values: [u64; 4]) -> u64 {
    let [a, b, c, _] = values;
    match function {
        Function::Move => of.cut(a),
        Function::Select => of.cut(if c != 0 { a } else { b }),
        Function::Convert(from) => of.cut(convert(from, of, a)),
        Function::Compare(compare) if of == Type::Fp32 => compare.holds(float(a), float(b)).into(),
        Function::Compare(compare) => compare.holds(of.whole(a), of.whole(b)).into(),
        _ if of == Type::Fp32 => bits(of_floats(function, [a, b, c].map(float))),
        Function::MultiplyWide => Type::Unsigned(2 * of.bytes()).cut(of_wholes(Function::Multiply, of, values)),
        _ => of.cut(of_wholes(function, of, values)),
    }
}

fn of_floats(function: Function, [x, y, z]: [f32; 3]) -> f32 {
    match function {
        Function::Add => x + y,
        Function::Subtract => x - y,
        Function::Multiply => x * y,
        Function::MultiplyAdd => x.mul_add(y, z),
        Function::Divide => x / y,
        Function::Negate => -x,
        Function::PowerOfTwo => x.exp2(),
        Function::Reciprocal => 1.0 / x,
        Function::Root => x.sqrt(),
        _ => panic!("{function:?} is not for floats"),
    }
}

/// Of predicates, bits and whole numbers. What is beyond the type's width means nothing.
fn of_wholes(function: Function, of: Type, [a, b, c, d]: [u64; 4]) -> u64 {
    let (m, n) = (of.whole(a), of.whole(b));
    match function {
        Function::Add => (m + n) as u64,
        Function::Subtract => (m - n) as u64,
        Function::Multiply => (m * n) as u64,
        Function::Divide => (m / n) as u64,
        Function::Remainder => (m % n) as u64,
        Function::Negate => (-m) as u64,
        Function::Least => m.min(n) as u64,
        Function::Largest => m.max(n) as u64,
        Function::And => a & b,
        Function::Or => a | b,
        Function::Xor => a ^ b,
        Function::Not if of == Type::Predicate => u64::from(a == 0),
        Function::Not => !a,
        // Beyond the width nothing is left, or the sign.
        Function::ShiftLeft => a.checked_shl((b & 0xffff_ffff) as u32).unwrap_or(0),
        Function::ShiftRight => (m >> (b & 0xffff_ffff).min(64)) as u64,
        Function::Permute => permute(a, b, c),
        Function::DotOfBytes => {
            let byte = |x: u64, index: u32| x >> (8 * index) & 0xff;
            c + (0..4).map(|index| byte(a, index) * byte(b, index)).sum::<u64>()
        }
        Function::Insert => {
            let mask = ((1 << d) - 1) << c;
            (b & !mask) | (a << c & mask)
        }
        Function::CountBits => of.cut(a).count_ones().into(),
        _ => panic!("{function:?} is not for whole numbers"),
    }
}

/// To the nearest, halves to even; to whole numbers towards zero.
fn convert(from: Type, to: Type, value: u64) -> u64 {
    match (from, to) {
        (Type::Fp16, Type::Fp32) => bits(f16::from_bits(value as u16).to_f32()),
        (Type::Fp32, Type::Fp16) => f16::from_f32(float(value)).to_bits().into(),
        (Type::Fp32, Type::Bf16) => bf16::from_f32(float(value)).to_bits().into(),
        (Type::Fp64, Type::Fp32) => bits(f64::from_bits(value) as f32),
        (Type::Fp32, Type::Signed(4)) => float(value) as i32 as u64,
        (Type::Signed(_) | Type::Unsigned(_), Type::Fp32) => bits(from.whole(value) as f32),
        (Type::Signed(_) | Type::Unsigned(_), Type::Signed(_) | Type::Unsigned(_)) => from.whole(value) as u64,
        _ => panic!("no conversion from {from:?} to {to:?}"),
    }
}

/// Four bytes of `a` and `b`, each by four bits of `selector`, of which the highest asks for its sign alone.
fn permute(a: u64, b: u64, selector: u64) -> u64 {
    let all = a & 0xffff_ffff | b << 32;
    let byte = |place: u32| {
        let which = selector >> (4 * place) & 0xf;
        let byte = all >> (8 * (which & 7)) & 0xff;
        if which & 8 == 0 { byte } else { 0xff * (byte >> 7) }
    };
    (0..4).map(|place| byte(place) << (8 * place)).sum()
}
