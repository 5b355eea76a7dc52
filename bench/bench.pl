#!/usr/bin/perl
# Runs the scenarios; started by bench/run.
use strict;
use warnings;
use Bench::Count;
use Bench::Load;
use Bench::Nginx;
use Bench::Proc;
use Bench::Profile;
use Bench::Readme;
use Bench::Recorded;
use Bench::Report;
use Bench::Scenarios;
use Bench::Special;
use Bench::Stats;

$| = 1;
binmode STDOUT, ":utf8";
$SIG{INT} = $SIG{TERM} = sub { exit 1 };

my $what = shift;
my $rounds = $ENV{BENCH_ROUNDS} // 5;
my $seconds = $ENV{BENCH_SECONDS} // 3;
my %wanted = map { $_ => 1 } split /,/, $ENV{BENCH} // '';
my @scenarios = grep { !%wanted || $wanted{$_->{name}} } Bench::Scenarios::all();

sub say_line { print "==> @_\n" }

# Each variant that can take part does `body`, in this order; what one dies of is told of it.
sub each_variant {
    my ($scenario, $results, $body, @variants) = @_;
    @variants = @Bench::Scenarios::VARIANTS if !@variants;
    for my $variant (@variants) {
        my $result = $results->{$variant} //= {};
        next if $result->{failed} || $result->{lacks};
        if (my $lacks = Bench::Scenarios::lacks($scenario, $variant)) {
            $result->{lacks} = $lacks;
            next;
        }
        eval { $body->($variant, $result); 1 } or chomp($result->{failed} = $@);
    }
}

sub count {
    my ($scenario, $results, $few, $many, $counts) = @_;
    each_variant($scenario, $results, sub {
        my ($variant, $result) = @_;
        @$result{qw(instructions steady)} = instructions($scenario, $variant, $few, $many, $counts);
    });
}

# In each round the variants are warmed up and then take turns of a second each, now in one order and now
# in the other: what else happens to the machine happens to all of them.
sub load {
    my ($scenario, $results) = @_;
    my $back = Bench::Scenarios::back($scenario);
    my @variants = @Bench::Scenarios::VARIANTS;
    for my $round (1 .. $rounds) {
        for my $group ($scenario->{apart} ? map { [$_] } @variants : \@variants) {
            my (%front, %sum);
            each_variant($scenario, $results, sub {
                my ($variant, $result) = @_;
                $front{$variant} = Bench::Scenarios::front($scenario, $variant)->start;
                warm_up($scenario, $front{$variant});
                if ($scenario->{tls}) {
                    my (undef, $reused) = Bench::Client::requests($front{$variant}{port}, 100, 'X-Reused');
                    push @{ $result->{resumed} }, $reused->{r} // 0;
                }
            }, @$group);
            for my $turn (1 .. $seconds) {
                each_variant($scenario, $results, sub {
                    my ($variant) = @_;
                    my $timed = timed($scenario, $front{$variant}, $back);
                    $sum{$variant}{$_} += $timed->{$_} for keys %$timed;
                }, ($round + $turn) % 2 ? reverse @$group : @$group);
            }
            each_variant($scenario, $results, sub {
                my ($variant, $result) = @_;
                my $sum = $sum{$variant};
                push @{ $result->{rate} }, $sum->{requests} / $sum->{seconds};
                push @{ $result->{cpu} }, 1e6 * $sum->{cpu} / $sum->{requests};
                push @{ $result->{opened} }, $sum->{opened};
                push @{ $result->{others} }, 100 * $sum->{others} / $sum->{took};
                push @{ $result->{rss} }, rss_kb($front{$variant}->worker);
            }, @$group);
        }
    }
}

sub all {
    my $report = Bench::Report->new($rounds, $seconds, others());
    say_line("nginx/$ENV{BENCH_VERSION}: $rounds rounds of $seconds s; $report->{others}");
    for my $scenario (@scenarios) {
        say_line($scenario->{title});
        my %results;
        if ($scenario->{special}) {
            Bench::Special::run($scenario, \%results, $rounds, \&each_variant);
        }
        else {
            if ($scenario->{count}) {
                my $back = Bench::Scenarios::back($scenario);
                count($scenario, \%results, 2000, 6000, 3);
            }
            load($scenario, \%results) if $scenario->{load};
        }
        $report->add($scenario, \%results);
    }
    if (!%wanted) {
        $report->write;
        Bench::Readme::write();
    }
    return $report->failures ? 1 : 0;
}

sub count_only {
    my $recorded = Bench::Recorded->new;
    my $failed = 0;
    for my $scenario (grep { $_->{count} } @scenarios) {
        my $back = Bench::Scenarios::back($scenario);
        my %results;
        count($scenario, \%results, 2000, 6000, 2);
        $failed |= $recorded->compare($scenario, \%results);
    }
    $recorded->write if $ENV{BENCH_RECORD};
    return $failed;
}

# Of one scenario: BENCH, or the first.
sub profile {
    my ($scenario) = grep { $_->{count} } @scenarios;
    my $back = Bench::Scenarios::back($scenario);
    my %results;
    count($scenario, \%results, 2000, 6000, 1);
    say_line("$scenario->{title}, nginx/$ENV{BENCH_VERSION}");
    Bench::Profile::run($scenario, 2000, 6000);
    return 0;
}

sub readme { Bench::Readme::write(); return 0 }

my %do = (all => \&all, instructions => \&count_only, profile => \&profile, readme => \&readme);
exit(($do{$what} // die "run [all|instructions|profile|readme]\n")->());
