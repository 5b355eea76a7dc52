//! What was parsed of a text before: found again by the text instead of parsed again.

#![forbid(unsafe_code)]

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// What at most `MAX` texts were parsed to.
pub struct Memory<T, const MAX: usize> {
    known: HashMap<Box<[u8]>, T, FxBuildHasher>,
}

impl<T, const MAX: usize> Default for Memory<T, MAX> {
    fn default() -> Self {
        Memory { known: HashMap::default() }
    }
}

impl<T, const MAX: usize> Memory<T, MAX> {
    /// What `text` was parsed to, or what `parse` makes of it now. A failure is not remembered.
    pub fn get_or_parse<E>(
        &mut self,
        text: &[u8],
        parse: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        if !self.known.contains_key(text) {
            let value = parse()?;
            // Whoever names this many texts names new ones all the time: which of them comes back
            // cannot be told.
            if self.known.len() >= MAX {
                self.known.clear();
            }
            self.known.insert(text.into(), value);
        }
        Ok(&self.known[text])
    }
}

#[cfg(test)]
mod tests {
    type Memory = super::Memory<usize, 16>;

    #[test]
    fn a_text_is_parsed_once() {
        let mut memory = Memory::default();
        let mut parsed = 0;
        for _ in 0..3 {
            let value = memory.get_or_parse(b"a", || {
                parsed += 1;
                Ok::<_, ()>(7)
            });
            assert_eq!(value, Ok(&7));
        }
        assert_eq!(parsed, 1);
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let mut memory = Memory::default();
        assert_eq!(memory.get_or_parse(b"x", || Err("no")), Err("no"));
        assert_eq!(memory.get_or_parse(b"x", || Ok::<_, &str>(1)), Ok(&1));
    }

    #[test]
    fn it_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..100 {
            let text = n.to_string();
            assert_eq!(memory.get_or_parse(text.as_bytes(), || Ok::<_, ()>(n)), Ok(&n));
            assert!(memory.known.len() <= 16);
        }
    }
}
