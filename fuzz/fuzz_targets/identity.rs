//! Identities are the same bytes only for the same parts, and have the same number only for the
//! same bytes.
#![no_main]

use std::collections::HashMap;

use fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use module::balancer::identity::{Numbers, Writer};

/// Two lists of parts, of the same kinds: a bit of `kinds` says of a part whether it is a text.
fn parts<'a>(input: &mut Input<'a>, kinds: u8) -> Vec<Part<'a>> {
    (0..8)
        .map(|n| match kinds >> n & 1 {
            0 => Part::Number(input.byte().into()),
            _ => Part::Text(input.text()),
        })
        .collect()
}

#[derive(PartialEq)]
enum Part<'a> {
    Number(usize),
    Text(&'a [u8]),
}

fn write(writer: &mut Writer, parts: &[Part]) -> Vec<u8> {
    writer.clear();
    for part in parts {
        match part {
            Part::Number(number) => writer.number(*number),
            Part::Text(text) => writer.text(text),
        }
    }
    writer.bytes().to_vec()
}

/// The parts that were written, read again: what can be read back was written without loss.
fn read<'a>(mut bytes: &'a [u8], kinds: u8) -> Option<Vec<Part<'a>>> {
    let number = |bytes: &mut &'a [u8]| {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(usize::from_ne_bytes(*first))
    };
    let mut parts = Vec::new();
    for n in 0..8 {
        let value = number(&mut bytes)?;
        parts.push(if kinds >> n & 1 == 0 {
            Part::Number(value)
        } else {
            let (text, rest) = bytes.split_at_checked(value)?;
            bytes = rest;
            Part::Text(text)
        });
    }
    bytes.is_empty().then_some(parts)
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut writer = Writer::default();
    let mut numbers = Numbers::default();
    let mut known: HashMap<Vec<u8>, u64> = HashMap::new();

    let kinds = input.byte();
    let mut before: Option<(Vec<Part>, Vec<u8>)> = None;
    while !input.is_empty() {
        let parts = parts(&mut input, kinds);
        let bytes = write(&mut writer, &parts);
        assert!(read(&bytes, kinds).as_ref() == Some(&parts), "a part is lost");
        if let Some((other, other_bytes)) = &before {
            assert_eq!(parts == *other, bytes == *other_bytes);
        }

        let number = numbers.of(&bytes);
        let fresh = known.len() as u64;
        assert_eq!(*known.entry(bytes.clone()).or_insert(fresh), number);
        before = Some((parts, bytes));
    }
});
