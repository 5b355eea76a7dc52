# A LuaJIT that is linked in. Wants a module with the feature vendored: make test-vendored.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;
use Verdict;

my ($module) = split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
my $needed = join '', grep /NEEDED/, `readelf -d '$module'`;
plan skip_all => 'the module uses the LuaJIT of the system: make test-vendored' if $needed =~ /luajit/;
like($needed, qr/libc\.so/, 'the module needs other libraries');

my $nginx = Nginx->new;
$nginx->write('lua/file.lua', "return { port = ${\port(1)} }\n");
$nginx->conf(<<"EOC");
lua_package_path "\$prefix/lua/?.lua;;";
lua_memory_limit 16m;
balancer_by_lua_timeout 1s;
init_by_lua_block { peer = require "file" }
upstream backend {
    balancer_by_lua_block {
        -- Compiled, and with the API in the trace.
        for _ = 1, 1000 do require("ngx.balancer").set_current_peer("127.0.0.1", peer.port) end
        ngx.var.version = jit.version
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    set \$version "";
    add_header X-Version \$version;
    location / { proxy_pass http://backend; }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
$nginx->start;
my ($worker) = $nginx->workers;
unlike(slurp("/proc/$worker/maps"), qr/libluajit/, 'and no other LuaJIT is there');
for (1 .. 3) {
    my $answer = $nginx->get('/', port(0));
    is($answer->{body}, 'peer one', 'it serves');
    like($answer->{head}, qr/^X-Version: LuaJIT 2\.1/m, 'by LuaJIT');
}
unlike($nginx->log, qr/\[error\]|\[alert\]|\[emerg\]/, 'nothing is wrong');
$nginx->stop;

# A module of Lua that is written in C finds no lua_* functions, and says so.
SKIP: {
    my ($cjson) = glob '{/usr/lib/*,/usr/local/lib}/lua/5.1/cjson.so';
    skip 'no cjson.so on this machine', 3 if !$cjson;
    $nginx->conf('lua_package_cpath "' . ($cjson =~ s/cjson\.so$/?.so/r) . qq{";\ninit_by_lua_block { require "cjson" }\n});
    refuses($nginx, 'a module in C', qr/init_by_lua error: error loading module 'cjson' from file '\Q$cjson\E':\n\t.*undefined symbol: lua/);
}

done_testing();
