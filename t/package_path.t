# lua_package_path and lua_package_cpath: where `require` looks.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;
use Verdict;

my $nginx = Nginx->new;
my $root = $nginx->root;

$nginx->write('lua/part.lua', 'return "lua/part"');
$nginx->write('lua/pack/init.lua', 'return "lua/pack/init"');
$nginx->write('other/part.lua', 'return "other/part"');
$nginx->write('other/more.lua', 'return "other/more"');

# What `package.path` and `package.cpath` are without any directive.
my ($path, $cpath) = do {
    my $run = run_init('', 'print(package.path, " ", package.cpath)');
    $run->{out} =~ /\[lua\] \S+ (\S+) (\S+)$/m or die $run->{out};
    ($1, $2);
};

sub run_init {
    my ($directives, $lua) = @_;
    $nginx->conf("${directives}init_by_lua_block {\n$lua\n}\n");
    return $nginx->test;
}

sub init_says {
    my ($name, $directives, $lua, $expected) = @_;
    my $run = run_init($directives, $lua);
    my ($said) = $run->{out} =~ /\[lua\] \S+ (.*)$/m;
    is($said, $expected, $name) or diag($run->{out});
}

like($path, qr{^\./\?\.lua;}, "Lua's own path is there without the directive");

init_says('the path is what is given', "lua_package_path '$root/lua/?.lua';\n", 'print(package.path)', "$root/lua/?.lua");
init_says('$prefix', qq{lua_package_path "\$prefix/lua/?.lua";\n}, 'print(package.path)', "$root/lua/?.lua");
init_says('${prefix}', qq{lua_package_path "\${prefix}/lua/?.lua;\$prefix/other/?.lua";\n}, 'print(package.path)',
    "$root/lua/?.lua;$root/other/?.lua");
init_says(';; at the end', qq{lua_package_path "/a/?.lua;;";\n}, 'print(package.path)', "/a/?.lua;$path");
init_says(';; in front', qq{lua_package_path ";;/a/?.lua";\n}, 'print(package.path)', "$path;/a/?.lua");
init_says(';; in the middle', qq{lua_package_path "/a/?.lua;;/b/?.lua";\n}, 'print(package.path)',
    "/a/?.lua;$path;/b/?.lua");
init_says(';; alone', qq{lua_package_path ";;";\n}, 'print(package.path)', $path);
init_says('the cpath', qq{lua_package_cpath "\$prefix/c/?.so;;";\n}, 'print(package.cpath)', "$root/c/?.so;$cpath");
init_says('one leaves the other alone', qq{lua_package_cpath "/c/?.so";\n}, 'print(package.path)', $path);

init_says('a module is found', qq{lua_package_path "\$prefix/lua/?.lua";\n}, 'print(require "part")', 'lua/part');
init_says('the first place wins', qq{lua_package_path "\$prefix/other/?.lua;\$prefix/lua/?.lua";\n},
    'print(require "part")', 'other/part');
init_says('the second place is looked at', qq{lua_package_path "\$prefix/lua/?.lua;\$prefix/other/?.lua";\n},
    'print(require "more")', 'other/more');
init_says('a folder', qq{lua_package_path "\$prefix/lua/?/init.lua;;";\n}, 'print(require "pack")', 'lua/pack/init');
init_says('the directive may come after the block',
    qq{init_worker_by_lua_block { }\n}, 'print(package.path)', $path);

# A C module of the system.
init_says('a C module', '', 'local cjson = require "cjson" print(cjson.encode { a = { 1, 2 } })', '{"a":[1,2]}');

# What is part of the module needs no path, and no path can replace it.
$nginx->write('lua/ngx/balancer.lua', 'return "not the real one"');
init_says('ngx.balancer is part of the module', qq{lua_package_path "\$prefix/lua/?.lua";\n},
    'print(type(require("ngx.balancer").set_current_peer))', 'function');

for my $directive (qw(lua_package_path lua_package_cpath)) {
    $nginx->conf("$directive /a;\n$directive /b;\n");
    refuses($nginx, "a second $directive", qr{"$directive" directive is duplicate in \S+/nginx\.conf:7$}m);
    $nginx->conf("$directive;\n");
    refuses($nginx, "$directive without a value",
        qr{invalid number of arguments in "$directive" directive in \S+/nginx\.conf:6$}m);
    $nginx->conf("server { $directive /a; }\n");
    refuses($nginx, "$directive in a server", qr{"$directive" directive is not allowed here});
}

# All that runs has the path: the workers, and the requests.
$nginx->conf(<<"EOC");
init_worker_by_lua_block { print("worker: ", require "more") }
upstream backend {
    balancer_by_lua_block {
        ngx.var.part = require "part"
        require("ngx.balancer").set_current_peer("127.0.0.1", ${\port(1)})
    }
}
lua_package_path "\$prefix/lua/?.lua;\$prefix/other/?.lua";
server {
    listen 127.0.0.1:${\port(0)};
    set \$part "";
    add_header X-Part \$part;
    location / { proxy_pass http://backend; }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
$nginx->start;
like($nginx->get('/', port(0))->{head}, qr{^X-Part: lua/part\r?$}m, 'a request requires by the path');
ok(poll { $nginx->log =~ m{worker: other/more} }, 'init_worker too');
$nginx->stop;

done_testing();
