# Every C function that the Lua half declares is there, for us and for code that declares it
# itself: a function that only ffi.C names is dropped by the linker unless something keeps it.

use strict;
use warnings;

use lib 't/lib';
use File::Find;
use Nginx;
use Test::More;
use Verdict;

my %declared;
find({ no_chdir => 1, wanted => sub {
    return if !/\.lua$/;
    my $text = slurp($_);
    while ($text =~ /ffi\.cdef\s*\[(=*)\[(.*?)\]\1\]/gs) {
        my $declarations = $2;
        push @{ $declared{$1} }, $File::Find::name while $declarations =~ /\b(ngx_http_lua_\w+)\s*(?:\(|;)/g;
    }
} }, 'lua');
delete @declared{grep /_t$/, keys %declared};

cmp_ok(scalar(keys %declared), '>=', 15, 'the Lua half declares functions');
ok($declared{ngx_http_lua_ffi_balancer_set_current_peer}, 'set_current_peer among them');

# Nothing is declared here: ffi.C raises "missing declaration" for a name that no file has
# declared, "undefined symbol" for one that nobody exports.
my $names = join ', ', map qq{"$_"}, sort keys %declared;
my $nginx = Nginx->new;
$nginx->conf(<<"EOC");
init_by_lua_block {
    local ffi = require "ffi"
    for _, name in ipairs { $names } do
        pcall(ffi.cdef, "int " .. name .. "(void);")
        local ok, err = pcall(function() return ffi.C[name] end)
        print("symbol ", name, " ", ok and "is there" or err)
    end
}
EOC
my $run = accepts($nginx, 'init runs');
for my $name (sort keys %declared) {
    like($run->{out}, qr/symbol \Q$name\E is there$/m, "$name, which $declared{$name}[0] declares");
}

# The hooks have their undecorated names for a debugger, nginx finds the module by three more, and
# nothing else is shown: a name that another module has as well would be taken for ours, or ours for it.
my @hooks = qw(
    ngx_modules ngx_module_names ngx_module_order ngx_http_lua_balancer_module
    ngx_http_lua_balancer_preconfiguration ngx_http_lua_balancer_postconfiguration
    ngx_http_lua_balancer_create_main_conf ngx_http_lua_balancer_init_main_conf
    ngx_http_lua_balancer_create_srv_conf ngx_http_lua_balancer_create_loc_conf ngx_http_lua_balancer_merge_loc_conf
    ngx_http_lua_balancer_init_process ngx_http_lua_balancer_init_upstream
    ngx_http_lua_balancer_init_peer ngx_http_lua_balancer_init_outer_peer
    ngx_http_lua_balancer_get_peer ngx_http_lua_balancer_free_peer ngx_http_lua_balancer_notify_peer
    ngx_http_lua_balancer_set_session ngx_http_lua_balancer_save_session ngx_http_lua_balancer_note
);
my ($module) = split ' ', $ENV{TEST_NGINX_LOAD_MODULES};
my %shown = map { (split)[-1] => 1 } split /\n/, `nm -D --defined-only '$module'`;
my %wanted = map { $_ => 1 } @hooks, keys %declared;
is(join(' ', sort grep !$shown{$_}, keys %wanted), '', 'every hook and function is exported');
is(join(' ', sort grep !$wanted{$_}, keys %shown), '', 'and nothing else is');

done_testing();
