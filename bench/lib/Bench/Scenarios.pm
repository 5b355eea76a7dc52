package Bench::Scenarios;
# What is measured: the configurations, the same for all three but for what chooses
# the peer.
use strict;
use warnings;
use Bench::Nginx;

our @VARIANTS = qw(native peer ours);
our %TITLE = (native => 'plain nginx', peer => 'lua-nginx-module', ours => 'this module');

my ($status, $refusing, @three) = Bench::Nginx::free_ports(5);
my $many_port = (Bench::Nginx::free_ports(1))[0];

# A port that is taken and not listened on refuses connections.
my $taken = IO::Socket::INET->new(Proto => 'tcp', LocalAddr => "127.0.0.1:$refusing") or die "port $refusing: $!\n";

my @three_peers = map { ['127.0.0.1', $_] } @three;

sub many { map { ['127.1.' . int($_ / 200) . '.' . ($_ % 200 + 1), $many_port] } 0 .. $_[0] - 1 }

# A block that has lua/peers.lua do NAME.
sub block { "        balancer_by_lua_block { require(\"peers\").$_[0]() }\n" }
sub servers { join '', map { "        server $_->[0]:$_->[1];\n" } @_ }

sub list {
    my ($peers) = @_;
    return join "\n", '        local add = require("peers").add', map { qq(        add("$_->[0]", $_->[1])) } @$peers;
}

# scenario NAME, TITLE, more...: `native` and `lua` are what the upstream{} has; `peers` the list
# that Lua chooses from; `answers` how many peers are to answer, evenly; `lacks` why one of the
# variants cannot take part.
my @all;
sub scenario { my ($name, $title, %more) = @_; push @all, { name => $name, title => $title, answers => 3, %more } }

my $keepalive = "        keepalive 64;\n        keepalive_requests 100000000;\n";
my $old_peer = sub { $_[0] eq 'peer' && $ENV{BENCH_VERSION} =~ /^1\.22\./ && 'has no enable_keepalive()' };

scenario keepalive => 'keepalive, three peers', count => 1, load => 1,
    native => servers(@three_peers) . $keepalive,
    lua => block('choose') . $keepalive, peers => \@three_peers;

scenario enable_keepalive => 'enable_keepalive(), three peers', count => 1, load => 1, lacks => $old_peer,
    native => servers(@three_peers) . $keepalive,
    lua => block('choose_kept') . "        balancer_keepalive 64;\n", peers => \@three_peers;

scenario retry => 'retry: the first peer refuses, the second answers', count => 1, load => 1, answers => 1,
    # nginx logs each refusal.
    log => 'crit',
    native => "        server 127.0.0.1:$refusing max_fails=0;\n        server 127.0.0.1:$three[0] backup;\n" . $keepalive,
    lua => block('retry') . $keepalive, peers => [['127.0.0.1', $refusing], $three_peers[0]];

scenario set_timeouts => 'set_timeouts(), above the same without it', count => 1, above => 'keepalive',
    native => servers(@three_peers) . $keepalive,
    lua => block('choose_timed') . $keepalive, peers => \@three_peers;

for my $version ('1.2', '1.3') {
    scenario 'tls' . $version =~ s/\.//r => "new TLS $version connection each request", load => 1, tls => $version,
        native => servers(@three_peers), lua => block('choose'), peers => \@three_peers;
}

for my $count (1000, 10000) {
    my @peers = many($count);
    my $keepalive = $keepalive =~ s/64/$count/r;
    scenario "peers$count" => "$count peers", load => 1, answers => $count, many => $count,
        # The connections of all three at once are more than one process may have.
        apart => $count > 1000,
        native => servers(@peers) . $keepalive,
        # lua-nginx-module's own pool is not used by nginx since 1.29.7, and not there before
        # 0.10.29: with nginx's it does best.
        peer_lua => block('choose') . $keepalive,
        lua => block('choose_kept') . "        balancer_keepalive $count;\n",
        peers => \@peers;
}

scenario upstreams => '2,000 upstreams with a Lua block each', special => 'upstreams';
scenario idle => 'idle worker', special => 'idle',
    native => servers(@three_peers) . $keepalive, lua => block('choose') . $keepalive, peers => \@three_peers;
scenario reload => 'one SIGHUP a second under load', special => 'reload',
    native => servers(@three_peers) . $keepalive, lua => block('choose') . $keepalive, peers => \@three_peers;
scenario pool => 'pool of idle connections: one take and put', special => 'pool';

sub all { @all }

sub lacks {
    my ($scenario, $variant) = @_;
    return 'not there for this nginx' if $variant eq 'peer' && !$ENV{BENCH_PEER};
    return $scenario->{lacks} ? $scenario->{lacks}->($variant) : undef;
}

# The lines that load the module.
sub modules {
    my ($variant) = @_;
    return {
        native => '',
        peer => "load_module $ENV{BENCH_PEER}/ndk_http_module.so;\nload_module $ENV{BENCH_PEER}/ngx_http_lua_module.so;\n",
        ours => "load_module $ENV{BENCH_MODULE};\n",
    }->{$variant};
}

# What Lua needs in http{}.
sub lua_settings {
    my ($variant, $init) = @_;
    return '' if $variant eq 'native';
    my $path = join ';', "$ENV{BENCH_DIR}/lua/?.lua",
        $variant eq 'peer' && $ENV{BENCH_PEER_LUA} ? "$ENV{BENCH_PEER_LUA}/?.lua" : ();
    my $more = $variant eq 'ours' && $ENV{BENCH_DIRECTIVES} ? "    $ENV{BENCH_DIRECTIVES}\n" : '';
    return "$more    lua_package_path \"$path;;\";\n    init_by_lua_block {\n$init\n    }\n";
}

# The nginx in the middle, which is measured.
sub front {
    my ($scenario, $variant, $header_buffer) = @_;
    my ($port) = Bench::Nginx::free_ports(1);
    my $upstream = $variant eq 'native' ? $scenario->{native}
        : $variant eq 'peer' && $scenario->{peer_lua} ? $scenario->{peer_lua} : $scenario->{lua};
    # lua-nginx-module wants a server line.
    $upstream = "        server 0.0.0.1;\n$upstream" if $variant ne 'native';
    my $tls = $scenario->{tls};
    my $pass = $tls
        ? "proxy_pass https://bench;\n            proxy_ssl_protocols TLSv$tls;"
        : "proxy_pass http://bench;\n            proxy_http_version 1.1;\n            proxy_set_header Connection \"\";";
    $header_buffer //= 1024;
    my $http = lua_settings($variant, list($scenario->{peers})) . <<"HTTP";
    client_header_buffer_size $header_buffer;
    upstream bench {
$upstream    }
    server {
        listen 127.0.0.1:$port;
        location / {
            $pass
        }
    }
HTTP
    my $front = Bench::Nginx->new("$scenario->{name}-$variant", 'front', {
        main => modules($variant),
        http => $http,
        log => $scenario->{log},
        connections => 1024 + ($scenario->{many} // 0),
    });
    $front->{port} = $port;
    return $front;
}

# The peers: one nginx for all of them.
sub back {
    my ($scenario) = @_;
    my $listen = $scenario->{many}
        ? "        listen $many_port backlog=8192;\n"
        : join '', map { "        listen 127.0.0.1:$_" . ($scenario->{tls} ? ' ssl' : '') . " backlog=8192;\n" } @three;
    my $tls = '';
    if ($scenario->{tls}) {
        my $dir = certificate();
        $tls = <<"TLS";
        ssl_certificate $dir/cert.pem;
        ssl_certificate_key $dir/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:bench:10m;
        keepalive_timeout 0;
        add_header X-Reused \$ssl_session_reused;
TLS
    }
    my $back = Bench::Nginx->new("$scenario->{name}-back", 'back', {
        connections => 1024 + ($scenario->{many} // 0) * ($scenario->{apart} ? 1 : @VARIANTS),
        http => <<"HTTP",
    server {
$listen$tls        location / {
            return 200 "\$server_addr:\$server_port\\n";
        }
    }
    server {
        listen 127.0.0.1:$status;
        location / {
            stub_status;
        }
    }
HTTP
    });
    $back->{status} = $status;
    return $back->start;
}

sub certificate {
    my $dir = "$ENV{BENCH_RUN}/certificate";
    return $dir if -e "$dir/cert.pem";
    File::Path::make_path($dir);
    system("openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=bench -keyout $dir/key.pem -out $dir/cert.pem >$dir/log 2>&1") == 0
        or die "openssl made no certificate, see $dir/log\n";
    return $dir;
}

# 2,000 upstream{} blocks, each with code of its own.
sub upstreams {
    my ($variant, $count) = @_;
    my $blocks = '';
    for my $n (1 .. $count) {
        my $inside = $variant eq 'native' ? servers(@three_peers) : "        server 0.0.0.1;\n" . "        balancer_by_lua_block {\n" . <<"LUA" . "        }\n";
            local balancer = require "ngx.balancer"
            local ports = { $three[0], $three[1], $three[2] }
            local key = ngx.var.remote_addr .. "$n"
            local ok, err = balancer.set_current_peer("127.0.0.1", ports[#key % #ports + 1])
            if not ok then
                ngx.log(ngx.ERR, "upstream $n: ", err)
                return ngx.exit(500)
            end
LUA
        $blocks .= "    upstream u$n {\n$inside    }\n";
    }
    my ($port) = Bench::Nginx::free_ports(1);
    return Bench::Nginx->new("upstreams-$variant", 'front', {
        main => modules($variant),
        http => lua_settings($variant, '        local _ = 0') . $blocks . "    server { listen 127.0.0.1:$port; location / { proxy_pass http://u1; } }\n",
    });
}

1;
