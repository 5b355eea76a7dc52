# Log injection: a text from a client that Lua logs, or fails with, makes no entry of its own in the
# error log, and nothing that a terminal would obey.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;

my $nginx = Nginx->new(level => 'info');
$nginx->conf(<<"EOC")->start;
init_by_lua_block {
    function decoded(text)
        return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
    end
}
upstream backend {
    balancer_by_lua_block {
        local text = decoded(ngx.var.arg_text)
        local how = decoded(ngx.var.arg_how)
        if how == "log" then
            ngx.log(ngx.WARN, "text: ", text, " end")
        elseif how == "print" then
            print("text: ", text, " end")
        elseif how == "object" then
            ngx.log(ngx.WARN, setmetatable({}, { __tostring = function() return text end }))
        elseif how == "error" then
            error("text: " .. text)
        elseif how == "bare error" then
            error(text, 0)
        elseif how == "argument" then
            ngx.log(ngx.WARN, select(2, require("ngx.balancer").set_current_peer("127.0.0.1", text)))
            ngx.log(ngx.WARN, select(2, require("ngx.balancer").bind_to_local_addr(text)))
        elseif how == "global" then
            _G[text] = 1
        elseif how == "variable" then
            ngx.log(ngx.WARN, select(2, pcall(function() ngx.var[text] = "x" end)))
        end
        return ngx.exit(503)
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    location / { proxy_pass http://backend; }
}
EOC

my $entry = '2026/01/01 00:00:00 [alert] 1#1: *1 forged';
my %texts = (
    'an entry on a line of its own' => "a\n$entry",
    'with CRLF' => "a\r\n$entry",
    'with a CR' => "a\r$entry",
    'after an empty line' => "a\n\n$entry\n",
    'a line break in front' => "\n$entry",
    'a NUL' => "a\0$entry",
    'an escape sequence' => "a\e[2J\e]0;title\a$entry",
    'backspaces' => "a\x08\x08\x7f$entry",
);

sub encode { $_[0] =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger }

my $asked = 0;
for my $name (sort keys %texts) {
    for my $how (qw(log print object error argument global variable), 'bare error') {
        my $before = length $nginx->log;
        my $answer = $nginx->get('/?how=' . encode($how) . '&text=' . encode($texts{$name}), port(0));
        $asked++ if $answer->{status};
        my $log = substr $nginx->log, $before;
        my $what = "$how, $name";
        # Each line that begins like an entry ends like one of nginx's own, or begins with its place.
        my @forged = grep /^2026\/01\/01 00:00:00/, split /\n/, $log;
        is(join('|', @forged), '', "$what: no entry of its own");
        unlike($log, qr/[\0-\x08\x0b-\x1f\x7f]/, "$what: no control characters");
    }
}
is($asked, 8 * keys %texts, 'all were answered');

# What is one entry of several lines stays readable.
my $before = length $nginx->log;
$nginx->get('/?how=log&text=' . encode("one\ntwo\n\tthree"), port(0));
like(substr($nginx->log, $before), qr/text: one\ntwo\n\tthree end/, 'other lines stay as they are');
$before = length $nginx->log;
$nginx->get('/?how=log&text=' . encode("a\r\n$entry"), port(0));
like(substr($nginx->log, $before), qr/text: a\\x0D\n\t\Q$entry\E end/, 'what looks like an entry is indented');

$nginx->stop;
done_testing();
