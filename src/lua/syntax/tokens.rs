//! The tokens of Lua code. What is rare is no token here: `None` leaves it to the compiler.

#![forbid(unsafe_code)]

/// A token, as far as the grammar tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The end of the code.
    End,
    Name,
    Number,
    Text,
    /// An operator that stands between two operands, and nowhere else.
    Binary,
    /// Any other sign.
    Sign(u8),
    Break,
    Do,
    Else,
    Elseif,
    /// `end`.
    Close,
    For,
    Function,
    If,
    In,
    Local,
    Not,
    Repeat,
    Return,
    Then,
    Until,
    /// `nil`, `true` or `false`.
    Value,
    While,
}

/// Reads code token by token.
pub struct Tokens<'a> {
    /// What comes behind `token`.
    rest: &'a [u8],
    /// The token that was read last.
    pub token: Token,
    /// How many tokens have been read.
    pub count: usize,
    /// Whether a line ends between the token before and `token`.
    pub new_line: bool,
}

impl<'a> Tokens<'a> {
    /// Starts in front of the first token.
    pub fn new(code: &'a [u8]) -> Self {
        Tokens { rest: code, token: Token::End, count: 0, new_line: false }
    }

    /// How much comes behind the token.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Reads the next token.
    pub fn next(&mut self) -> Option<()> {
        self.count += 1;
        self.new_line = false;
        self.token = loop {
            let Some((&first, behind)) = self.rest.split_first() else { break Token::End };
            match first {
                b'\n' | b'\r' => self.new_line = true,
                b' ' => {
                    // Most of what code consists of: one between words, many before a line.
                    self.rest = behind;
                    while let Some((b"    ", more)) = self.rest.split_first_chunk() {
                        self.rest = more;
                    }
                    continue;
                }
                b'\t' | 0x0b | 0x0c => (),
                b'-' if behind.first() == Some(&b'-') => {
                    self.comment(&behind[1..])?;
                    continue;
                }
                _ => break self.visible(first)?,
            }
            self.rest = behind;
        };
        Some(())
    }

    /// A comment, from behind its dashes on.
    fn comment(&mut self, text: &[u8]) -> Option<()> {
        let len = self.rest.len() - text.len();
        let opening = &text[..text.iter().take_while(|b| matches!(b, b'[' | b'=')).count()];
        let end = match long_bracket(opening) {
            Some(level) => long_end(text, level)?,
            None => text.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(text.len()),
        };
        self.new_line |= text[..end].iter().any(|b| matches!(b, b'\n' | b'\r'));
        self.rest = &self.rest[len + end..];
        Some(())
    }

    /// The token that starts with a byte that is no white space.
    fn visible(&mut self, first: u8) -> Option<Token> {
        let rest = self.rest;
        let second = rest.get(1).copied().unwrap_or(0);
        let (len, token) = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let len = rest.iter().position(|b| !IN_NAME[*b as usize]).unwrap_or(rest.len());
                (len, word(&rest[..len])?)
            }
            b'0'..=b'9' => (number(rest)?, Token::Number),
            b'.' if second.is_ascii_digit() => (number(rest)?, Token::Number),
            b'"' | b'\'' => (quoted(rest)?, Token::Text),
            b'[' => match long_bracket(rest) {
                Some(level) => (long_end(rest, level)?, Token::Text),
                None if second == b'=' => return None,
                None => (1, Token::Sign(first)),
            },
            b'.' if rest.starts_with(b"...") => return None,
            b'.' if second == b'.' => (2, Token::Binary),
            b'=' | b'<' | b'>' | b'~' if second == b'=' => (2, Token::Binary),
            b':' if second == b':' => return None,
            b'+' | b'*' | b'/' | b'%' | b'^' | b'<' | b'>' => (1, Token::Binary),
            b'-' | b'#' | b'(' | b')' | b'{' | b'}' | b']' | b';' | b':' | b',' | b'.' | b'=' => {
                (1, Token::Sign(first))
            }
            _ => return None,
        };
        self.rest = &rest[len..];
        Some(token)
    }
}

/// The bytes that names are made of. LuaJIT takes bytes above 127 for letters, too; here they are
/// no token at all.
static IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
        byte += 1;
    }
    table
};

/// A name or a word of the language; `None` for `goto`, whose labels are not looked at.
fn word(word: &[u8]) -> Option<Token> {
    if !(2..=8).contains(&word.len()) {
        return Some(Token::Name);
    }
    Some(match word {
        b"and" | b"or" => Token::Binary,
        b"break" => Token::Break,
        b"do" => Token::Do,
        b"else" => Token::Else,
        b"elseif" => Token::Elseif,
        b"end" => Token::Close,
        b"false" | b"nil" | b"true" => Token::Value,
        b"for" => Token::For,
        b"function" => Token::Function,
        b"goto" => return None,
        b"if" => Token::If,
        b"in" => Token::In,
        b"local" => Token::Local,
        b"not" => Token::Not,
        b"repeat" => Token::Repeat,
        b"return" => Token::Return,
        b"then" => Token::Then,
        b"until" => Token::Until,
        b"while" => Token::While,
        _ => Token::Name,
    })
}

/// The length of a number, as far as it is a plain one: decimal, or up to 32 bits in hexadecimal.
fn number(text: &[u8]) -> Option<usize> {
    const MAX_DIGITS: usize = 15;

    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let len = if let [b'0', b'x' | b'X', hex @ ..] = text {
        let len = hex.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        (1..=8).contains(&len).then_some(2 + len)?
    } else {
        let whole = digits(text);
        match text.get(whole) {
            Some(b'.') => whole + 1 + digits(&text[whole + 1..]),
            _ => whole,
        }
    };
    let goes_on = text.get(len).is_some_and(|b| *b == b'.' || *b > 127 || IN_NAME[*b as usize]);
    (!goes_on && len <= MAX_DIGITS).then_some(len)
}

/// The length of a string in quotes.
fn quoted(text: &[u8]) -> Option<usize> {
    let quote = text[0];
    let mut rest = &text[1..];
    loop {
        let at = rest.iter().position(|b| *b == quote || matches!(b, b'\\' | b'\n' | b'\r'))?;
        rest = match &rest[at..] {
            [b'\\', escaped, rest @ ..] if b"abfnrtv\\\"'".contains(escaped) => rest,
            [end, rest @ ..] if *end == quote => return Some(text.len() - rest.len()),
            _ => return None,
        };
    }
}

/// The number of `=` when `text` begins with a long bracket.
fn long_bracket(text: &[u8]) -> Option<usize> {
    let behind = text.strip_prefix(b"[")?;
    let level = behind.iter().take_while(|b| **b == b'=').count();
    (behind.get(level) == Some(&b'[')).then_some(level)
}

/// The length of what is in long brackets, with them.
fn long_end(text: &[u8], level: usize) -> Option<usize> {
    let size = level + 2;
    let closes = |end: &[u8]| {
        end[0] == b']' && end[size - 1] == b']' && end[1..size - 1].iter().all(|b| *b == b'=')
    };
    text[size..].windows(size).position(closes).map(|at| size + at + size)
}
