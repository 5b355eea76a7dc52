package Bench::Chart;
# The results as two groups of bars, in SVG.
use strict;
use warnings;
use utf8;
use Bench::Stats;

use constant { WIDTH => 760, LEFT => 270, BAR => 14, ROW => 44 };

my @INSTRUCTIONS = (
    [keepalive => 'set_current_peer()'],
    [enable_keepalive => 'with enable_keepalive()'],
    [retry => 'retry on a second peer'],
    [set_timeouts => 'set_timeouts()'],
);
my @RATES = (
    [keepalive => 'keepalive, three peers'],
    [enable_keepalive => 'enable_keepalive()'],
    [retry => 'retry on a second peer'],
    [tls12 => 'new TLS 1.2 connections'],
    [tls13 => 'new TLS 1.3 connections'],
    [peers1000 => '1,000 peers'],
    [peers10000 => '10,000 peers'],
);
my @COLOUR = ('#b9b9b9', '#2b6cb0');

sub text {
    my ($x, $y, $text, $more) = @_;
    $text =~ s/&/&amp;/g;
    $text =~ s/</&lt;/g;
    return qq(<text x="$x" y="$y" ) . ($more // '') . ">$text</text>\n";
}

# A row: a label, and a bar for each of lua-nginx-module and this module.
sub row {
    my ($y, $label, $most, $write, @values) = @_;
    my $svg = text(LEFT - 12, $y + BAR + 4, $label, 'text-anchor="end"');
    for my $n (0, 1) {
        my $top = $y + $n * (BAR + 2);
        my $value = $values[$n];
        if (!defined $value) {
            $svg .= text(LEFT + 4, $top + BAR - 3, 'not measured', 'fill="#777777"');
            next;
        }
        my $width = sprintf '%.0f', (WIDTH - LEFT - 70) * ($value > 0 ? $value : 0) / $most;
        $svg .= sprintf qq(<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>\n), LEFT, $top, $width || 1, BAR, $COLOUR[$n];
        $svg .= text(LEFT + $width + 6, $top + BAR - 3, $write->($value));
    }
    return $svg;
}

sub group {
    my ($y, $title, $write, @rows) = @_;
    my ($most) = sort { $b <=> $a } 1e-9, grep { defined } map { @$_[1, 2] } @rows;
    my $svg = text(16, $$y, $title, 'font-weight="bold"');
    $$y += 16;
    for my $row (@rows) {
        my ($label, @values) = @$row;
        $svg .= row($$y, $label, $most, $write, @values);
        $$y += ROW;
    }
    $$y += 20;
    return $svg;
}

# write FILE, TITLE, RESULTS, ABOVE: results by scenario and variant; above by scenario, of
# lua-nginx-module and of this module.
sub write {
    my ($file, $title, $results, $above) = @_;
    my $rate = sub {
        my ($native, $it) = map { ($results->{ $_[0] }{$_} // {})->{rate} } 'native', $_[1];
        return $native && $it ? median(@$it) / median(@$native) : undef;
    };
    my $y = 64;
    my $body = group(\$y, 'Instructions of one request above plain nginx (less is better)', sub { number(sprintf '%.0f', $_[0]) },
        map { [$_->[1], @{ $above->{ $_->[0] } // [undef, undef] }] } @INSTRUCTIONS);
    $body .= group(\$y, 'Requests per second, plain nginx is 1 (more is better)', sub { sprintf '%.2f', $_[0] },
        map { my $row = $_; [$row->[1], map { $rate->($row->[0], $_) } qw(peer ours)] } @RATES);

    open my $out, '>:utf8', $file or die "$file: $!\n";
    printf $out qq(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" fill="#222222">\n), WIDTH, $y;
    printf $out qq(<rect width="%d" height="%d" fill="#ffffff"/>\n), WIDTH, $y;
    print $out text(16, 26, $title, 'font-size="15" font-weight="bold"');
    my $x = WIDTH - 300;
    for my $key (['lua-nginx-module', $COLOUR[0]], ['this module', $COLOUR[1]]) {
        printf $out qq(<rect x="%d" y="15" width="12" height="12" fill="%s"/>\n), $x, $key->[1];
        print $out text($x + 18, 26, $key->[0]);
        $x += 160;
    }
    print $out $body, "</svg>\n";
    close $out or die "$file: $!\n";
}

1;
