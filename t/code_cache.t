# lua_code_cache: compiled once and kept, or everything afresh for each request.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;
use Verdict;

my $nginx = Nginx->new;

sub balance {
    my ($text) = @_;
    $nginx->write('lua/balance.lua', <<"EOC");
loads = (loads or 0) + 1
ngx.var.said = "$text " .. require("part") .. " " .. loads .. " " .. (from_init or "no init")
    .. " " .. tostring(ngx.ctx.left)
ngx.ctx.left = (ngx.ctx.left or 0) + 1
local ports = { ${\port(9)}, ${\port(1)} }
require("ngx.balancer").set_current_peer("127.0.0.1", ports[ngx.ctx.left])
EOC
}

sub part { $nginx->write('lua/part.lua', qq{return "$_[0]"}) }

# Two tries a request: the first goes to where nobody listens.
sub conf {
    my ($cache) = @_;
    $nginx->conf(<<"EOC");
lua_package_path "\$prefix/lua/?.lua;;";
$cache
init_by_lua_file lua/init.lua;
upstream backend {
    server 0.0.0.1;
    server 0.0.0.1;
    balancer_by_lua_file lua/balance.lua;
}
upstream where {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local place = debug.getinfo(balancer.set_current_peer, "S")
        local _, err = pcall(balancer.set_timeouts, -1)
        ngx.var.said = place.source .. " " .. place.linedefined .. " " .. err
        balancer.set_current_peer("127.0.0.1", ${\port(1)})
    }
}
upstream inline {
    balancer_by_lua_block {
        runs = (runs or 0) + 1
        ngx.var.said = "inline " .. runs
        require("ngx.balancer").set_current_peer("127.0.0.1", ${\port(1)})
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    set \$said "";
    add_header X-Said \$said always;
    location / { proxy_pass http://backend; }
    location /inline { proxy_pass http://inline; }
    location /where { proxy_pass http://where; }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
}

sub says {
    my ($name, $expected, $path) = @_;
    my $answer = $nginx->get($path // '/', port(0));
    my ($said) = $answer->{head} =~ /^X-Said: (.*?)\r?$/m;
    is($said, $expected, $name) or diag($nginx->log);
    is($answer->{body}, 'peer one', "$name: and the peer answers");
}

sub begin {
    my ($cache) = @_;
    balance('first');
    part('part1');
    $nginx->write('lua/init.lua', 'from_init = "init1"');
    conf($cache);
    $nginx->start;
}

for my $cache ('', 'lua_code_cache on;') {
    begin($cache);
    my $name = $cache || 'by default';
    says("$name: the first request", 'first part1 2 init1 1');
    balance('second');
    part('part2');
    $nginx->write('lua/init.lua', 'from_init = "init2"');
    says("$name: files are not read again, globals stay", 'first part1 4 init1 1');
    says("$name: inline code", 'inline 1', '/inline');
    says("$name: inline code again", 'inline 2', '/inline');
    unlike($nginx->said, qr/lua_code_cache is off/, "$name: no alert");
    $nginx->stop;
}

begin('lua_code_cache off;');
like($nginx->said, qr{\[alert\] .*lua_code_cache is off; this will hurt performance in \S+/nginx\.conf:7}, 'off: an alert says so');
# The API is compiled for the first VMs of a process, and kept as bytecode for those after them.
my ($place) = $nginx->get('/where', port(0))->{head} =~ /^X-Said: (.*?)\r?$/m;
like($place, qr/^=ngx\.balancer \d+ bad connect timeout$/, 'off: the API has its names and lines');
says('off: in each VM', $place, '/where') for 1 .. 3;

says('off: the first request; its tries share a VM', 'first part1 2 init1 1');
says('off: the second request has a VM of its own', 'first part1 2 init1 1');
balance('second');
says('off: the file is read again', 'second part1 2 init1 1');
part('part2');
says('off: and what it requires', 'second part2 2 init1 1');
says('off: inline code', 'inline 1', '/inline');
says('off: inline code again', 'inline 1', '/inline');
$nginx->write('lua/init.lua', 'from_init = "init2"');
says('off: a fresh VM has run init, from the file as it is now', 'second part2 2 init2 1');

# A file that is broken or gone is an error of the request.
$nginx->write('lua/balance.lua', "local a =\n= 1\n");
is($nginx->get('/', port(0))->{status}, 500, 'off: a syntax error answers 500');
like($nginx->log, qr{\[error\] .*failed to load balancer_by_lua\*: \S+/balance\.lua:2: unexpected symbol near '='}, 'and is logged');
unlink $nginx->root . '/lua/balance.lua';
is($nginx->get('/', port(0))->{status}, 500, 'off: a missing file answers 500');
like($nginx->log, qr{failed to load balancer_by_lua\*: cannot open \S+/lua/balance\.lua: No such file}, 'and is logged');
balance('third');
says('off: all is well again', 'third part2 2 init2 1');
$nginx->write('lua/part.lua', 'error("part broke")');
is($nginx->get('/', port(0))->{status}, 500, 'off: an error answers 500');
like($nginx->log, qr{failed to run balancer_by_lua\*: .*part\.lua:1: part broke}, 'and is logged');

# Many requests, each with its own VM, at the same time and one after the other.
part('part3');
$nginx->get('/inline', port(0)) for 1 .. 100;
says('off: after 100 requests', 'inline 1', '/inline');
unlike($nginx->log, qr/exited on signal|internal error/, 'off: no worker died');
$nginx->stop;

for my $case (
    ['lua_code_cache maybe;', qr/invalid value "maybe" in "lua_code_cache" directive, it must be "on" or "off"/],
    ["lua_code_cache on;\nlua_code_cache off;", qr/"lua_code_cache" directive is duplicate/],
) {
    conf($case->[0]);
    my $line = 7 + ($case->[0] =~ tr/\n//);
    refuses($nginx, $case->[0], qr{$case->[1] in \S+/nginx\.conf:$line$}m);
}

done_testing();
