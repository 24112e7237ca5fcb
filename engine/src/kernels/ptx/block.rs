//! The blocks of a grid, one after the other; the warps of a block by turns, from one meeting to the next; and the lanes of a warp together, as far as they are at one place.
#![expect(unsafe_code, reason = "a kernel reads and writes memory by address")]

use super::lanes::{Function, evaluate};
use super::program::{Instruction, Kernel, Operand, Operation, Space};

const LANES: usize = 32;
const WARPS: usize = 4;
/// Bytes that a copy ahead takes, and those of a row of a matrix.
const ROW: usize = 16;
/// Where a lane is that has returned.
const GONE: usize = usize::MAX;

/// Runs all blocks.
///
/// # Safety
/// The kernel may read and write what its parameter points to.
pub(super) unsafe fn run_grid(kernel: &Kernel, [x, y, z]: [i64; 3], parameter: &[u8]) {
    let places = (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z])));
    for place in places {
        // Nothing of use is in it.
        let mut shared = vec![0xff; kernel.shared];
        let mut warps: Vec<Warp> = (0..WARPS).map(|number| Warp::new(kernel, parameter, place, number)).collect();
        while !warps.iter().all(Warp::is_gone) {
            // SAFETY: as the caller says.
            warps.iter_mut().for_each(|warp| unsafe { warp.run(&mut shared) });
        }
    }
}

/// What lanes have in a register.
type Values = [u64; LANES];

struct Warp<'a> {
    kernel: &'a Kernel,
    parameter: &'a [u8],
    block: [i64; 3],
    number: usize,
    /// The next instruction of each lane.
    next: [usize; LANES],
    registers: Vec<Values>,
    local: Vec<Vec<u8>>,
    /// Groups of copies that were begun: to where in shared memory, and from where. The last one is open.
    copies: Vec<Vec<[u64; 2]>>,
}

impl<'a> Warp<'a> {
    fn new(kernel: &'a Kernel, parameter: &'a [u8], block: [i64; 3], number: usize) -> Self {
        // What nobody has written is no number that anybody expects.
        let registers = vec![[0xbad_bad_bad_bad_bad; LANES]; kernel.registers];
        let local = vec![vec![0xff; kernel.local]; LANES];
        Self { kernel, parameter, block, number, next: [0; LANES], registers, local, copies: vec![Vec::new()] }
    }

    fn is_gone(&self) -> bool {
        self.next == [GONE; LANES]
    }

    /// Runs it until it meets the others, or to its end.
    ///
    /// # Safety
    /// As [`run_grid`].
    unsafe fn run(&mut self, shared: &mut [u8]) {
        while !self.is_gone() {
            // Lanes that are behind go first: they meet again where their ways come together.
            let at = self.next.into_iter().min().expect("lanes");
            let instruction = &self.kernel.instructions[at];
            let here: Vec<usize> = (0..LANES).filter(|&lane| self.next[lane] == at).collect();
            here.iter().for_each(|&lane| self.next[lane] = at + 1);
            let does = |&lane: &usize| instruction.guard.is_none_or(|(predicate, wanted)| (self.registers[predicate][lane] != 0) == wanted);
            let lanes: Vec<usize> = here.into_iter().filter(does).collect();
            // SAFETY: as the caller says.
            unsafe { self.execute(instruction, &lanes, shared) };
            if instruction.operation == Operation::MeetBlock {
                return;
            }
        }
    }

    /// # Safety
    /// As [`run_grid`].
    unsafe fn execute(&mut self, Instruction { operation, operands, text, .. }: &Instruction, lanes: &[usize], shared: &mut [u8]) {
        let are_all_here = lanes.len() == LANES;
        assert!(are_all_here || !operation.is_of_all_lanes(), "some lanes are not here: {text}");
        match (*operation, &operands[..]) {
            (Operation::Evaluate(Function::Move, of), [Operand::Several(parts), whole]) => {
                for &lane in lanes {
                    let whole = self.value(whole, lane);
                    let bits = 8 * of.bytes() / parts.len();
                    (0..).zip(parts).for_each(|(part, to)| self.set(to, lane, whole >> (part * bits) & ((1 << bits) - 1)));
                }
            }
            (Operation::Evaluate(Function::Move, of), [to, Operand::Several(parts)]) => {
                for &lane in lanes {
                    let bits = 8 * of.bytes() / parts.len();
                    let mask = (1 << bits) - 1;
                    self.set(to, lane, (0..).zip(parts).map(|(part, from)| (self.value(from, lane) & mask) << (part * bits)).sum());
                }
            }
            (Operation::Evaluate(function, of), [to, from @ ..]) => {
                for &lane in lanes {
                    let mut values = [0; 4];
                    values.iter_mut().zip(from).for_each(|(value, from)| *value = self.value(from, lane));
                    self.set(to, lane, evaluate(function, of, values));
                }
            }
            (Operation::Load(space, of), [to, place]) => {
                for &lane in lanes {
                    let address = self.address(place, lane, of.bytes() * parts(to).len());
                    for (to, address) in parts(to).iter().zip((address..).step_by(of.bytes())) {
                        let mut value = [0; 8];
                        // SAFETY: as the caller says: so many bytes may be read there.
                        unsafe { self.place(space, address, of.bytes(), lane, shared).copy_to(value.as_mut_ptr(), of.bytes()) };
                        self.set(to, lane, of.extended(u64::from_le_bytes(value)));
                    }
                }
            }
            (Operation::Store(space, of), [place, from]) => {
                for &lane in lanes {
                    let address = self.address(place, lane, of.bytes() * parts(from).len());
                    for (from, address) in parts(from).iter().zip((address..).step_by(of.bytes())) {
                        let value = self.value(from, lane).to_le_bytes();
                        // SAFETY: as the caller says: so many bytes may be written there.
                        unsafe { self.place(space, address, of.bytes(), lane, shared).copy_from(value.as_ptr(), of.bytes()) };
                    }
                }
            }
            (Operation::CopyAhead, [to, from, Operand::Number(16)]) => {
                for &lane in lanes {
                    let copy = [to, from].map(|place| self.address(place, lane, ROW));
                    self.copies.last_mut().expect("a group").push(copy);
                }
            }
            (Operation::CloseCopies, []) => self.copies.push(Vec::new()),
            (Operation::WaitForCopies, [Operand::Number(pending)]) => {
                let closed = self.copies.len() - 1;
                for [to, from] in self.copies.drain(..closed.saturating_sub(*pending as usize)).flatten() {
                    // SAFETY: as the caller says: these bytes may be read.
                    let row = unsafe { (from as *const [u8; ROW]).read() };
                    shared[to as usize..][..ROW].copy_from_slice(&row);
                }
            }
            (Operation::MeetBlock | Operation::MeetWarp, [_]) => {}
            (Operation::Shuffle, [to, from, distance, ..]) => {
                let [values, distances] = [from, distance].map(|operand| self.values(operand));
                self.set_all(to, |lane| values[lane ^ distances[lane] as usize]);
            }
            (Operation::Ballot, [to, from, _]) => {
                let ballot = (0..).zip(self.values(from)).map(|(lane, value)| u64::from(value != 0) << lane).sum();
                self.set_all(to, |_| ballot);
            }
            (Operation::LoadMatrices, [Operand::Several(to), place]) => {
                let rows: [usize; LANES] = std::array::from_fn(|lane| self.address(place, lane, ROW) as usize);
                for (matrix, to) in to.iter().enumerate() {
                    // "each thread stores a fragment of the row": of row i / 4 word i % 4.
                    let word =
                        |lane: usize| shared[rows[8 * matrix + lane / 4] + 4 * (lane % 4)..].first_chunk().expect("in shared memory");
                    self.set_all(to, |lane| u32::from_le_bytes(*word(lane)).into());
                }
            }
            (
                Operation::MultiplyBytes(is_signed),
                [Operand::Several(to), Operand::Several(a), Operand::Several(b), Operand::Several(c)],
            ) => {
                let [a, b, c] = [a, b, c].map(|registers| registers.iter().map(|from| self.values(from)).collect::<Vec<_>>());
                for (register, to) in to.iter().enumerate() {
                    let sum = |lane| (c[register][lane] as u32).wrapping_add_signed(product_of_bytes(is_signed, &a, &b, register, lane));
                    self.set_all(to, |lane| sum(lane).into());
                }
            }
            (Operation::Branch, &[Operand::Label(label)]) => lanes.iter().for_each(|&lane| self.next[lane] = label),
            (Operation::Return, []) => lanes.iter().for_each(|&lane| self.next[lane] = GONE),
            _ => panic!("not with these operands: {text}"),
        }
    }

    fn value(&self, operand: &Operand, lane: usize) -> u64 {
        match *operand {
            Operand::Register(register) => self.registers[register][lane],
            Operand::Number(number) => number,
            Operand::Thread => (self.number * LANES + lane) as u64,
            Operand::Block(direction) => self.block[direction] as u64,
            _ => panic!("{operand:?} is no value"),
        }
    }

    fn values(&self, operand: &Operand) -> Values {
        std::array::from_fn(|lane| self.value(operand, lane))
    }

    fn set(&mut self, operand: &Operand, lane: usize, value: u64) {
        let &Operand::Register(register) = operand else { panic!("{operand:?} is no place for a value") };
        self.registers[register][lane] = value;
    }

    fn set_all(&mut self, operand: &Operand, value: impl Fn(usize) -> u64) {
        (0..LANES).for_each(|lane| self.set(operand, lane, value(lane)));
    }

    /// An address, which must be a multiple of the bytes that are moved at once: else a GPU faults.
    fn address(&self, operand: &Operand, lane: usize, bytes: usize) -> u64 {
        let &Operand::Place(base, beyond) = operand else { panic!("{operand:?} is no place in memory") };
        let address = base.map_or(0, |base| self.registers[base][lane]).wrapping_add_signed(beyond);
        assert!(address.is_multiple_of(bytes as u64), "{address:#x} is no place for {bytes} bytes");
        address
    }

    /// Where so many bytes lie: for parameters, to be read alone.
    fn place(&mut self, space: Space, address: u64, bytes: usize, lane: usize, shared: &mut [u8]) -> *mut u8 {
        let all = match space {
            Space::Global => return address as *mut u8,
            Space::Parameter => return self.parameter[address as usize..][..bytes].as_ptr().cast_mut(),
            Space::Shared => shared,
            Space::Local => &mut self.local[lane],
        };
        all[address as usize..][..bytes].as_mut_ptr()
    }
}

/// A register of several, or the only one.
fn parts(operand: &Operand) -> &[Operand] {
    if let Operand::Several(parts) = operand { parts } else { std::slice::from_ref(operand) }
}

/// What `mma.m16n8k32` adds to a lane's sum in that register ("Matrix fragments for mma.m16n8k32"): row by column, over 32 bytes of each.
fn product_of_bytes(is_signed: bool, a: &[Values], b: &[Values], register: usize, lane: usize) -> i32 {
    let byte = |values: &Values, lane: usize, index: usize| (values[lane] >> (8 * index)) as u8;
    // The row and the column that the lane's sum is of.
    let (row, column) = (lane / 4 + 8 * (register / 2), 2 * (lane % 4) + register % 2);
    let term = |k: usize| {
        // Bytes of row `row % 8` are with four lanes, four each, in two registers for k below 16 and from there on.
        let holds = |of: usize| 4 * of + k % 16 / 4;
        let first = byte(&a[2 * (k / 16) + row / 8], holds(row % 8), k % 4);
        let second = byte(&b[k / 16], holds(column), k % 4);
        let first = if is_signed { i32::from(first as i8) } else { i32::from(first) };
        first * i32::from(second as i8)
    };
    (0..32).map(term).sum()
}
