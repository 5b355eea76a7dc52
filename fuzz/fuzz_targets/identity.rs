//! Identities are the same bytes only for the same parts, and have the same number only for the
//! same bytes.
#![no_main]

use std::collections::BTreeMap;

use fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use module::balancer::identity::{Numbers, Writer};

/// A list of parts: a bit of `kinds` says of each whether it is a text.
fn parts<'a>(input: &mut Input<'a>, kinds: u8) -> Vec<Part<'a>> {
    (0..8)
        .map(|n| match (kinds >> n & 1, input.byte()) {
            (0, 0) => Part::Number(usize::from(input.short()) << 48),
            (0, number) => Part::Number(number.into()),
            _ => Part::Text(input.text()),
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq)]
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

/// The same bytes of text, cut elsewhere: what a writer that forgets lengths would take for the same.
fn cut_elsewhere<'a>(parts: &[Part<'a>]) -> Option<Vec<Part<'a>>> {
    let is_cut_at_end = |two: &[Part]| matches!(two, [Part::Text([_, ..]), Part::Text([])]);
    let at = parts.windows(2).position(is_cut_at_end)?;
    let Part::Text(whole) = parts[at] else { return None };
    let (first, second) = whole.split_at(whole.len() / 2);
    let mut parts = parts.to_vec();
    parts[at] = Part::Text(first);
    parts[at + 1] = Part::Text(second);
    Some(parts)
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut writer = Writer::default();
    let mut numbers = Numbers::default();
    let mut known: BTreeMap<Vec<u8>, u64> = BTreeMap::new();

    let kinds = input.byte();
    let mut before: Vec<(Vec<Part>, Vec<u8>)> = Vec::new();
    while !input.is_empty() {
        let parts = parts(&mut input, kinds);
        let bytes = write(&mut writer, &parts);
        for (other, other_bytes) in &before {
            assert_eq!(parts == *other, bytes == *other_bytes);
            // More may be written behind.
            assert!(parts == *other || !bytes.starts_with(other_bytes));
        }
        if let Some(other) = cut_elsewhere(&parts) {
            assert!(write(&mut writer, &other) != bytes);
        }

        let number = numbers.of(&bytes);
        let fresh = known.len() as u64;
        assert_eq!(*known.entry(bytes.clone()).or_insert(fresh), number);
        before.push((parts, bytes));
    }
});
