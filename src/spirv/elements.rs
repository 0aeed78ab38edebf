//! What SPIR-V can do with the numbers of a cooperative matrix and WGSL cannot: a thread's own numbers, one at a time, and sums that
//! are stored in f16. Kernels call functions of these names (`shaders/lib/elements.wgsl`), whose bodies are written here.
//!
//! A thread may see its numbers as elements of a variable that holds the matrix (SPIR-V specification, `OpAccessChain` and
//! SPV_KHR_cooperative_matrix); which rows and columns they are is up to the driver, but the same for all matrices of a type. A
//! conversion gives a matrix of the same use, so that sums can be stored in f16 as sums of f16, not used as factors.

use std::collections::HashMap;

use super::{BOUND, HEADER, instructions, op};

const NUMBER: &str = "number";
const SET_NUMBER: &str = "set_number";
const HELD_NUMBERS: &str = "held_numbers";
const STORE_HALVES: &str = "store_halves";

/// Storage class of variables of a function.
const FUNCTION_CLASS: u32 = 7;

/// The same module with those bodies, and without names.
pub fn written(words: &[u32]) -> Vec<u32> {
    let names: HashMap<u32, String> = instructions(words)
        .filter(|(opcode, _)| *opcode == op::NAME)
        .map(|(_, words)| (words[1], text(&words[2..])))
        .collect();
    let mut module = Module::read(words);
    let (mut head, mut functions) = (words[..HEADER].to_vec(), Vec::new());
    let mut all = instructions(words).filter(|(opcode, _)| ![op::NAME, op::MEMBER_NAME].contains(opcode));
    while let Some((opcode, words)) = all.next() {
        if opcode != op::FUNCTION {
            if functions.is_empty() { &mut head } else { &mut functions }.extend(words);
            continue;
        }
        let mut body = vec![(opcode, words)];
        while body.last().is_some_and(|(opcode, _)| *opcode != op::FUNCTION_END) {
            let Some(next) = all.next() else { break };
            body.push(next);
        }
        match names.get(&words[2]).map(String::as_str) {
            Some(NUMBER) => module.number(&body, &mut functions),
            Some(SET_NUMBER) => module.set_number(&body, &mut functions),
            Some(HELD_NUMBERS) => module.held_numbers(&body, &mut functions),
            Some(STORE_HALVES) => module.store_halves(&body, &mut functions),
            _ => body.iter().for_each(|(_, words)| functions.extend(*words)),
        }
    }
    head[BOUND] = module.bound;
    [head, module.declarations, functions].concat()
}

/// What is known of a module, and what is declared anew, after all that it declares.
struct Module {
    bound: u32,
    f16: Option<u32>,
    f32: Option<u32>,
    /// Pointers to f32 among the variables of a function.
    pointer: Option<u32>,
    /// Words of types of matrices.
    matrices: HashMap<u32, Vec<u32>>,
    /// The type of f16 for a type of sums.
    halves: HashMap<u32, u32>,
    declarations: Vec<u32>,
}

type Body<'a> = [(u32, &'a [u32])];

impl Module {
    fn read(words: &[u32]) -> Module {
        let mut module = Module {
            bound: words[BOUND],
            f16: None,
            f32: None,
            pointer: None,
            matrices: HashMap::new(),
            halves: HashMap::new(),
            declarations: Vec::new(),
        };
        for (opcode, words) in instructions(words) {
            match opcode {
                op::TYPE_FLOAT if words[2] == 16 => module.f16 = Some(words[1]),
                op::TYPE_FLOAT if words[2] == 32 => module.f32 = Some(words[1]),
                op::TYPE_POINTER if words[2] == FUNCTION_CLASS && Some(words[3]) == module.f32 => {
                    module.pointer = Some(words[1]);
                }
                op::TYPE_COOPERATIVE_MATRIX => {
                    module.matrices.insert(words[1], words.to_vec());
                }
                _ => {}
            }
        }
        module
    }

    fn id(&mut self) -> u32 {
        self.bound += 1;
        self.bound - 1
    }

    /// The head of a function up to its label.
    fn begin(body: &Body, into: &mut Vec<u32>) {
        let label = body.iter().position(|(opcode, _)| *opcode == op::LABEL).expect("functions have a body");
        body[..=label].iter().for_each(|(_, words)| into.extend(*words));
    }

    /// The head, and a pointer to the number that its first two parameters name.
    fn place(&mut self, body: &Body, into: &mut Vec<u32>) -> u32 {
        let f32 = self.f32.expect("sums are of f32");
        let pointer = self.pointer.unwrap_or_else(|| {
            let id = self.id();
            self.declarations.extend([4 << 16 | op::TYPE_POINTER, id, FUNCTION_CLASS, f32]);
            id
        });
        self.pointer = Some(pointer);
        Module::begin(body, into);
        let place = self.id();
        let [matrix, i] = [1, 2].map(|at| body[at].1[2]);
        into.extend([5 << 16 | op::ACCESS_CHAIN, pointer, place, matrix, i]);
        place
    }

    fn number(&mut self, body: &Body, into: &mut Vec<u32>) {
        let place = self.place(body, into);
        let value = self.id();
        into.extend([4 << 16 | op::LOAD, body[0].1[1], value, place]);
        into.extend([2 << 16 | op::RETURN_VALUE, value, 1 << 16 | op::FUNCTION_END]);
    }

    fn set_number(&mut self, body: &Body, into: &mut Vec<u32>) {
        let place = self.place(body, into);
        let value = body[3].1[2];
        into.extend([3 << 16 | op::STORE, place, value, 1 << 16 | op::RETURN, 1 << 16 | op::FUNCTION_END]);
    }

    fn held_numbers(&mut self, body: &Body, into: &mut Vec<u32>) {
        Module::begin(body, into);
        let (count, ty, matrix) = (self.id(), body[0].1[1], body[1].1[1]);
        into.extend([4 << 16 | op::COOPERATIVE_MATRIX_LENGTH, ty, count, matrix]);
        into.extend([2 << 16 | op::RETURN_VALUE, count, 1 << 16 | op::FUNCTION_END]);
    }

    /// What is stored in it is the parameter, or was loaded from a variable that holds it.
    fn store_halves(&mut self, body: &Body, into: &mut Vec<u32>) {
        let sums = body.iter().find_map(|(opcode, words)| {
            (*opcode == op::FUNCTION_PARAMETER && self.matrices.contains_key(&words[1])).then_some(words[1])
        });
        let sums = sums.expect("a matrix to store");
        let known = self.halves.get(&sums).copied();
        let halves = known.unwrap_or_else(|| {
            let id = self.id();
            let mut words = self.matrices[&sums].clone();
            words[1] = id;
            words[2] = self.f16.expect("factors are of f16");
            self.declarations.extend(words);
            id
        });
        self.halves.insert(sums, halves);
        for (opcode, words) in body {
            let mut words = words.to_vec();
            if *opcode == op::COOPERATIVE_MATRIX_STORE {
                let converted = self.id();
                into.extend([4 << 16 | op::F_CONVERT, halves, converted, words[2]]);
                words[2] = converted;
            }
            into.extend(words);
        }
    }
}

/// A literal string.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}
