//! Changes to files in protobuf's wire format that leave them well formed: bytes changed at random seldom get past the
//! lengths of the messages that they lie in.

enum Field {
    Number(u64, u64),
    /// Four or eight bytes.
    Fixed(u64, Vec<u8>),
    /// Text, packed numbers or raw values.
    Bytes(u64, Vec<u8>),
    Message(u64, Vec<Field>),
}

/// Numbers at the edges of what sizes, axes and counts may be.
const EDGES: [i64; 20] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    -1,
    -2,
    255,
    1 << 15,
    1 << 16,
    1 << 24,
    1 << 30,
    1 << 31,
    1 << 40,
    i64::MAX,
    i64::MIN,
];

/// Changes one or two fields of `data[..size]` in place; the new size. `bytes` changes bytes that have no form.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    bytes: fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Random((u64::from(seed) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // Now and then what is not well formed.
    let Some(mut fields) = message(&data[..size]).filter(|_| !random.one_in(20)) else {
        return bytes(data, size, max_size);
    };
    for _ in 0..=random.below(2) {
        let mut texts = Vec::new();
        collect(&fields, &mut texts);
        let at = random.below(count(&fields));
        change(&mut fields, at, &texts, &mut random, bytes);
    }
    let made = written(&fields);
    match made.len() <= max_size.min(data.len()) {
        true => {
            data[..made.len()].copy_from_slice(&made);
            made.len()
        }
        false => bytes(data, size, max_size),
    }
}

fn change(
    fields: &mut Vec<Field>,
    at: usize,
    texts: &[(u64, Vec<u8>)],
    random: &mut Random,
    bytes: fn(&mut [u8], usize, usize) -> usize,
) {
    let mut left = at;
    for i in 0..fields.len() {
        let inner = if let Field::Message(_, inner) = &mut fields[i] { count(inner) } else { 0 };
        if left > inner {
            left -= inner + 1;
            continue;
        }
        if left > 0 {
            if let Field::Message(_, inner) = &mut fields[i] {
                change(inner, left - 1, texts, random, bytes);
            }
            return;
        }
        match random.below(8) {
            0 => drop(fields.remove(i)),
            1 => {
                let copy = message(&written(&fields[i..=i])).unwrap_or_default();
                fields.splice(i..i, copy);
            }
            2 => {
                let to = random.below(fields.len());
                fields.swap(i, to);
            }
            _ => match &mut fields[i] {
                Field::Number(_, n) => {
                    *n = match random.below(3) {
                        0 => n.wrapping_add(1),
                        1 => n.wrapping_sub(1),
                        _ => EDGES[random.below(EDGES.len())] as u64,
                    }
                }
                Field::Fixed(_, b) => {
                    let at = random.below(b.len());
                    b[at] = random.next() as u8;
                }
                Field::Bytes(key, b) => {
                    // Mostly another text of the same kind: the name of another value or operator.
                    let same: Vec<&Vec<u8>> =
                        texts.iter().filter(|(k, _)| k == key).map(|(_, b)| b).collect();
                    if !same.is_empty() && !random.one_in(3) {
                        *b = same[random.below(same.len())].clone();
                    } else if b.len() % 8 == 0 && !b.is_empty() && random.one_in(2) {
                        // Raw int64s.
                        let at = random.below(b.len() / 8) * 8;
                        b[at..at + 8].copy_from_slice(&EDGES[random.below(EDGES.len())].to_le_bytes());
                    } else {
                        let (size, room) = (b.len(), b.len() + 16);
                        b.resize(room, 0);
                        let size = bytes(b, size, room);
                        b.truncate(size);
                    }
                }
                Field::Message(_, inner) => {
                    if random.one_in(2) {
                        inner.clear();
                    } else {
                        inner.push(Field::Number(8 * (1 + random.below(20) as u64), random.next() >> 60));
                    }
                }
            },
        }
        return;
    }
}

fn count(fields: &[Field]) -> usize {
    let inner = |field: &Field| if let Field::Message(_, inner) = field { count(inner) } else { 0 };
    fields.iter().map(|field| 1 + inner(field)).sum()
}

fn collect(fields: &[Field], texts: &mut Vec<(u64, Vec<u8>)>) {
    for field in fields {
        match field {
            Field::Bytes(key, bytes) => texts.push((*key, bytes.clone())),
            Field::Message(_, inner) => collect(inner, texts),
            _ => {}
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message, if the bytes are one.
fn message(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        if key >> 3 == 0 || key >> 3 > 100 {
            return None;
        }
        let mut take = |n: usize| {
            let (taken, rest) = bytes.split_at_checked(n)?;
            bytes = rest;
            Some(taken.to_vec())
        };
        fields.push(match key & 7 {
            0 => Field::Number(key, varint(&mut bytes)?),
            1 => Field::Fixed(key, take(8)?),
            5 => Field::Fixed(key, take(4)?),
            2 => {
                let length = varint(&mut bytes)?;
                let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
                bytes = rest;
                // What is not printable and can be read as a message is taken for one.
                let text = taken.iter().all(|b| (32..127).contains(b));
                match message(taken).filter(|_| !text) {
                    Some(inner) => Field::Message(key, inner),
                    None => Field::Bytes(key, taken.to_vec()),
                }
            }
            _ => return None,
        });
    }
    Some(fields)
}

fn written(fields: &[Field]) -> Vec<u8> {
    fn put(mut n: u64, to: &mut Vec<u8>) {
        while n > 127 {
            to.push(n as u8 | 128);
            n >>= 7;
        }
        to.push(n as u8);
    }
    let mut to = Vec::new();
    for field in fields {
        let (Field::Number(key, _) | Field::Fixed(key, _) | Field::Bytes(key, _) | Field::Message(key, _)) =
            field;
        put(*key, &mut to);
        match field {
            Field::Number(_, n) => put(*n, &mut to),
            Field::Fixed(_, bytes) => to.extend(bytes),
            Field::Bytes(_, bytes) => {
                put(bytes.len() as u64, &mut to);
                to.extend(bytes);
            }
            Field::Message(_, inner) => {
                let inner = written(inner);
                put(inner.len() as u64, &mut to);
                to.extend(inner);
            }
        }
    }
    to
}

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
