# Lua blocks in the configuration file: where they end, what `nginx -T` shows, and what is said
# when one is wrong.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;
use Verdict;

my $nginx = Nginx->new;

sub serve {
    my ($lua) = @_;
    return <<"EOC";
upstream backend {
    balancer_by_lua_block {$lua}
}
server {
    listen 127.0.0.1:${\port(0)};
    location / { proxy_pass http://backend; }
}
server {
    listen 127.0.0.1:${\port(1)};
    location / { return 200 "peer one"; }
}
EOC
}

my $set = qq{require("ngx.balancer").set_current_peer("127.0.0.1", ${\port(1)})};

# Starts nginx and has it answer one request.
sub answers {
    my ($name, $conf) = @_;
    $nginx->conf($conf);
    $nginx->start;
    is($nginx->get('/', port(0))->{body}, 'peer one', $name) or diag($nginx->log);
    $nginx->stop;
}

# Lua between the braces that a reader of nginx's own tokens would break on; SET is the code that
# sets the peer.
my @blocks = split /^=== (.*)\n/m, do { local $/; scalar <DATA> };
shift @blocks;
while (my ($name, $lua) = splice @blocks, 0, 2) {
    chomp $lua;
    answers("a block with $name", serve($lua =~ s/SET/$set/r));
}
answers('a block with CRLF', serve("\r\n-- }\r\n$set\r\n"));
answers('an escaped CRLF', serve("\r\nlocal s = 'a\\\r\n}' assert(#s == 3)\r\n$set\r\n"));
answers('a comment that ends with CR', serve("\r-- it's }\rlocal t = {}\r$set\r"));

# nginx reads its files 4096 bytes at a time: the block may be longer, and the end of a buffer may
# fall on any byte of it.
answers('a block of 100 kB', serve(' local s = "' . '}' x 100_000 . qq[" assert(#s == 100000) $set ]));
for my $shift (0 .. 3) {
    my $lua = " local s = [==[\n" . '}]=]' x 1500 . ' ' x $shift . "]==] $set ";
    answers("the buffer ends within a bracket, $shift", serve($lua));
}
{
    # Each byte around the end of the block once in each of the two buffers.
    my $conf = serve(" $set --[[ } ]] ");
    my $at = index($conf, '--[[');
    $nginx->conf('');
    my $before = index(slurp($nginx->root . '/conf/nginx.conf'), "\n}\n") + 1;
    my $good = 0;
    my @tried = (4096 - $before - $at - 16 .. 4096 - $before - $at + 4);
    for my $fill (@tried) {
        $nginx->conf('#' . 'x' x ($fill - 2) . "\n" . $conf);
        my $run = $nginx->test;
        $good++ if $run->{code} == 0;
        diag($run->{out}) if $run->{code};
    }
    is($good, @tried, 'the buffer ends at any byte of the end of a block');
}

# An included file.
$nginx->write('conf/upstream.conf', "# the upstream\nupstream backend {\n    balancer_by_lua_block {\n"
    . "        local s = '}'\n        print('from the include')\n        $set\n    }\n}\n");
(my $conf = serve('')) =~ s/^upstream.*?^}\n/include upstream.conf;\n/ms;
answers('a block in an included file', $conf);
like($nginx->log, qr/balancer_by_lua\(upstream\.conf:3\):3: from the include/,
    'is named by its own file and line');

# nginx -T.
{
    my $long = "\n    -- " . join('', map "line $_ }\n    -- ", 1 .. 600) . "\n$set\n";
    $nginx->conf("include upstream.conf;\n" . serve($long) =~ s/backend/other/gr);
    my $run = $nginx->run('-T');
    is($run->{code}, 0, 'nginx -T reads it');
    for my $name (qw(nginx.conf upstream.conf)) {
        my $file = $nginx->root . "/conf/$name";
        my ($shown) = $run->{out} =~ /^# configuration file \Q$file\E:\n(.*?)\n(?=# configuration|\z)/ms;
        is($shown, slurp($file), "nginx -T shows $name unchanged");
    }
}

# The lines that come after a block are counted on.
for my $lua ("\n-- one\n-- two }\n", ' ', "\n" x 3000, " local s = [[\n}\n]] ") {
    $nginx->conf(serve($lua) . "nonsense on;\n");
    my $run = $nginx->test;
    my $line = $nginx->line('nonsense on;');
    like($run->{out}, qr{unknown directive "nonsense" in \S+/nginx\.conf:$line$}m,
        "the line after a block of @{[$lua =~ tr/\n//]} breaks is line $line");
}

# What is said, and about which line.
sub refuses_at {
    my ($name, $conf, $message, $line, $file) = @_;
    $nginx->conf($conf);
    $line = $nginx->line($line, $file ? "conf/$file" : ()) if defined $line && $line !~ /^\d+$/;
    $file //= 'nginx.conf';
    my $place = defined $line ? qr{ in \S*/\Q$file\E:$line$}m : '';
    refuses($nginx, $name, qr{$message.*$place});
}

refuses_at('an unclosed block', serve(' local t = {{{ '),
    qr/unexpected end of file, expecting "\}" that closes the "balancer_by_lua_block" block of line 7/, 18);
refuses_at('an unclosed string', serve(qq{\n local s = "x\n $set\n}), qr/unfinished string/,
    'local s =');
refuses_at('an unclosed long bracket', serve(qq{\n local s = [[x\n}),
    qr/unexpected end of file, expecting "\}" that closes the "balancer_by_lua_block" block of line 7/);
refuses_at('a second block', <<'EOC', qr/"balancer_by_lua_block" directive is duplicate/, 'BAD');
upstream backend {
    balancer_by_lua_block { local a }
    balancer_by_lua_block { local b } # BAD
}
EOC
refuses_at('a file after a block', <<'EOC', qr/"balancer_by_lua_file" directive is duplicate/, '_file');
upstream backend {
    balancer_by_lua_block { local a }
    balancer_by_lua_file x.lua;
}
EOC
refuses_at('a syntax error', serve("\n\n local x =\n\n if\n $set\n"),
    qr/failed to load "balancer_by_lua_block": balancer_by_lua\(nginx\.conf:7\):5: unexpected symbol near 'if'/,
    ' if');
refuses_at('a syntax error on the first line', serve(' x = = 1 '), qr/\(nginx\.conf:7\):1: unexpected symbol/,
    'x = = 1');
refuses_at('a block outside of an upstream', "balancer_by_lua_block { local a }\n",
    qr/"balancer_by_lua_block" directive is not allowed here/, 'balancer_by_lua_block');
refuses_at('a block in a server', "server { balancer_by_lua_block { local a } }\n",
    qr/"balancer_by_lua_block" directive is not allowed here/, 'balancer_by_lua_block');
refuses_at('an init block in an upstream', "upstream u { init_by_lua_block { local a } }\n",
    qr/"init_by_lua_block" directive is not allowed here/, 'init_by_lua_block');
refuses_at('a semicolon for a block', "upstream u { balancer_by_lua_block; }\n",
    qr/directive "balancer_by_lua_block" has no opening "\{"/, 'balancer_by_lua_block');
refuses_at('an argument', "upstream u { balancer_by_lua_block x { } }\n",
    qr/invalid number of arguments in "balancer_by_lua_block" directive/, 'balancer_by_lua_block');
refuses_at('a block for a file', "upstream u {\n balancer_by_lua_file { }\n}\n",
    qr/"balancer_by_lua_file"/, 'balancer_by_lua_file');

for my $directive (qw(init_by_lua_block init_worker_by_lua_block)) {
    refuses_at("a second $directive", "$directive { a = 1 }\n$directive { a = 2 } # BAD\n",
        qr/"$directive" directive is duplicate/, 'BAD');
    refuses_at("a syntax error in $directive", "$directive {\n a = 1\n b =\n}\n",
        qr/failed to load "$directive": \Q${\($directive =~ s{_block}{}r)}\E\(nginx\.conf:6\):4: /, 9);
}

# The same in an included file.
$nginx->write('conf/bad.conf', "\n\nupstream bad {\n    balancer_by_lua_block {\n        a = b +\n    }\n}\n");
refuses_at('a syntax error in an included file', "include bad.conf;\n", qr/\(bad\.conf:4\):3: /, 6, 'bad.conf');
$nginx->write('conf/bad.conf', "upstream bad {\n    balancer_by_lua_block {\n        a = {}\n");
refuses_at('an unclosed block in an included file', "include bad.conf;\n",
    qr/unexpected end of file, expecting "\}" that closes the "balancer_by_lua_block" block of line 2/, 4,
    'bad.conf');

# Files.
refuses_at('a file that is not there', "upstream u {\n balancer_by_lua_file lua/none.lua;\n}\n",
    qr{cannot open \Q${\$nginx->root}\E/lua/none\.lua: No such file or directory}, 'lua/none.lua');
mkdir $nginx->root . '/lua';
refuses_at('a folder', "upstream u {\n balancer_by_lua_file lua;\n}\n",
    qr{cannot open \Q${\$nginx->root}\E/lua: Is a directory}, 'balancer_by_lua_file');
my $bad = $nginx->write('lua/bad.lua', "local a\nlocal b = = 1\n");
refuses_at('a syntax error in a file', "upstream u {\n balancer_by_lua_file lua/bad.lua;\n}\n",
    qr{failed to load "balancer_by_lua_file": \S*bad\.lua:2: unexpected symbol near '='}, 'lua/bad.lua');
$nginx->write('lua/byte.lua', "\x1bLJ\x02");
refuses_at('bytecode', "upstream u {\n balancer_by_lua_file lua/byte.lua;\n}\n",
    qr{failed to load "balancer_by_lua_file"}, 'lua/byte.lua');

# The command line.
$nginx->conf('');
for my $g ('balancer_by_lua_block { }', 'init_by_lua_block { a = 1 }', 'http { init_by_lua_block { } }',
           'upstream u { balancer_by_lua_block { }') {
    my $run = $nginx->run('-t', '-g', $g);
    is($run->{code}, 1, "-g '$g': refused");
    like($run->{out}, qr/\[emerg\] .* in command line$|block directives are not supported in -g option/m,
        "-g '$g': says so");
}

done_testing();

__DATA__
=== one line
 SET 
=== nested tables
 local t = { { 1 }, { { 2 } } } assert(t[2][1][1] == 2) SET 
=== a brace in double quotes
 local s = "}" assert(#s == 1) SET 
=== a brace in single quotes
 local s = '}{' assert(#s == 2) SET 
=== an escaped quote
 local s = "\"}" assert(#s == 2) SET 
=== an escaped backslash
 local s = '\\' assert(s:byte() == 92 and #s == 1) SET 
=== an escaped line break
 local s = 'a\
}' assert(#s == 3) SET 
=== a line break that is skipped
 local s = 'a\z
    } "' assert(s == 'a} "') SET 
=== quotes in the other quotes
 local s = "'}" .. '"}' assert(#s == 4) SET 
=== a long bracket
 local s = [[ } " ' { -- ]] assert(#s == 12, #s) SET 
=== a long bracket with a level
 local s = [==[ }]]}]=]} ]==] assert(#s == 10, #s) SET 
=== a long bracket that a bracket ends
 local s = [=[}]]=] assert(#s == 2, #s) SET 
=== a line comment

-- } don't { "
SET
=== a line comment at the end

SET -- }

=== a long comment
 --[[ } "
 ' ]] SET 
=== a long comment with a level
 --[=[ }]] " ]=] SET 
=== not quite a long comment
 --[=} [[
SET
=== a semicolon and a dollar
 local s = "$uri;"; assert(#s == 5); SET; 
=== a hash, which nginx takes for a comment
 local t = { 1, 2 } assert(#t == 2) --# }
SET
=== indexing
 local a, b = { 7 }, { 1 } assert(a[b[1]] == 7) SET 
=== a minus
 local n = 3 - -1 assert(n == 4) SET 
=== UTF-8
 local s = "é}" assert(#s == 3) SET 
