package Bench::Special;
# The scenarios that are no plain load: memory, configurations, reloads, the pool.
use strict;
use warnings;
use Time::HiRes 'sleep';
use Bench::Load;
use Bench::Proc;
use Bench::Scenarios;

my %run = (
    upstreams => sub {
        my ($scenario, $variant, $result) = @_;
        my $front = Bench::Scenarios::upstreams($variant, 2000);
        push @{ $result->{check} }, 1000 * $front->check_seconds;
        $front->start;
        push @{ $result->{reload} }, 1000 * $front->reload_seconds;
        sleep 0.3;
        push @{ $result->{rss} }, rss_kb($front->worker);
    },
    idle => sub {
        my ($scenario, $variant, $result) = @_;
        my $front = Bench::Scenarios::front($scenario, $variant)->start;
        $front->worker;
        sleep 0.5;
        push @{ $result->{rss} }, rss_kb($front->worker);
    },
    reload => sub {
        my ($scenario, $variant, $result, $back) = @_;
        my $front = Bench::Scenarios::front($scenario, $variant)->start;
        warm_up($scenario, $front);
        my $seconds = $ENV{BENCH_RELOAD_SECONDS} // 30;
        my $got = wrk($seconds, $front->{port}, sub { kill HUP => $front->{master} }, '--latency');
        push @{ $result->{lost} }, $got->{failed};
        push @{ $result->{requests} }, $got->{requests};
        push @{ $result->{p99} }, $got->{p99};
    },
);

sub run {
    my ($scenario, $results, $rounds, $each_variant) = @_;
    my $special = $scenario->{special};
    if ($special eq 'pool') {
        eval { pool($results->{ours} = {}, $rounds); 1 } or chomp($results->{ours}{failed} = $@);
        return;
    }
    my $back = $special eq 'reload' ? Bench::Scenarios::back($scenario) : undef;
    $rounds = $ENV{BENCH_RELOAD_ROUNDS} // $rounds if $special eq 'reload';
    for (1 .. $rounds) {
        $each_variant->($scenario, $results, sub { $run{$special}->($scenario, @_, $back) });
    }
}

# Nanoseconds at each size, in each round.
sub pool {
    my ($result, $rounds) = @_;
    for (1 .. $rounds) {
        my @lines = qx{"$ENV{BENCH_TARGET}/release/pool"};
        die "bench/pool failed\n" if $? || !@lines;
        for (@lines) {
            /^(\d+) ([\d.]+)$/ and push @{ $result->{pool}{$1} }, $2;
        }
    }
}

1;
