//! Whether Lua code is sure to compile, told in a tenth of the time that compiling it takes.
//!
//! `nginx -t` has to report syntax errors, in thousands of blocks where need be, of which a worker
//! may run a few. So a block is read here first, by the grammar of Lua 5.1 (reference manual,
//! section 8) without its rare parts. What is found sound is compiled when it is first run; for
//! all else, errors included, the compiler is asked at once, and nobody else words a message.

#![forbid(unsafe_code)]

mod tokens;

use tokens::{Token, Tokens};

/// Longer code is for the compiler, which has limits of its own: on jumps, constants, lines.
const MAX_LENGTH: usize = 8 * 1024;
/// The compiler allows 200 local variables and 60 upvalues a function. All names of a chunk
/// together stay below.
const MAX_NAMES: usize = 50;
/// The compiler allows 200 levels of nesting and 250 registers. The weight of what is being read
/// is never less than either, names left aside.
const MAX_WEIGHT: usize = 100;

/// Whether `code` is sure to compile, as a chunk and as the body of a function without `...`.
/// False does not mean that it will not.
pub fn is_sure(code: &[u8]) -> bool {
    code.len() <= MAX_LENGTH && Parser::new(code).chunk(Token::End).is_some()
}

/// How long the code is that `text` begins with, if a brace that it has not opened ends it and
/// [`is_sure`] would say yes to it.
pub fn sure_block(text: &[u8]) -> Option<usize> {
    let text = &text[..text.len().min(MAX_LENGTH + 1)];
    Parser::new(text).chunk(Token::Sign(b'}')).map(|behind| text.len() - behind - 1)
}

/// What an expression without operators ends in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It can be assigned to.
    Variable,
    /// It can be a statement.
    Call,
    /// It is in parentheses.
    Enclosed,
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    /// How much is open: operands, arguments, parentheses, blocks.
    weight: usize,
    /// How many local variables there are, those that the compiler adds to loops included.
    names: usize,
    in_loop: bool,
}

impl<'a> Parser<'a> {
    fn new(code: &'a [u8]) -> Self {
        Parser { tokens: Tokens::new(code), weight: 0, names: 0, in_loop: false }
    }
}

/// Every function reads one thing and leaves the token behind it to be read next. `None`: not
/// sure, and nothing is read any more.
impl Parser<'_> {
    /// All up to `end`. Returns how much there is behind it.
    fn chunk(&mut self, end: Token) -> Option<usize> {
        self.tokens.next()?;
        self.block(false)?;
        (self.tokens.token == end).then(|| self.tokens.left())
    }

    /// Statements, up to a word that ends them.
    fn block(&mut self, in_loop: bool) -> Option<()> {
        let around = (self.weight, self.in_loop);
        self.in_loop = in_loop;
        self.weigh(1)?;
        while !self.block_ends() {
            let last = matches!(self.tokens.token, Token::Return | Token::Break);
            let weight = self.weight;
            self.statement()?;
            self.weight = weight;
            self.skip(b';')?;
            if last && !self.block_ends() {
                return None;
            }
        }
        (self.weight, self.in_loop) = around;
        Some(())
    }

    fn block_ends(&self) -> bool {
        use Token::*;
        matches!(self.tokens.token, Close | Else | Elseif | Until | End | Sign(b'}'))
    }

    fn statement(&mut self) -> Option<()> {
        let in_loop = self.in_loop;
        match self.tokens.token {
            Token::If => {
                while matches!(self.tokens.token, Token::If | Token::Elseif) {
                    self.tokens.next()?;
                    self.expression()?;
                    self.expect(Token::Then)?;
                    self.block(in_loop)?;
                }
                if self.tokens.token == Token::Else {
                    self.tokens.next()?;
                    self.block(in_loop)?;
                }
                self.expect(Token::Close)
            }
            Token::Local => {
                self.tokens.next()?;
                if self.tokens.token == Token::Function {
                    self.tokens.next()?;
                    self.name()?;
                    return self.function();
                }
                self.name_list()?;
                if self.skip(b'=')? {
                    self.list()?;
                }
                Some(())
            }
            Token::Return => {
                self.tokens.next()?;
                if self.block_ends() || self.tokens.token == Token::Sign(b';') {
                    return Some(());
                }
                self.list()
            }
            Token::For => {
                self.tokens.next()?;
                self.name()?;
                self.count_names(3)?;
                if self.skip(b'=')? {
                    self.expression()?;
                    self.expect(Token::Sign(b','))?;
                    self.expression()?;
                    if self.skip(b',')? {
                        self.expression()?;
                    }
                } else {
                    if self.skip(b',')? {
                        self.name_list()?;
                    }
                    self.expect(Token::In)?;
                    self.list()?;
                }
                self.expect(Token::Do)?;
                self.block(true)?;
                self.expect(Token::Close)
            }
            Token::While => {
                self.tokens.next()?;
                self.expression()?;
                self.expect(Token::Do)?;
                self.block(true)?;
                self.expect(Token::Close)
            }
            Token::Repeat => {
                self.tokens.next()?;
                self.block(true)?;
                self.expect(Token::Until)?;
                self.expression()
            }
            Token::Do => {
                self.tokens.next()?;
                self.block(in_loop)?;
                self.expect(Token::Close)
            }
            Token::Function => {
                self.tokens.next()?;
                self.expect(Token::Name)?;
                while self.skip(b'.')? {
                    self.expect(Token::Name)?;
                }
                if self.skip(b':')? {
                    self.expect(Token::Name)?;
                    self.count_names(1)?;
                }
                self.function()
            }
            Token::Break if in_loop => self.tokens.next(),
            _ => self.assignment_or_call(),
        }
    }

    fn assignment_or_call(&mut self) -> Option<()> {
        let mut kind = self.primary()?;
        if kind == Kind::Call {
            return Some(());
        }
        while kind == Kind::Variable && self.skip(b',')? {
            self.weigh(1)?;
            kind = self.primary()?;
        }
        if kind != Kind::Variable {
            return None;
        }
        self.expect(Token::Sign(b'='))?;
        self.list()
    }

    /// A name or an expression in parentheses, with what is indexed and called behind it.
    fn primary(&mut self) -> Option<Kind> {
        let mut kind = match self.tokens.token {
            Token::Name => Kind::Variable,
            Token::Sign(b'(') => Kind::Enclosed,
            _ => return None,
        };
        self.tokens.next()?;
        self.weigh(1)?;
        if kind == Kind::Enclosed {
            self.expression()?;
            self.expect(Token::Sign(b')'))?;
        }
        loop {
            match self.tokens.token {
                Token::Sign(b'.') => {
                    self.tokens.next()?;
                    self.expect(Token::Name)?;
                    kind = Kind::Variable;
                }
                Token::Sign(b'[') => {
                    self.tokens.next()?;
                    self.expression()?;
                    self.expect(Token::Sign(b']'))?;
                    kind = Kind::Variable;
                }
                Token::Sign(b':') => {
                    self.tokens.next()?;
                    self.expect(Token::Name)?;
                    self.arguments()?;
                    kind = Kind::Call;
                }
                Token::Sign(b'(' | b'{') | Token::Text => {
                    self.arguments()?;
                    kind = Kind::Call;
                }
                _ => return Some(kind),
            }
        }
    }

    fn arguments(&mut self) -> Option<()> {
        self.weigh(3)?;
        match self.tokens.token {
            Token::Text => self.tokens.next(),
            Token::Sign(b'{') => self.table(),
            // On a new line it could be a statement: the compiler refuses it.
            Token::Sign(b'(') if !self.tokens.new_line => {
                self.tokens.next()?;
                if self.tokens.token != Token::Sign(b')') {
                    self.list()?;
                }
                self.expect(Token::Sign(b')'))
            }
            _ => None,
        }
    }

    /// Expressions with commas between them.
    fn list(&mut self) -> Option<()> {
        self.list_of(Self::expression)
    }

    fn list_of(&mut self, one: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        one(self)?;
        while self.skip(b',')? {
            one(self)?;
        }
        Some(())
    }

    /// Which operator binds more closely makes no difference here.
    fn expression(&mut self) -> Option<()> {
        loop {
            while matches!(self.tokens.token, Token::Not | Token::Sign(b'-' | b'#')) {
                self.tokens.next()?;
                self.weigh(1)?;
            }
            self.weigh(1)?;
            match self.tokens.token {
                Token::Number | Token::Text | Token::Value => self.tokens.next()?,
                Token::Sign(b'{') => self.table()?,
                Token::Function => {
                    self.tokens.next()?;
                    self.function()?;
                }
                _ => {
                    self.primary()?;
                }
            }
            if !matches!(self.tokens.token, Token::Binary | Token::Sign(b'-')) {
                return Some(());
            }
            self.tokens.next()?;
        }
    }

    fn table(&mut self) -> Option<()> {
        self.expect(Token::Sign(b'{'))?;
        while self.tokens.token != Token::Sign(b'}') {
            if self.skip(b'[')? {
                self.expression()?;
                self.expect(Token::Sign(b']'))?;
                self.expect(Token::Sign(b'='))?;
                self.expression()?;
            } else {
                let (first, count) = (self.tokens.token, self.tokens.count);
                self.expression()?;
                // A name alone is a key when `=` follows.
                if first == Token::Name && self.tokens.count == count + 1 && self.skip(b'=')? {
                    self.expression()?;
                }
            }
            if !self.skip(b',')? && !self.skip(b';')? {
                break;
            }
        }
        self.expect(Token::Sign(b'}'))
    }

    /// A function from its parameters on.
    fn function(&mut self) -> Option<()> {
        self.expect(Token::Sign(b'('))?;
        if self.tokens.token == Token::Name {
            self.name_list()?;
        }
        self.expect(Token::Sign(b')'))?;
        self.block(false)?;
        self.expect(Token::Close)
    }

    fn name_list(&mut self) -> Option<()> {
        self.list_of(Self::name)
    }

    /// A new local variable.
    fn name(&mut self) -> Option<()> {
        self.count_names(1)?;
        self.expect(Token::Name)
    }

    fn count_names(&mut self, count: usize) -> Option<()> {
        self.names += count;
        (self.names <= MAX_NAMES).then_some(())
    }

    fn weigh(&mut self, weight: usize) -> Option<()> {
        self.weight += weight;
        (self.weight <= MAX_WEIGHT).then_some(())
    }

    fn expect(&mut self, token: Token) -> Option<()> {
        if self.tokens.token != token {
            return None;
        }
        self.tokens.next()
    }

    /// Passes over a sign if it is there.
    fn skip(&mut self, sign: u8) -> Option<bool> {
        let there = self.tokens.token == Token::Sign(sign);
        if there {
            self.tokens.next()?;
        }
        Some(there)
    }
}

#[cfg(test)]
mod tests;
