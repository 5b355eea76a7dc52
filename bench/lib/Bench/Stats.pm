package Bench::Stats;
# Numbers of several rounds made one, and how they are written.
use strict;
use warnings;
use utf8;
use Exporter 'import';
our @EXPORT = qw(median spread number value ratio);

sub median {
    my @sorted = sort { $a <=> $b } @_;
    return undef if !@sorted;
    my $half = int(@sorted / 2);
    return @sorted % 2 ? $sorted[$half] : ($sorted[$half - 1] + $sorted[$half]) / 2;
}

# Half the way from the least to the most, in percent of the median.
sub spread {
    my @sorted = sort { $a <=> $b } @_;
    my $median = median(@sorted) or return 0;
    return 100 * ($sorted[-1] - $sorted[0]) / 2 / $median;
}

sub value { ref $_[0] ? median(@{ $_[0] }) : $_[0] }

# What the one is of the other. Of as many rounds of both it is the median of the rounds' own ratios, which
# is not moved by what happened to both in a round.
sub ratio {
    my ($of, $to) = @_;
    if (ref $of && ref $to && @$of == @$to && @$of) {
        my @each = map { $to->[$_] ? $of->[$_] / $to->[$_] : () } 0 .. $#$of;
        return median(@each) if @each == @$of;
    }
    ($of, $to) = (value($of), value($to));
    return defined $of && $to ? $of / $to : undef;
}

# 12345.6 as 12,346; small ones keep what tells them apart.
sub number {
    my ($n) = @_;
    return '–' if !defined $n;
    my $text = abs($n) >= 100 || $n == int $n ? sprintf '%.0f', $n
        : abs($n) >= 10 ? sprintf '%.1f', $n
        :                 sprintf '%.2f', $n;
    1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
    return $text;
}

1;
