# The TLS of a try, told by Lua: the name, verification, a certificate, authorities. What the peer
# sees of them, and that they tell connections and sessions apart.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Pools ();
use Test::More;
use TlsPeer;

my $nginx = Nginx->new(level => 'debug');
my $root = $nginx->root;
my $tls = "$root/tls";

my $ca = Certificates->new($tls);
my $other = Certificates->new($tls, 'other');
my $middle = $ca->intermediate('middle');
$ca->issue('server', names => [qw(a.example b.example)]);
$middle->issue('deep', names => ['a.example']);
$middle->issue('chained');
$ca->issue($_) for qw(one two three);
$ca->openssl(qw(pkcs8 -topk8 -passout pass:secret -in), "$tls/one.key", '-out', "$tls/locked.key");
$ca->openssl(qw(genrsa -out), "$tls/rsa.key", 2048);

my @kinds = sort keys %kinds;
my %port = map { $kinds[$_] => port(1 + $_) } 0 .. $#kinds;
my ($deep, $kept, $nobody) = map port($_), 5 .. 7;

my $peer = TlsPeer->new(tls => $tls);
$peer->conf(map($peer->server($_ => $port{$_}), @kinds), $peer->server('TLS 1.3' => $deep, certificate => 'deep'),
    $peer->server('TLS 1.2, tickets' => $kept, keepalive => 1))->start;

# Lua code that has every PEM by its name, and does what the request's arguments say.
my $init = <<"EOC";
init_by_lua_block {
    pem = {}
    for _, name in ipairs { "ca.crt", "other.crt", "one.crt", "one.key", "two.crt", "two.key", "three.crt", "three.key",
                            "chained.crt", "chained.key", "locked.key", "rsa.key" } do
        local file = assert(io.open("$tls/" .. name))
        pem[name] = file:read("*a")
        file:close()
    end
    pem["both.crt"] = pem["other.crt"] .. pem["ca.crt"]
    pem.empty, pem.text, pem.broken = "", "no PEM at all", (pem["one.crt"]:gsub("MII", "XXX"))
    pem.half = pem["one.crt"]:sub(1, 200)
    pem.chain = pem["one.crt"] .. pem.half
    pem["half.key"] = pem["one.key"]:sub(1, 60)
    pem.binary = string.rep("\\0\\1\\255", 100)
}
EOC

my $lua = <<'EOC';
        local arg = setmetatable({}, { __index = function (_, name) return ngx.var["arg_" .. name] end })
        assert(balancer.set_current_peer("127.0.0.1", tonumber(arg.port), arg.host))
        if arg.tls then assert(balancer.set_upstream_tls(true)) end
        if arg.verify then assert(balancer.set_ssl_verify(arg.verify == "on", tonumber(arg.depth))) end
        if arg.cert then assert(balancer.set_ssl_cert(pem[arg.cert .. ".crt"], pem[arg.cert .. ".key"])) end
        if arg.trusted then assert(balancer.set_ssl_trusted(pem[arg.trusted .. ".crt"])) end
        keep()
EOC

sub conf {
    my ($locations, %more) = @_;
    return $nginx->conf($init . Pools::upstream(Pools::way($nginx, $more{way} // 'nothing'), backend => $more{lua} // $lua) . <<"EOC");
proxy_ssl_protocols TLSv1.2 TLSv1.3;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_server_name on;
    add_header X-Reused \$balancer_ssl_session_reused always;
    add_header X-Seen \$seen always;
    set \$seen "";
    $locations
}
EOC
}

my $plain = 'location / { proxy_pass https://backend; }';

# Requests with the names of their identities (undef: it fails, and must), and what the peer saw.
my @themes = (
    {
        name => 'host',
        locations => $plain,
        requests => [map ["/?host=$_.example" => $_], qw(a b a b)],
        saw => [sni => { a => 'a.example', b => 'b.example' }],
    },
    {
        name => 'set_ssl_cert',
        locations => $plain,
        requests => [map [($_ eq 'none' ? '/?' : "/?cert=$_") => $_], qw(one two none one two none)],
        saw => [client => { one => 'CN=one', two => 'CN=two', none => '' }],
        verified => { one => 'SUCCESS', two => 'SUCCESS', none => 'NONE' },
    },
    {
        name => 'set_ssl_cert with a chain',
        locations => $plain,
        requests => [map ["/?cert=$_" => $_], qw(chained one chained)],
        saw => [client => { one => 'CN=one', chained => 'CN=chained' }],
        verified => { one => 'SUCCESS', chained => 'SUCCESS' },
    },
    {
        name => "set_ssl_cert instead of the location's",
        locations => "location / { proxy_ssl_certificate $tls/three.crt; proxy_ssl_certificate_key $tls/three.key; proxy_pass https://backend; }",
        requests => [map [($_ eq 'three' ? '/?' : "/?cert=$_") => $_], qw(three one three two one)],
        saw => [client => { map { $_ => "CN=$_" } qw(one two three) }],
    },
    {
        name => 'set_ssl_cert instead of one from variables',
        locations => "location / { proxy_ssl_certificate $tls/\$arg_file.crt; proxy_ssl_certificate_key $tls/\$arg_file.key; proxy_pass https://backend; }",
        requests => [map [($_ eq 'three' ? '/?file=three' : "/?file=three&cert=$_") => $_], qw(three one three two one)],
        saw => [client => { map { $_ => "CN=$_" } qw(one two three) }],
    },
    {
        name => 'set_ssl_verify(true) with set_ssl_trusted',
        locations => $plain,
        requests => [['/?host=a.example' => 'off'], ['/?host=a.example&verify=on&trusted=ca' => 'on'],
            ['/?host=a.example&verify=on&trusted=other' => undef], ['/?host=a.example&verify=on' => undef],
            ['/?host=a.example&verify=on&trusted=ca' => 'on'], ['/?host=a.example' => 'off'],
            ['/?host=wrong.example&verify=on&trusted=ca' => undef], ['/?host=a.example&verify=on&trusted=both' => 'both']],
    },
    {
        name => "set_ssl_verify(true) with the location's authorities",
        locations => "proxy_ssl_trusted_certificate $tls/ca.crt; location / { proxy_ssl_verify on; proxy_pass https://backend; }",
        requests => [['/?host=a.example&verify=on' => 'on'], ['/?host=a.example' => 'on'], ['/?host=a.example&verify=off' => 'off'],
            ['/?host=wrong.example&verify=off' => 'wrong'], ['/?host=wrong.example' => undef], ['/?host=a.example&verify=off' => 'off']],
    },
    {
        name => 'set_ssl_trusted where the location verifies',
        locations => "location / { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/other.crt; proxy_pass https://backend; }",
        requests => [['/?host=a.example' => undef], ['/?host=a.example&trusted=ca' => 'ca'], ['/?host=a.example&trusted=both' => 'both'],
            ['/?host=a.example&trusted=other' => undef], ['/?host=a.example&trusted=ca' => 'ca'], ['/?host=a.example' => undef]],
    },
    {
        name => 'set_upstream_tls where the location has none',
        locations => "location / { proxy_pass http://backend; proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/ca.crt; }",
        requests => [['/?tls=1&host=a.example' => 'a'], ['/?tls=1&host=b.example&cert=one' => 'b'], ['/?tls=1&host=a.example' => 'a'],
            ['/?tls=1&host=a.example&trusted=other' => undef], ['/?tls=1&host=b.example&cert=one' => 'b']],
        saw => [client => { a => '', b => 'CN=one' }],
    },
    {
        name => 'depth',
        to => $deep,
        locations => $plain,
        requests => [map ["/?host=a.example&verify=on&trusted=ca&depth=$_" => $_ || undef], qw(1 0 2 0 1 2)],
    },
);

for my $theme (@themes) {
    conf($theme->{locations})->start;
    for my $kind ($theme->{to} ? 'TLS 1.3' : @kinds) {
        my $port = $theme->{to} // $port{$kind};
        my @requests = @{$theme->{requests}};
        my @names = map $_->[1] // '502', @requests;
        my @answers = shaken($nginx, map "$_->[0]&port=$port", @requests);
        my %seen;
        is(handshakes(@answers), join(' ', map $_ eq '502' ? $_ : $seen{$_}++ ? 'r' : '.', @names), "$theme->{name}; $kind: sessions");
        my @seen = ($theme->{saw} // (), $theme->{verified} ? [verify => $theme->{verified}] : ());
        for (@seen) {
            my ($what, $of) = @$_;
            is(said($what, @answers), join(' ', map $_ eq '502' ? $_ : $of->{$_}, @names), "$theme->{name}; $kind: $what");
        }
    }
    $nginx->stop;
    odd($theme->{name});
}

# Nothing but what must fail may be in the log.
sub odd {
    my ($name) = @_;
    my @odd = grep /exited on signal|\[(?:alert|emerg|crit)\]|internal error|failed to run|refused by OpenSSL/, split /^/, $nginx->log;
    is(join('', @odd), '', "$name: nothing odd in the log");
}

# Connections that are kept: the peer keeps them, and each setting has its own.
my @identities = (
    ['', 'verify=on&trusted=ca', 'verify=on&trusted=both', 'verify=off', 'verify=on&trusted=ca&depth=3', 'trusted=ca'],
    ['', 'cert=one', 'cert=two', 'cert=one&trusted=ca'],
);
for my $way (Pools::ways($nginx)) {
    for my $identities (@identities) {
        conf($plain, way => $way->{name})->start;
        my @order = (@$identities, @$identities, reverse @$identities);
        my @answers = Pools::carried($nginx, map "/?host=a.example&port=$kept&$_", @order);
        my $name = "$way->{name}: connections of @{[join ', ', map $_ || 'nothing', @$identities]}";
        is(Pools::on(@answers), Pools::kept($way->{keeps}, @order), $name);
        is(Pools::seen('client', @answers), join(' ', map /cert=(\w+)/ ? "CN=$1" : '', @order), "$name: of the right certificate");
        $nginx->stop;
        odd($name);
    }
}

# Without sessions the settings of a try count as well.
{
    conf("location / { proxy_ssl_session_reuse off; proxy_pass https://backend; }")->start;
    for my $kind (@kinds) {
        my @answers = shaken($nginx, map "/?port=$port{$kind}&host=a.example&$_", 'cert=one', 'cert=two', '', 'cert=one', 'verify=on&trusted=ca', 'verify=on&trusted=other', 'cert=one&verify=on&trusted=both');
        is(handshakes(@answers), '. . . . . 502 .', "proxy_ssl_session_reuse off; $kind: no session is resumed");
        is(said('client', @answers), 'CN=one CN=two  CN=one  502 CN=one', "proxy_ssl_session_reuse off; $kind: the settings of the try are there");
    }
    $nginx->stop;
    odd('proxy_ssl_session_reuse off');
}

# A setting holds for its try only.
{
    conf('location / { proxy_pass https://backend; proxy_connect_timeout 5s; }', lua => <<"EOC")->start;
        local try = (ngx.ctx.try or 0) + 1
        ngx.ctx.try = try
        if try == 1 then
            assert(balancer.set_more_tries(1))
            assert(balancer.set_current_peer("127.0.0.1", $nobody, "b.example"))
            assert(balancer.set_ssl_cert(pem["one.crt"], pem["one.key"]))
            assert(balancer.set_ssl_verify(true))
            assert(balancer.set_ssl_trusted(pem["other.crt"]))
        else
            assert(balancer.set_current_peer("127.0.0.1", $port{'TLS 1.3'}, "a.example"))
        end
EOC
    my @answers = shaken($nginx, '/', '/');
    is(said('client', @answers), ' ', 'a certificate is for one try');
    is(said('sni', @answers), 'a.example a.example', 'and so is a name');
    is(handshakes(@answers), '. r', 'and the sessions are those of the try');
    $nginx->stop;
    odd('one try');
}

# PEM that is none, and arguments of other types: what Lua gets.
my @bad = (
    ['set_ssl_cert(pem.empty, pem["one.key"])', 'nil no certificate in the PEM'],
    ['set_ssl_cert(pem.text, pem["one.key"])', 'nil no certificate in the PEM'],
    ['set_ssl_cert(pem.broken, pem["one.key"])', 'nil a certificate in the PEM is damaged'],
    ['set_ssl_cert(pem.half, pem["one.key"])', 'nil a certificate in the PEM is damaged'],
    ['set_ssl_cert(pem.binary, pem["one.key"])', 'nil no certificate in the PEM'],
    ['set_ssl_cert(pem["one.key"], pem["one.key"])', 'nil no certificate in the PEM'],
    ['set_ssl_cert(pem["one.crt"], pem.empty)', 'nil no private key in the PEM'],
    ['set_ssl_cert(pem["one.crt"], pem["half.key"])', 'nil no private key in the PEM'],
    ['set_ssl_cert(pem["one.crt"], pem["locked.key"])', 'nil no private key in the PEM'],
    ['set_ssl_cert(pem["one.crt"], pem["one.crt"])', 'nil no private key in the PEM'],
    ['set_ssl_cert(pem["one.crt"], pem["two.key"])', "nil the private key is not the certificate's"],
    ['set_ssl_cert(pem["one.crt"], pem["rsa.key"])', "nil the private key is not the certificate's"],
    ['set_ssl_cert(pem["one.crt"] .. pem["one.key"], pem["one.crt"] .. pem["one.key"])', 'true nil'],
    ['set_ssl_cert(1, "")', "error: bad argument #1 to 'set_ssl_cert' (string expected, got number)"],
    ['set_ssl_cert("")', "error: bad argument #2 to 'set_ssl_cert' (string expected, got nil)"],
    ['set_ssl_trusted(pem.empty)', 'nil no certificate in the PEM'],
    ['set_ssl_trusted(pem.text)', 'nil no certificate in the PEM'],
    ['set_ssl_cert(pem.chain, pem["one.key"])', 'nil a certificate in the PEM is damaged'],
    ['set_ssl_trusted(pem.chain)', 'nil a certificate in the PEM is damaged'],
    ['set_ssl_trusted(pem.broken)', 'nil a certificate in the PEM is damaged'],
    ['set_ssl_trusted(pem.binary)', 'nil no certificate in the PEM'],
    ['set_ssl_trusted(pem["ca.crt"] .. pem["ca.crt"])', 'true nil'],
    ['set_ssl_trusted()', "error: bad argument #1 to 'set_ssl_trusted' (string expected, got nil)"],
    ['set_ssl_verify(true)', 'true nil'],
    ['set_ssl_verify(false, 0)', 'true nil'],
    ['set_ssl_verify(true, 100)', 'true nil'],
    ['set_ssl_verify()', "error: bad argument #1 to 'set_ssl_verify' (boolean expected, got nil)"],
    ['set_ssl_verify(1)', "error: bad argument #1 to 'set_ssl_verify' (boolean expected, got number)"],
    ['set_ssl_verify(true, "1")', "error: bad argument #2 to 'set_ssl_verify' (number expected, got string)"],
    ['set_ssl_verify(true, -1)', "error: bad argument #2 to 'set_ssl_verify' (integer from 0 to 100 expected, got -1)"],
    ['set_ssl_verify(true, 101)', "error: bad argument #2 to 'set_ssl_verify' (integer from 0 to 100 expected, got 101)"],
    ['set_ssl_verify(true, 1.5)', "error: bad argument #2 to 'set_ssl_verify' (integer from 0 to 100 expected, got 1.5)"],
    ['set_ssl_verify(true, 0/0)', "error: bad argument #2 to 'set_ssl_verify' (integer from 0 to 100 expected, got "],
);
{
    my $calls = join '', map "            function () return balancer.$_->[0] end,\n", @bad;
    conf($plain, lua => <<"EOC")->start;
        local calls = {
$calls
        }
        local ok, result, err = pcall(calls[tonumber(ngx.var.arg_call)])
        ngx.var.seen = ok and tostring(result) .. " " .. tostring(err) or "error: " .. tostring(result)
        -- What was refused leaves no trace: the try goes on as it would have.
        assert(balancer.set_ssl_verify(false))
        assert(balancer.set_current_peer("127.0.0.1", $port{'TLS 1.3'}, "a.example"))
EOC
    for my $n (0 .. $#bad) {
        my ($answer) = shaken($nginx, '/?call=' . ($n + 1));
        my ($seen) = $answer->{head} =~ /^X-Seen: (.*)\r$/m;
        my ($call, $expected) = @{$bad[$n]};
        my ($what) = $expected =~ /^error: (.*)/;
        defined $what ? like($seen, qr/^error: .*\Q$what\E/, $call) : is($seen, $expected, $call);
        is($answer->{status}, 200, "$call: the try goes on") or diag(grep !/\[debug\]/, split /^/, $nginx->log);
    }
    $nginx->stop;
    odd('what is refused');
}

# A PEM is parsed once: many calls with one text take much less time than with as many texts.
{
    conf($plain, lua => <<"EOC")->start;
        local function took(text)
            collectgarbage() collectgarbage("stop")
            local started = os.clock()
            for n = 1, 200 do
                local cert, key, trusted = pem["one.crt"] .. text(n), pem["one.key"] .. text(n), pem["both.crt"] .. text(n)
                assert(balancer.set_ssl_cert(cert, key))
                assert(balancer.set_ssl_trusted(trusted))
            end
            collectgarbage("restart")
            return os.clock() - started
        end
        local same = took(function () return "the same" end)
        local different = took(function (n) return "text " .. n end)
        ngx.var.seen = different / same
        assert(balancer.set_ssl_verify(false))
        assert(balancer.set_current_peer("127.0.0.1", $port{'TLS 1.3'}, "a.example"))
EOC
    my ($answer) = shaken($nginx, '/');
    my ($ratio) = $answer->{head} =~ /^X-Seen: (.*)\r$/m;
    cmp_ok($ratio, '>', 4, 'a PEM is parsed once');
    # More texts than are remembered: nothing grows, nothing breaks.
    is(join(' ', map $_->{status}, shaken($nginx, ('/') x 4)), '200 200 200 200', 'many texts');
    $nginx->stop;
    odd('many texts');
}

# Outside of the balancer there is no try.
{
    my $calls = join ' ', map qq(ngx.log(ngx.NOTICE, "[", tostring(select(2, balancer.$_)), "]")),
        'set_ssl_verify(true)', 'set_ssl_cert(pem["one.crt"], pem["one.key"])', 'set_ssl_trusted(pem["ca.crt"])';
    $nginx->conf(qq($init init_worker_by_lua_block { local balancer = require "ngx.balancer" $calls }\n))->start;
    poll { $nginx->logged('API disabled in the current context') == 3 };
    is($nginx->logged('API disabled in the current context'), 3, 'not outside of the balancer') or diag(grep !/\[debug\]/, split /^/, $nginx->log);
    $nginx->stop;
}

done_testing();
