package Bench::Load;
# wrk's load on a front, and what it cost.
use strict;
use warnings;
use Exporter 'import';
use Time::HiRes qw(sleep time);
use Bench::Client;
use Bench::Nginx;
use Bench::Proc;
our @EXPORT = qw(wrk parse_wrk warm_up timed);

use constant CONNECTIONS => 32;

# wrk SECONDS, PORT, OPTIONS...: what it prints. `each_second` is called meanwhile.
sub wrk {
    my ($seconds, $port, $each_second, @options) = @_;
    my @command = Bench::Nginx::pinned('client', 'wrk', '-t1', '-c' . CONNECTIONS, "-d${seconds}s", @options,
        "http://127.0.0.1:$port/");
    my $pid = open(my $out, '-|', @command) // die "wrk: $!\n";
    if ($each_second) {
        my $end = time + $seconds;
        while (time + 1 < $end) {
            sleep 1;
            $each_second->();
        }
    }
    local $/;
    my $text = <$out>;
    close $out or die "wrk failed: $text\n";
    return parse_wrk($text);
}

sub parse_wrk {
    my ($text) = @_;
    my %unit = (us => 0.001, ms => 1, s => 1000, m => 60000);
    my ($requests) = $text =~ /^\s*(\d+) requests in/m or die "wrk said: $text\n";
    my ($rate) = $text =~ m{^Requests/sec:\s*([\d.]+)}m;
    my $failed = $text =~ /Non-2xx or 3xx responses: (\d+)/ ? $1 : 0;
    $failed += $_ for $text =~ /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/;
    my $p99 = $text =~ /^\s*99%\s*([\d.]+)(us|ms|s|m)/m ? $1 * $unit{$2} : undef;
    my %mix;
    $mix{$2} += $1 while $text =~ /^mix (\d+) (\S+)/mg;
    return { requests => $requests, rate => $rate, failed => $failed, p99 => $p99, mix => \%mix };
}

# Warms the front up, and sees that it does what the scenario says.
sub warm_up {
    my ($scenario, $front) = @_;
    my $got = wrk(1, $front->{port}, undef, '-s', "$ENV{BENCH_DIR}/mix.lua");
    check($scenario, $front, $got);
    check_mix($scenario, $got->{mix});
}

sub check {
    my ($scenario, $front, $got) = @_;
    die "$got->{failed} of $got->{requests} requests failed\n" if $got->{failed};
    my $errors = $front->errors;
    die "errors in the log: " . (split /\n/, $errors)[0] . "\n" if $errors;
}

# As many peers as there are must have answered, evenly.
sub check_mix {
    my ($scenario, $mix) = @_;
    my $peers = $scenario->{answers};
    my @counts = sort { $a <=> $b } values %$mix;
    my $total = 0;
    $total += $_ for @counts;
    my $fair = $total / $peers;
    if ($total < 3 * $peers) {
        die "the same peer $counts[-1] times in $total requests\n" if $counts[-1] > $fair + 3;
        return;
    }
    die scalar(@counts) . " peers answered, not $peers\n" if @counts != $peers;
    die "uneven: a peer $counts[0] times, another $counts[-1] times, of $total\n"
        if $counts[0] < 0.8 * $fair - 3 || $counts[-1] > 1.2 * $fair + 3;
}

# One second of load: requests, the worker's CPU, connections that the peers were given, and how much
# CPU others used meanwhile; all times in seconds.
sub timed {
    my ($scenario, $front, $back) = @_;
    my $worker = $front->worker;
    my $backend = $back->worker;
    my $accepted = accepted($back);
    my ($cpu, $peers, $busy, $own, $start) = (cpu_seconds($worker), cpu_seconds($backend), busy_seconds(), own(), time);
    my $got = wrk(1, $front->{port});
    $cpu = cpu_seconds($worker) - $cpu;
    my $others = busy_seconds() - $busy - $cpu - (cpu_seconds($backend) - $peers) - (own() - $own);
    my $took = time - $start;
    check($scenario, $front, $got);
    return {
        requests => $got->{requests},
        seconds => $got->{requests} / $got->{rate},
        cpu => $cpu,
        opened => accepted($back) - $accepted - 1,
        others => $others > 0 ? $others : 0,
        took => $took,
    };
}

# This process and what it has waited for: wrk.
sub own {
    my @times = times;
    return $times[0] + $times[1] + $times[2] + $times[3];
}

sub accepted {
    my ($back) = @_;
    return get($back->{status}, '/') =~ /^\s*(\d+) \d+ \d+\s*$/m ? $1 : 0;
}

1;
