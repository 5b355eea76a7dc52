package Bench::Wanted;
# What the figures are to be, and which of them are not.
use strict;
use warnings;
use utf8;
use Bench::Stats;

# Of a scenario's line: our figure itself (`ours`), or what it is of plain nginx's or of lua-nginx-module's (C).
my @WANTED = (
    [keepalive => 'above plain nginx', ours => 'at most', 1000],
    [keepalive => 'requests/s', plain => 'at least', 0.98],
    [keepalive => 'requests/s', C => 'at least', 1],
    [keepalive => 'worker CPU a request, µs', plain => 'at most', 1.02],
    [keepalive => 'worker CPU a request, µs', C => 'at most', 1],
    [enable_keepalive => 'above plain nginx', ours => 'at most', 1200],
    [retry => 'above plain nginx', C => 'at most', 1],
    [retry => 'requests/s', C => 'at least', 1],
    [set_timeouts => 'above the same without it', ours => 'at most', 150],
    [tls12 => 'requests/s', plain => 'at least', 0.95],
    [tls12 => 'requests/s', C => 'at least', 2.5],
    [tls12 => 'worker CPU a request, µs', plain => 'at most', 1.05],
    [tls12 => 'worker CPU a request, µs', C => 'at most', 0.4],
    [tls13 => 'requests/s', plain => 'at least', 0.95],
    [tls13 => 'requests/s', C => 'at least', 1.5],
    [tls13 => 'worker CPU a request, µs', plain => 'at most', 1.05],
    [tls13 => 'worker CPU a request, µs', C => 'at most', 0.67],
    [peers1000 => 'times the CPU of three peers', ours => 'at most', 1.3],
    [peers1000 => 'memory a peer, bytes', C => 'at most', 1],
    [peers10000 => 'times the CPU of three peers', ours => 'at most', 1.3],
    [peers10000 => 'memory a peer, bytes', C => 'at most', 1],
    [upstreams => 'nginx -t, ms', plain => 'at most', 1.3],
    [upstreams => 'nginx -t, ms', C => 'at most', 1],
    [upstreams => 'reload, ms', plain => 'at most', 1.3],
    [upstreams => 'reload, ms', C => 'at most', 1],
    [upstreams => 'memory of the worker, kB', C => 'at most', 1],
    [idle => 'memory of the worker, kB', C => 'at most', 1],
    [reload => 'failed requests', plain => 'at most', 1],
    [reload => '99th percentile, ms', plain => 'at most', 1.1],
);
my %OF = (ours => '', plain => ', of plain nginx', C => ', of lua-nginx-module');

# table FIGURES, TITLES: in Markdown. FIGURES are by scenario and line, TITLES by scenario.
sub table {
    my ($figures, $titles) = @_;
    my $table = "| wanted | | measured | |\n|---|--:|--:|---|\n";
    for (@WANTED) {
        my ($scenario, $line, $of, $relation, $bound) = @$_;
        my $figure = (($figures->{$scenario} // {})->{$line} // {})->{$of};
        # As it is printed: what shows as the bound has reached it.
        my $is = !defined $figure ? undef : $of eq 'ours' && $bound >= 10 ? sprintf('%.0f', $figure) : sprintf('%.2f', $figure);
        my $reached = !defined $is ? 'not measured'
            : ($relation eq 'at most' ? $is <= $bound : $is >= $bound) ? 'reached' : 'missed';
        $table .= '| ' . join(' | ', ($titles->{$scenario} // $scenario) . ': ' . ($line =~ /^above/ && 'instructions ') . "$line$OF{$of}", "$relation " . number($bound),
            defined $is ? number($is) : '–', $reached) . " |\n";
    }
    return $table;
}

1;
