# Lua files that nginx may not read: what is said, and that the worker goes on. Root may read all, so nginx is
# nobody's here when the tests are root's.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use POSIX ();
use Test::More;
use Verdict;

my $nginx = Nginx->new($> == 0 ? (user => 65534) : ());
my $root = $nginx->root;

# Takes away what may be read, and gives it back.
sub hide { chmod 0, "$root/$_[0]" or die "$_[0]: $!" }
sub show { chmod(-d "$root/$_[0]" ? 0755 : 0644, "$root/$_[0]") or die "$_[0]: $!" }

$nginx->write('lua/balance.lua', "require('ngx.balancer').set_current_peer('127.0.0.1', ${\port(1)})\n");
$nginx->write('lua/part.lua', "return { port = ${\port(1)} }\n");
hide('lua/part.lua');

# Whether the user gets as far as to these files.
{
    my ($module) = split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $nginx->become;
        POSIX::_exit(!-x $ENV{TEST_NGINX_BINARY} || !-r $module || !-w "$root/logs" ? 1 : slurp("$root/lua/part.lua") ? 2 : 0);
    }
    waitpid $pid, 0;
    my $code = $? >> 8;
    plan skip_all => "user 65534 cannot come to nginx, to the module or to $root" if $code == 1;
    plan skip_all => 'this user may read what nobody may' if $code == 2;
}

# Directives.
hide('lua/balance.lua');
my $denied = qr{cannot open \Q$root\E/lua/balance\.lua: Permission denied};
for my $directive (qw(init_by_lua_file init_worker_by_lua_file)) {
    $nginx->conf("$directive lua/balance.lua;\n");
    refuses($nginx, $directive, qr{failed to load "$directive": $denied.* in \S+/nginx\.conf:6$}m);
}
$nginx->conf("upstream backend {\nbalancer_by_lua_file lua/balance.lua;\n}\n");
refuses($nginx, 'balancer_by_lua_file', qr{failed to load "balancer_by_lua_file": $denied.* in \S+/nginx\.conf:7$}m);
show('lua/balance.lua');
accepts($nginx, 'balancer_by_lua_file that may be read');
hide('lua');
refuses($nginx, 'a folder that may not be entered', $denied);
show('lua');

# A module: Lua takes what it cannot read for what is not there.
my $path = qq{lua_package_path "$root/lua/?.lua";\n};
$nginx->conf($path . "init_by_lua_block { require 'part' }\n");
my $run = refuses($nginx, 'a module', qr{init_by_lua error: init_by_lua\(nginx\.conf:7\):1: module 'part' not found:});
like($run->{out}, qr{^\tno file '\Q$root\E/lua/part\.lua'$}m, 'a module: with its name');

# What can be read when nginx starts, and no more when a request comes.
for my $cache ('on', 'off') {
    $nginx->conf($path . <<"EOC");
lua_code_cache $cache;
upstream file { balancer_by_lua_file lua/balance.lua; }
upstream module {
    balancer_by_lua_block { require("ngx.balancer").set_current_peer("127.0.0.1", require("part").port) }
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Worker \$pid always;
    location /file { proxy_pass http://file; }
    location /module { proxy_pass http://module; }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
    $nginx->start;
    my ($worker) = $nginx->workers;
    my $answers = sub { my $answer = $nginx->get($_[0], port(0)); "$answer->{status} $answer->{worker}" };

    is($answers->('/module'), "500 $worker", "$cache: a module");
    like($nginx->log, qr{failed to run balancer_by_lua\*: .*module 'part' not found:(?:\n\t.*)*\n\tno file '\Q$root\E/lua/part\.lua'},
        "$cache: a module: is told");
    show('lua/part.lua');
    is($answers->('/module'), "200 $worker", "$cache: a module that may be read now");

    is($answers->('/file'), "200 $worker", "$cache: a file");
    hide('lua/balance.lua');
    if ($cache eq 'on') {
        is($answers->('/file'), "200 $worker", 'on: a file that was read is not read again');
        $nginx->reload;
        ok(poll { $nginx->log =~ /\[emerg\] .*$denied/ }, 'on: a reload that would have to says so');
    } else {
        is($answers->('/file'), "500 $worker", 'off: a file that is read for each request');
        like($nginx->log, qr/failed to load balancer_by_lua\*: $denied/, 'off: is told');
        show('lua/balance.lua');
    }
    is($answers->('/file'), "200 $worker", "$cache: the same worker goes on");
    show('lua/balance.lua');
    hide('lua/part.lua');
    unlike($nginx->log, qr/exited on signal|\[alert\] .*exited|internal error/, "$cache: nothing worse");
    $nginx->stop;
}

done_testing();
