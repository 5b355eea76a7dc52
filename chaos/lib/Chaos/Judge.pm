package Chaos::Judge;

# What a connection that ended before its answer was complete died of, and what the error log may say.

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(cuts complaints);

# Of each id the peers' words, in order: [time, peer, word].
sub words {
    my ($file, %wanted) = @_;
    my %words;
    open my $in, '<', $file or return {};
    while (<$in>) {
        my ($time, $peer, $word, $id) = split;
        push @{ $words{$id} }, [$time, $peer, $word] if $wanted{$id};
    }
    return \%words;
}

# Was the peer one of `these` at some time between the two?
sub was {
    my ($peer, $from, $to, %these) = @_;
    my @periods = @{ $peer->{periods} };
    for my $n (0 .. $#periods) {
        my ($since, $is) = @{ $periods[$n] };
        my $until = $n < $#periods ? $periods[$n + 1][0] : $to;
        return 1 if $these{$is} && $since <= $to && $until >= $from;
    }
    return 0;
}

# The peer that had begun to answer reset the connection, or was killed or frozen, or sent its answer in
# parts when the connection was given up. A peer that was well all the while is no excuse.
sub begun_and_cut {
    my ($cut, $words, $peers) = @_;
    my (%began, %slow);
    for (@{ $words // [] }) {
        my ($time, $peer, $word) = @$_;
        if ($word eq 'began' || $word eq 'slow') {
            $began{$peer} = $time;
            $slow{$peer} = $word eq 'slow';
        }
        elsif ($word eq 'reset') { return 1 }
        elsif ($word eq 'ended') { delete $began{$peer} }
        elsif ($word eq 'gone' && defined $began{$peer}) {
            return 1 if $slow{$peer} || was($peers->{$peer}, $began{$peer}, $time, frozen => 1);
            delete $began{$peer};
        }
    }
    # It has not said how it ended.
    return scalar grep was($peers->{$_}, $began{$_}, $cut->{time} + 0.5, killed => 1, frozen => 1), keys %began;
}

# cuts CUTS, FRONT, PEERS (by name), FILE of their words: how often what, and a line for each cut
# that nothing excuses.
sub cuts {
    my ($cuts, $front, $peers, $file) = @_;
    my $words = words($file, map { $_->{id} => 1 } @$cuts);
    my %read;
    if (@$cuts) {
        my %cut = map { $_->{id} => 1 } @$cuts;
        open my $in, '<', "$front->{root}/logs/access.log" or die "access.log: $!\n";
        while (<$in>) { /^(\S+)/ && $cut{$1} and $read{$1} = 1 }
    }
    my %ending = map { $_ => 1 } $front->log =~ /\[notice\] (\d+)#\d+: gracefully shutting down/g;
    my (%count, @bad);
    for my $cut (@$cuts) {
        if (grep $_->{ports}{$cut->{port}} && $cut->{opened} < $_->{to} && $cut->{time} > $_->{from}, @{ $front->{killed} }) {
            $count{lost}++;
        }
        elsif (begun_and_cut($cut, $words->{$cut->{id}}, $peers)) {
            $count{truncated}++;
        }
        # A worker that ends closes its idle connections; a request that is on its way just then is
        # never read by it.
        elsif (!$cut->{bytes} && $cut->{requests} > 1 && $ending{$cut->{worker}} && !$read{$cut->{id}}) {
            $count{unread}++;
        }
        else {
            push @bad, join(' ', 'connection ended without excuse:', map("$_=$cut->{$_}", sort keys %$cut),
                $read{$cut->{id}} ? 'in the access log' : 'not in the access log',
                map "[@$_]", @{ $words->{$cut->{id}} // [] });
        }
    }
    return (\%count, @bad);
}

# What the error log says that it must not; kills are excused, by the worker's number.
sub complaints {
    my ($front) = @_;
    my %killed = map { $_->{pid} => 1 } @{ $front->{killed} };
    my (%told, @bad);
    for (split /^/, $front->log) {
        chomp;
        if (/\[(?:alert|emerg)\]/) {
            if (/worker process (\d+) exited on signal 9$/ && $killed{$1}) {
                $told{$1}++;
                next;
            }
            next if /shared memory zone "[^"]*" was locked by (\d+)$/ && $killed{$1};
            push @bad, $_;
        }
        elsif (/exited on signal|exited with (?:fatal )?code [^0]|_by_lua\*?:|_by_lua error|could not allocate|no memory|no peer set|panick/) {
            push @bad, $_;
        }
    }
    push @bad, map "worker $_ was killed, and the log does not say so", grep !$told{$_}, keys %killed;
    return @bad;
}

1;
