# What make bench refuses to time: a load with failed requests or errors in the log, and answers of
# other peers, or in another mix, than the scenario says. And which counts of instructions make
# bench-instructions refuses.

use strict;
use warnings;

use lib 'bench/lib';
use Bench::Load;
use Bench::Recorded;
use Test::More;

# What is said of answers of so many peers; `mix` is how often each of them answered.
sub refusal {
    my ($peers, %mix) = @_;
    return eval { Bench::Load::check_mix({ answers => $peers }, \%mix); 1 } ? '' : $@;
}

is(refusal(3, a => 1000, b => 1000, c => 1000), '', 'three peers in turn');
is(refusal(3, a => 900, b => 1000, c => 1100), '', 'or nearly so');
is(refusal(1, a => 3000), '', 'one peer, where there is one');
like(refusal(3, a => 3000), qr/^1 peers answered, not 3$/, 'always the same one');
like(refusal(3, a => 1500, b => 1500), qr/^2 peers answered, not 3$/, 'one is left out');
like(refusal(2, a => 1000, b => 1000, c => 1000), qr/^3 peers answered, not 2$/, 'one too many');
like(refusal(1, a => 2999, b => 1), qr/^2 peers answered, not 1$/, 'a single answer of another peer');
like(refusal(3, a => 600, b => 1200, c => 1200), qr/^uneven: a peer 600 times, another 1200 times, of 3000$/, 'one is chosen half as often');
is(refusal(10_000, map { $_ => 1 } 1 .. 5000), '', 'more peers than requests');
like(refusal(10_000, a => 4000, b => 1000), qr/^the same peer 4000 times in 5000 requests$/, 'of which one has most of them');

# What wrk prints.
my $printed = <<'EOW';
Running 1s test @ http://127.0.0.1:8080/
    Latency     1.67ms    1.00ms   9.00ms   70.00%
     99%    2.50ms
  1000 requests in 1.00s, 1.00MB read
Requests/sec:   1000.00
Transfer/sec:      1.00MB
mix 600 127.0.0.1:9081
mix 400 127.0.0.1:9082
EOW
my $got = parse_wrk($printed);
is_deeply($got, { requests => 1000, rate => '1000.00', failed => 0, p99 => 2.5, mix => { '127.0.0.1:9081' => 600, '127.0.0.1:9082' => 400 } },
    'requests, rate, 99th percentile and peers are read');
is(parse_wrk("$printed  Non-2xx or 3xx responses: 7\n")->{failed}, 7, 'answers that are errors count as failed');
is(parse_wrk("$printed  Socket errors: connect 1, read 2, write 3, timeout 4\n")->{failed}, 10, 'so do connections that fail');
ok(!eval { parse_wrk("unable to connect\n"); 1 }, 'and no load is no result');

# A front in whose log something stands, or nothing.
sub Front::errors { $_[0]{errors} }
sub checked {
    my ($errors, $failed) = @_;
    my $front = bless { errors => $errors }, 'Front';
    return eval { Bench::Load::check({}, $front, { requests => 1000, failed => $failed }); 1 } ? '' : $@;
}
is(checked('', 0), '', 'all went well');
like(checked('', 1), qr/^1 of 1000 requests failed$/, 'one failed request');
like(checked("2026/01/01 [error] no peer\nmore\n", 0), qr/^errors in the log: .*no peer$/, 'an error in the log');

# Counts above plain nginx, of which 1,000 are kept.
sub counted {
    my ($name, $plain, $ours, $kept) = @_;
    my $recorded = bless { kept => $kept }, 'Bench::Recorded';
    my $failed;
    open my $out, '>', \my $text;
    my $before = select $out;
    $failed = $recorded->compare({ name => $name }, { native => { steady => $plain }, ours => $ours });
    select $before;
    return "$failed $text";
}
my %kept = (keepalive => 1000);
like(counted('keepalive', 20_000, { steady => 21_000 }, \%kept), qr/^0 ok: /, 'as many as are kept');
like(counted('keepalive', 20_000, { steady => 21_049 }, \%kept), qr/^0 ok: /, 'less than 5 % more');
like(counted('keepalive', 20_000, { steady => 21_051 }, \%kept), qr/^1 not ok: .* 1,051 .* 1,000 are kept: more than 5 % more$/, 'more than 5 % more');
like(counted('keepalive', 20_000, { steady => 20_500 }, \%kept), qr/^0 ok: /, 'less than are kept');
like(counted('keepalive', 20_000, { failed => 'errors in the log' }, \%kept), qr/^1 not ok: keepalive: errors in the log$/, 'none, where some are kept');
like(counted('other', 20_000, { steady => 25_000 }, \%kept), qr/^0 ok: /, 'one that was never counted');

done_testing();
