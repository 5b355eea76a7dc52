//! Against LuaJIT itself: what is called sure compiles.

use mlua::Lua;

use super::{is_sure, sure_block, MAX_LENGTH};
use crate::conf::lex::Lexer;

/// What is looked at as a whole: as configurations have it.
const SOUND: &[&str] = &[
    "",
    "local b = require \"ngx.balancer\"\nlocal ok, err = b.set_current_peer('127.0.0.1', 80)\n\
     if not ok then\n ngx.log(ngx.ERR, \"failed: \", err)\n return ngx.exit(500)\nend",
    "require('peers').choose()",
    "local t = { 1, 2; 3, a = 1, ['b'] = { x, y.z }, f(1), }\nt[#t + 1], t.n = -1, not t.a",
    "for i = 1, 10, 2 do if i > 5 then break end end",
    "for k, v in pairs(t) do t[k] = v .. \"\\n\\\"\" end;",
    "while a ~= b and (c or d) do a = a - 1 repeat local x = f{1} until x == nil end",
    "local function f(a, b) return a, b end function m.n:o() return self end do end return",
    "local f = function() return function() return 1 end end return f()()",
    "-- a comment\n--[[ another\n]] --[==[ ]] ]==]\nx = 0x1F + .5 * 1. / 3.25 % 2 ^ y",
    "s = [[ long\n]] .. [=[ ]] ]=] .. 'it\\'s' .. \"'\"",
    "('x'):rep(3) (f or g)(1).x = 2",
    "f 'a' 'b' { 1 } [[c]]",
    "x = a[1][b[2]] < c == d",
    "if a then elseif b then else end",
    "--",
    "--[[]]",
    "-- no end of line",
    "local very_long_name_of_something, _ = nil, true\r\nreturn very_long_name_of_something;\r\n",
];

/// What does not compile, and what is left to the compiler.
#[rustfmt::skip]
const UNSURE: &[&str] = &[
    "local = 1", "if", "if x then", "x", "x = ", "f(", "f)", "return return", "return 1 x()",
    "end", "}", "{", "(x) = 1", "f() = 1", "a, f() = 1", "break", "do break end",
    "while x do local f = function() break end end", "while x do break f() end", "x = 1 2",
    "f\n(x)", "f\n--[[\n]](x)", "x = 'a", "x = \"a\nb\"", "x = [[a", "x = [=a", "--[[ x",
    "x = 1..2", "x = 0x", "x = 1x", "x = 3a.b", "'a'.b()", "x = 'a':b()", ";", "f();;", "...",
    "local a = ...", "function f(...) end", "goto a", "::a::", "x = 1LL", "x = 1e5", "x = '\\q'",
    "x = '\\xZZ'", "x = '\\300'", "for i in do end", "for i = 1 do end", "for 1 = 1, 2 do end",
    "local function f.g() end", "function f:g.h() end", "x = not", "x = -", "x = {", "x = { , }",
    "x = { a b }", "x = { [1] }", "x = { (a) = 1 }", "local a.b = 1", "a.1 = 2", "a:b = 1",
    "a:b.c()", "é = 1", "x = \u{1}", "# x", "x = a ! b", "x = a != b", "until x", "repeat until",
    "else", "end, function()", "end function f() ", "local x <const> = 1", "x = 0x123456789",
    "x = 1\u{e9}", "\0", "x = a~b", "f(a b)", "~=",
];

fn compiles(lua: &Lua, code: &[u8]) -> bool {
    let body = [b"return function() ", code, b"\nend"].concat();
    lua.load(code).into_function().is_ok() && lua.load(&body).into_function().is_ok()
}

#[test]
fn sound_code_is_known() {
    let lua = Lua::new();
    for code in SOUND {
        assert!(compiles(&lua, code.as_bytes()), "{code}");
        assert!(is_sure(code.as_bytes()), "{code}");
    }
}

#[test]
fn the_compiler_is_asked_about_all_else() {
    for code in UNSURE {
        assert!(!is_sure(code.as_bytes()), "{code}");
    }
}

#[test]
fn limits_are_left_to_the_compiler() {
    let lua = Lua::new();
    let repeated = |before: &str, part: &str, count: usize, after: &str| {
        format!("{before}{}{after}", part.repeat(count))
    };
    let nested = |open: &str, inside: &str, close: &str, count: usize| {
        format!("{}{inside}{}", open.repeat(count), close.repeat(count))
    };
    for count in 1..300 {
        for code in [
            repeated("", "local a ", count, ""),
            repeated("local a", ", a", count, " = 1"),
            repeated("f(0", ", f(0", count, &")".repeat(count + 1)),
            repeated("f(0", ", 0", count, ")"),
            repeated("x = a", " .. a", count, ""),
            repeated("x = a", " ^ a", count, ""),
            repeated("a", ", a", count, " = 1"),
            repeated("x = ", "- ", count, "a"),
            repeated("x = a", "[b", count, &"]".repeat(count)),
            repeated("f()", "()", count, ""),
            repeated("f", ":g()", count, ""),
            repeated("for a", ", a", count, " in b do end"),
            repeated("function f(a", ", a", count, ") end"),
            repeated("x = { 0", ", { 0 }", count, "}"),
            repeated("local a ", "local function f() a() end ", count, ""),
            nested("do ", "", "end ", count),
            nested("if a then ", "", "end ", count),
            nested("for i = 1, 2 do ", "", "end ", count),
            nested("for i in a do ", "", "end ", count),
            nested("repeat ", "", "until a ", count),
            nested("function f() ", "", "end ", count),
            nested("f(a, function() ", "", "end) ", count),
            nested("f(a)(b, function() local a = 1 return ", "1", " end) ", count),
            format!("x = {}", nested("(", "a", ")", count)),
            format!("x = {}", nested("{", "a", "}", count)),
            format!("x = {}", nested("f(a .. ", "a", ")", count)),
            format!("x = {}", nested("a + (", "a", ")", count)),
            format!("x = {}", nested("not {", "a", "}", count)),
        ] {
            if is_sure(code.as_bytes()) {
                assert!(compiles(&lua, code.as_bytes()), "{code}");
            } else {
                assert!(count > 7, "{code}");
            }
        }
    }
    assert!(!is_sure(" ".repeat(MAX_LENGTH + 1).as_bytes()));
}

#[test]
fn a_sure_block_ends_at_its_brace() {
    for code in SOUND {
        for behind in ["", "\n upstream b { server 1.2.3.4; }\n", " }", "'"] {
            let text = [code, "\n}", behind].concat();
            assert_eq!(sure_block(text.as_bytes()), Some(code.len() + 1), "{text}");
        }
        assert_eq!(sure_block(code.as_bytes()), None, "{code}");
    }
    for code in UNSURE {
        let text = [code, "\n}"].concat();
        // A brace may end it before its fault.
        assert!(
            sure_block(text.as_bytes()).is_none_or(|end| code[end..].starts_with('}')),
            "{text}"
        );
    }
    let longest = " ".repeat(MAX_LENGTH);
    assert_eq!(sure_block([&longest, "} "].concat().as_bytes()), Some(MAX_LENGTH));
    assert_eq!(sure_block([&longest, " }"].concat().as_bytes()), None);
}

/// Whatever is put together of pieces of code: what is sure to compile compiles.
#[test]
fn sure_code_compiles() {
    #[rustfmt::skip]
    const PIECES: &[&str] = &[
        "a", "b", "f", " ", " ", "\n", "\r", "1", "2.", ".5", "0x1F", "'s'", "\"t\"", "[[u]]",
        "(", ")", "{", "}", "[", "]", ",", ";", ":", ".", "..", "=", "==", "~=", "<", "-", "#",
        "+", "and ", "or ", "not ", "break ", "do ", "else ", "elseif ", "end ", "false ", "for ",
        "function ", "if ", "in ", "local ", "nil ", "repeat ", "return ", "then ", "true ",
        "until ", "while ", "--", "--[[", "]]", "[=[", "\\", "'", "\"", "f()", "a = 1 ",
        "local a = 2 ", "if a then ", "for i = 1, 2 do ", "function() ", "while a do ", "a.b",
        "a[1]", "f(function() ", "return f(", "function f(a) ",
    ];
    let lua = Lua::new();
    let mut random = 12345u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % below
    };
    let (mut sure, mut unsure, mut blocks) = (0, 0, 0);
    for _ in 0..200_000 {
        let mut code = SOUND[next(SOUND.len())].as_bytes().to_vec();
        if next(3) == 0 {
            code.clear();
        }
        for _ in 0..next(6) {
            let from = next(code.len() + 1);
            let to = (from + next(8) * next(2)).min(code.len());
            code.splice(from..to, PIECES[next(PIECES.len())].bytes());
        }
        if is_sure(&code) {
            assert!(compiles(&lua, &code), "{}", String::from_utf8_lossy(&code));
            // A comment at the end would hide the brace.
            let block = [&code[..], b"\n}"].concat();
            assert_eq!(sure_block(&block), Some(block.len() - 1));
            sure += 1;
        } else {
            unsure += 1;
        }
        // The block's end is where whoever counts braces finds it.
        if let Some(end) = sure_block(&code) {
            assert!(is_sure(&code[..end]));
            assert_eq!(Lexer::new().find_end(&code), Some(end));
            blocks += 1;
        }
    }
    assert!(sure > 10_000 && unsure > 10_000 && blocks > 500, "{sure} {unsure} {blocks}");
}
