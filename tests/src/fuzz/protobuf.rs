//! Mutations that keep protobuf's framing intact, so that they reach what lies behind the decoder.

use super::Rng;

/// A field of a message, its nested messages taken apart wherever the bytes allow that reading.
#[derive(Debug, Clone)]
enum Value {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

#[derive(Debug, Clone)]
struct Field {
    number: u64,
    value: Value,
}

/// One to three edits of the message tree, or `None` if the bytes are no message.
pub(super) fn mutate(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let mut root = parse(bytes, 0)?;
    let donor = parse(other, 0).unwrap_or_default();
    for _ in 0..=rng.below(3) {
        let target = rng.below(count(&root));
        let strings = strings(&root);
        visit(&mut root, &mut target.clone(), &mut |fields, index| edit(fields, index, &donor, &strings, rng));
    }
    let mut out = Vec::new();
    write(&root, &mut out);
    Some(out)
}

fn edit(fields: &mut Vec<Field>, index: usize, donor: &[Field], strings: &[Vec<u8>], rng: &mut Rng) {
    match rng.below(8) {
        0 => drop(fields.remove(index)),
        1 => fields.insert(rng.below(fields.len()), fields[index].clone()),
        2 => {
            let other = rng.below(fields.len());
            fields.swap(index, other);
        }
        // A field of this number from anywhere in another file.
        3 => {
            let mut found = Vec::new();
            collect(donor, fields[index].number, &mut found);
            if !found.is_empty() {
                fields[index].value = rng.pick(&found).clone();
            }
        }
        _ => match &mut fields[index].value {
            Value::Varint(value) => match rng.below(3) {
                0 => *value = rng.interesting(),
                1 => *value = value.wrapping_add(1),
                _ => *value = value.wrapping_sub(1),
            },
            Value::Fixed(bytes) | Value::Bytes(bytes) if rng.one_in(2) || strings.is_empty() => damage(bytes, rng),
            Value::Bytes(bytes) => bytes.clone_from(rng.pick(strings)),
            Value::Fixed(bytes) => {
                let special = *rng.pick(&[0.0f32, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, -1.0, 3e38]);
                bytes.splice(..4.min(bytes.len()), special.to_le_bytes());
                bytes.truncate(if bytes.len() > 4 { 8 } else { 4 });
            }
            Value::Message(inner) => inner.truncate(rng.below(inner.len() + 1)),
        },
    }
}

fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(4) {
        0 => bytes.truncate(rng.below(bytes.len() + 1)),
        1 if bytes.len() < 1 << 14 => bytes.extend_from_within(..),
        _ if !bytes.is_empty() => {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next_u64() as u8;
        }
        _ => bytes.push(b'x'),
    }
}

/// Calls `f` with the list and position of the `target`-th field in depth-first order.
fn visit(fields: &mut Vec<Field>, target: &mut usize, f: &mut dyn FnMut(&mut Vec<Field>, usize)) -> bool {
    for index in 0..fields.len() {
        if *target == 0 {
            f(fields, index);
            return true;
        }
        *target -= 1;
        if let Value::Message(inner) = &mut fields[index].value
            && visit(inner, target, f)
        {
            return true;
        }
    }
    false
}

fn count(fields: &[Field]) -> usize {
    fields.iter().map(|field| 1 + if let Value::Message(inner) = &field.value { count(inner) } else { 0 }).sum()
}

fn strings(fields: &[Field]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for field in fields {
        match &field.value {
            Value::Bytes(bytes) if bytes.len() < 64 => out.push(bytes.clone()),
            Value::Message(inner) => out.extend(strings(inner)),
            _ => {}
        }
    }
    out
}

fn collect(fields: &[Field], number: u64, out: &mut Vec<Value>) {
    for field in fields {
        if field.number == number {
            out.push(field.value.clone());
        }
        if let Value::Message(inner) = &field.value {
            collect(inner, number, out);
        }
    }
}

fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let (number, wire) = (tag >> 3, tag & 7);
        if number == 0 || number > 64 {
            return None;
        }
        let value = match wire {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed(bytes.split_off(..8)?.to_vec()),
            5 => Value::Fixed(bytes.split_off(..4)?.to_vec()),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = bytes.split_off(..length)?;
                match parse(inner, depth + 1) {
                    Some(message) if depth < 8 && length > 0 => Value::Message(message),
                    _ => Value::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let mut framed = |wire: u64, bytes: &[u8]| {
            write_varint(number << 3 | wire, out);
            if wire == 2 {
                write_varint(bytes.len() as u64, out);
            }
            out.extend_from_slice(bytes);
        };
        match value {
            Value::Varint(value) => {
                let mut bytes = Vec::new();
                write_varint(*value, &mut bytes);
                framed(0, &bytes);
            }
            Value::Fixed(bytes) => framed(if bytes.len() == 8 { 1 } else { 5 }, bytes),
            Value::Bytes(bytes) => framed(2, bytes),
            Value::Message(inner) => {
                let mut bytes = Vec::new();
                write(inner, &mut bytes);
                framed(2, &bytes);
            }
        }
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
