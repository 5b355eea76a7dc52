//! Where a block of Lua ends in an nginx configuration file.
//!
//! Follows LuaJIT's lexical rules (Lua 5.1's reference manual, section 2.1, and `\z` of Lua 5.2)
//! only as far as they hide a brace: strings, long brackets and comments. A carriage return ends a
//! line as a line feed does. Everything else is for the Lua compiler to judge.

#![forbid(unsafe_code)]

/// A scanner that is fed the block piece by piece, wherever the reader's buffer happens to end.
pub struct Lexer {
    depth: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Code,
    /// One `-` seen.
    Dash,
    /// `--` seen: a line comment, unless a long bracket opens at once.
    Comment,
    /// `[` and this many `=` seen; `comment` tells whether `--` stood before.
    Opening {
        level: usize,
        comment: bool,
    },
    LineComment,
    /// Inside `[[…]]`, `[=[…]=]`.
    Long {
        level: usize,
    },
    /// Inside a long bracket, `]` and this many `=` seen.
    Closing {
        level: usize,
        seen: usize,
    },
    Quoted {
        quote: u8,
    },
    Escaped {
        quote: u8,
    },
    /// A string goes on behind `\` and this byte of a line break; a break may have two.
    EscapedBreak {
        quote: u8,
        first: u8,
    },
    /// White space behind `\z`.
    Skipped {
        quote: u8,
    },
}

impl State {
    /// The bit in [`TELLING`] that stands for the state; a state that has none is left by any byte.
    #[inline]
    fn bit(self) -> u8 {
        match self {
            State::Code => CODE,
            State::LineComment => LINE_COMMENT,
            State::Long { .. } => LONG,
            State::Quoted { .. } => QUOTED,
            _ => ANY,
        }
    }
}

const CODE: u8 = 1;
const LINE_COMMENT: u8 = 2;
const LONG: u8 = 4;
const QUOTED: u8 = 8;
const ANY: u8 = 16;

/// In which states a byte tells something. Most bytes tell nothing and are passed over.
static TELLING: [u8; 256] = {
    let table = telling([ANY; 256], b"-[{}\"'", CODE);
    let table = telling(table, b"\n\r", LINE_COMMENT);
    let table = telling(table, b"]", LONG);
    telling(table, b"\\\"'\n\r", QUOTED)
};

const fn telling(mut table: [u8; 256], bytes: &[u8], state: u8) -> [u8; 256] {
    let mut n = 0;
    while n < bytes.len() {
        table[bytes[n] as usize] |= state;
        n += 1;
    }
    table
}

impl Default for Lexer {
    fn default() -> Self {
        Self::new()
    }
}

impl Lexer {
    /// Starts behind the block's opening brace.
    pub fn new() -> Self {
        Lexer { depth: 1, state: State::Code }
    }

    /// Takes the next piece. Returns where in it the brace is that closes the block; what comes
    /// after that is not looked at.
    pub fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let bit = self.state.bit();
            at += bytes[at..].iter().position(|b| TELLING[*b as usize] & bit != 0)?;
            if self.push(bytes[at]) {
                return Some(at);
            }
            at += 1;
        }
    }

    /// Takes the next byte; true when it is the brace that closes the block.
    fn push(&mut self, byte: u8) -> bool {
        use State::*;

        self.state = match (self.state, byte) {
            (Dash, b'-') => Comment,
            (Comment, b'[') => Opening { level: 0, comment: true },
            (Comment | LineComment, b'\n' | b'\r') => Code,
            (Comment | LineComment, _) => LineComment,

            (Opening { level, comment }, b'=') => Opening { level: level + 1, comment },
            (Opening { level, .. }, b'[') => Long { level },
            (Opening { comment: true, .. }, b'\n' | b'\r') => Code,
            (Opening { comment: true, .. }, _) => LineComment,

            (Long { level }, b']') => Closing { level, seen: 0 },
            (Long { level }, _) => Long { level },
            (Closing { level, seen }, b']') if seen == level => Code,
            (Closing { level, .. }, b']') => Closing { level, seen: 0 },
            (Closing { level, seen }, b'=') => Closing { level, seen: seen + 1 },
            (Closing { level, .. }, _) => Long { level },

            (Escaped { quote }, first @ (b'\n' | b'\r')) => EscapedBreak { quote, first },
            (EscapedBreak { quote, first: b'\r' }, b'\n') => Quoted { quote },
            (EscapedBreak { quote, first: b'\n' }, b'\r') => Quoted { quote },
            (Escaped { quote }, b'z') => Skipped { quote },
            (Skipped { quote }, b' ' | b'\t'..=b'\r') => Skipped { quote },
            (Escaped { quote }, _) => Quoted { quote },
            (Quoted { quote } | EscapedBreak { quote, .. } | Skipped { quote }, b) => match b {
                b'\\' => Escaped { quote },
                // Lua ends an unfinished string here too: its compiler then names the line.
                b'\n' | b'\r' => Code,
                b if b == quote => Code,
                _ => Quoted { quote },
            },

            (Code | Dash | Opening { comment: false, .. }, b) => match b {
                b'-' => Dash,
                b'[' => Opening { level: 0, comment: false },
                b'"' | b'\'' => Quoted { quote: b },
                b'{' => {
                    self.depth += 1;
                    Code
                }
                b'}' => {
                    self.depth -= 1;
                    Code
                }
                _ => Code,
            },
        };

        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Lexer;

    /// The block in `text`, without its closing brace.
    fn block(text: &str) -> Option<&str> {
        let end = Lexer::new().find_end(text.as_bytes());
        // Wherever the reader's buffer ends, the block ends in the same place.
        for cut in 0..text.len() {
            let mut lexer = Lexer::new();
            let (first, second) = text.as_bytes().split_at(cut);
            let cut_end = lexer.find_end(first);
            assert_eq!(cut_end.or_else(|| lexer.find_end(second).map(|n| cut + n)), end);
        }
        Some(&text[..end?])
    }

    #[test]
    fn ends_at_the_matching_brace() {
        assert_eq!(block(" a } b }"), Some(" a "));
        assert_eq!(block(" t = { { 1 } } } }"), Some(" t = { { 1 } } "));
        assert_eq!(block(""), None);
        assert_eq!(block("{"), None);
    }

    #[test]
    fn braces_in_strings_do_not_count() {
        for inside in [
            r#"a = "}""#,
            r#"a = '}'"#,
            r#"a = "\"}""#,
            r#"a = "\\" b = '}'"#,
            "a = [[}]]",
            "a = [==[}]]}]=]}]==]",
            "a = [=[]]==]}]=]",
            "a = '\\\n}'",
            "a = '\\\r\n}'",
            "a = '\\\n\r}'",
            "a = '\\\r}'",
            "a = '\\z \t\r\n\n  }'",
            "a = '\\z\\z\n\\z\n}'",
            "a = '\\z' b = '}'",
            r#"a = "\u{7D}}""#,
        ] {
            assert_eq!(block(&format!("{inside} }}")), Some(format!("{inside} ").as_str()));
        }
    }

    #[test]
    fn braces_in_comments_do_not_count() {
        for inside in
            ["-- }\n", "--[[ }\n} ]]", "--[==[ }]] ]==]", "--[=}\n", "--[\n", "a --\n", "---[[ }\n"]
        {
            assert_eq!(block(&format!("{inside} }}")), Some(format!("{inside} ").as_str()));
        }
    }

    /// In each, `|` stands in front of the brace that closes the block.
    fn ends_there(texts: &[&str]) {
        for text in texts {
            let inside = text.split('|').next();
            assert_eq!(block(&text.replace('|', "")), inside, "{text}");
        }
    }

    #[test]
    fn indexing_is_not_a_long_bracket() {
        ends_there(&["a[b[1]] = {}|}", "a['}'] = 1 |}", "a = b - { } |}"]);
    }

    #[test]
    fn a_carriage_return_ends_a_line() {
        ends_there(&["-- }\r a |}", "--\r a |}", "--[=\r a |}", "-- }\r\n a |}\r\n"]);
    }

    #[test]
    fn an_unfinished_string_ends_with_its_line() {
        ends_there(&["a = \"}\n |}", "a = \"}\r |}", "a = '\\\n\n |}", "a = '\\\n\r\n |}"]);
    }
}
