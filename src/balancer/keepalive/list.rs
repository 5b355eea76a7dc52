//! Lists through places that lie elsewhere: each place has the numbers of its neighbours.

#![forbid(unsafe_code)]

/// No place.
pub const NIL: u32 = u32::MAX;

/// The neighbours of a place in a list.
#[derive(Clone, Copy)]
pub struct Links {
    before: u32,
    after: u32,
}

impl Links {
    /// In no list.
    pub const NONE: Links = Links { before: NIL, after: NIL };
}

/// Where the links of a list's places are.
pub trait Nodes {
    /// Those of one place.
    fn links(&mut self, n: u32) -> &mut Links;
}

impl Nodes for [Links] {
    #[inline]
    fn links(&mut self, n: u32) -> &mut Links {
        &mut self[n as usize]
    }
}

/// What a list keeps of its ends.
pub trait Ends {
    /// The place in front; [`NIL`] in an empty list.
    fn first(&self) -> u32;
    /// Another place is in front.
    fn set_first(&mut self, n: u32);
    /// Another place is the last.
    fn set_last(&mut self, n: u32);
}

/// A list whose last place nobody asks for.
#[derive(Clone, Copy)]
pub struct Head(u32);

impl Default for Head {
    fn default() -> Self {
        Head(NIL)
    }
}

impl Ends for Head {
    #[inline]
    fn first(&self) -> u32 {
        self.0
    }

    #[inline]
    fn set_first(&mut self, n: u32) {
        self.0 = n;
    }

    #[inline]
    fn set_last(&mut self, _: u32) {}
}

/// A list with both its ends.
#[derive(Clone, Copy)]
pub struct List {
    first: u32,
    last: u32,
}

impl List {
    /// The last place; [`NIL`] in an empty list.
    #[inline]
    pub fn last(&self) -> u32 {
        self.last
    }
}

impl Default for List {
    fn default() -> Self {
        List { first: NIL, last: NIL }
    }
}

impl Ends for List {
    #[inline]
    fn first(&self) -> u32 {
        self.first
    }

    #[inline]
    fn set_first(&mut self, n: u32) {
        self.first = n;
    }

    #[inline]
    fn set_last(&mut self, n: u32) {
        self.last = n;
    }
}

/// Puts a place in front.
#[inline]
pub fn push_front(nodes: &mut (impl Nodes + ?Sized), list: &mut impl Ends, n: u32) {
    let first = list.first();
    *nodes.links(n) = Links { before: NIL, after: first };
    match first {
        NIL => list.set_last(n),
        first => nodes.links(first).before = n,
    }
    list.set_first(n);
}

/// Takes a place out.
#[inline]
pub fn unlink(nodes: &mut (impl Nodes + ?Sized), list: &mut impl Ends, n: u32) {
    let Links { before, after } = *nodes.links(n);
    match before {
        NIL => list.set_first(after),
        before => nodes.links(before).after = after,
    }
    match after {
        NIL => list.set_last(before),
        after => nodes.links(after).before = before,
    }
}
