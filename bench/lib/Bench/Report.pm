package Bench::Report;
# The table of all results: on the terminal while they come, as Markdown and as a chart at the end.
use strict;
use warnings;
use utf8;
use POSIX 'strftime';
use Bench::Chart;
use Bench::Proc;
use Bench::Scenarios;
use Bench::Stats;
use Bench::Wanted;

# What of a scenario's results is a line of the table: its key, name, unit. `above` lines are
# differences to plain nginx.
my @MEASURED = (
    [instructions => 'instructions a request', ''],
    [steady => 'the same, malloc and free at a flat rate', ''],
    [rate => 'requests/s', ''],
    [cpu => 'worker CPU a request', 'µs'],
    [opened => 'connections to peers opened', ''],
    [resumed => 'TLS sessions resumed', '%'],
    [check => 'nginx -t', 'ms'],
    [reload => 'reload', 'ms'],
    [lost => 'failed requests', ''],
    [p99 => '99th percentile', 'ms'],
    [rss => 'memory of the worker', 'kB'],
);

sub new {
    my ($class, $rounds, $seconds, $others) = @_;
    return bless { rounds => $rounds, seconds => $seconds, others => $others, lines => [], failed => [],
        date => strftime('%Y-%m-%d', gmtime), three => {}, elsewhere => [] }, $class;
}

sub failures { scalar @{ $_[0]{failed} } }

# One cell: the median, and how far the rounds were apart.
sub cell {
    my ($values) = @_;
    return '–' if !defined $values;
    return number($values) if !ref $values;
    my $text = number(median(@$values));
    my $spread = spread(@$values);
    return $spread >= 0.5 ? sprintf('%s ±%.0f %%', $text, $spread) : $text;
}

sub quotient { defined $_[0] ? sprintf('%.2f', $_[0]) : '–' }

# A line: plain nginx's figure, lua-nginx-module's and ours (of a round each, or one), and what ours is of theirs.
sub line {
    my ($self, $scenario, $name, $figures, @ratios) = @_;
    my %figure;
    @figure{qw(ours plain C)} = (value($figures->[2]), @ratios);
    $self->{figures}{ $scenario->{name} }{$name} //= \%figure;
    my @cells = ($scenario->{title}, $name, (map { cell($_) } @$figures), map { quotient($_) } @ratios[0, 1]);
    push @{ $self->{lines} }, \@cells;
    printf "    %-38s %16s %16s %16s %8s %8s\n", @cells[1 .. 6];
}

sub add {
    my ($self, $scenario, $results) = @_;
    my ($native, $peer, $ours) = @$results{@Bench::Scenarios::VARIANTS};
    printf "    %-38s %16s %16s %16s %8s %8s\n", '', 'plain nginx', 'lua-nginx-module', 'this module', '/plain', '/C';

    for my $measured (@MEASURED) {
        my ($key, $name, $unit) = @$measured;
        next if !grep { defined $_->{$key} } values %$results;
        $name .= ", $unit" if $unit;
        my @values = map { $_->{$key} } $native, $peer, $ours;
        $self->line($scenario, $name, \@values, ratio(@values[2, 0]), ratio(@values[2, 1]));
        $self->above($scenario, $key, @values) if $key eq 'instructions' || $key eq 'steady';
        $self->per_peer($scenario, @values) if $key eq 'rss';
        $self->against_three($scenario, $results) if $key eq 'cpu';
    }
    $self->pool($scenario, $ours->{pool}) if $ours && $ours->{pool};
    $self->{three} = $results if $scenario->{name} eq 'keepalive';
    $self->{results}{ $scenario->{name} } = $results;
    push @{ $self->{elsewhere} }, map { @{ $_->{others} // [] } } values %$results;

    for my $variant (@Bench::Scenarios::VARIANTS) {
        my $result = $results->{$variant} or next;
        my $why = $result->{failed} // next;
        print "    FAILED, $Bench::Scenarios::TITLE{$variant}: ", (split /\R/, $why)[0], "\n";
        push @{ $self->{failed} }, "$scenario->{title}, $Bench::Scenarios::TITLE{$variant}: " . (split /\n/, $why)[0];
    }
    for my $variant (@Bench::Scenarios::VARIANTS) {
        my $lacks = ($results->{$variant} // {})->{lacks} // next;
        print "    without $Bench::Scenarios::TITLE{$variant}: $lacks\n";
    }
}

sub difference { defined $_[0] && defined $_[1] ? $_[0] - $_[1] : undef }

# What a request costs more than without Lua, or than without what the scenario is about.
sub above {
    my ($self, $scenario, $key, $native, $peer, $ours) = @_;
    my ($name, @from) = ('above plain nginx', $native, $native);
    if ($scenario->{above}) {
        $name = 'above the same without it';
        @from = map { ($self->{results}{ $scenario->{above} } // {})->{$_}{$key} } qw(peer ours);
    }
    my @above = (difference($peer, $from[0]), difference($ours, $from[1]));
    $self->{above}{ $scenario->{name} } //= \@above;
    $self->line($scenario, $name, [undef, map { defined $_ ? sprintf '%.0f', $_ : undef } @above], undef, ratio(@above[1, 0]));
}

# Memory that each peer more than three takes.
sub per_peer {
    my ($self, $scenario, @rss) = @_;
    my $count = $scenario->{many} or return;
    my @three = map { ($self->{three}{$_} // {})->{rss} } @Bench::Scenarios::VARIANTS;
    my @each = map { my $more = difference(value($rss[$_]), value($three[$_])); defined $more ? 1024 * $more / $count : undef } 0 .. 2;
    $self->line($scenario, 'memory a peer, bytes', \@each, ratio(@each[2, 0]), ratio(@each[2, 1]));
}

# Worker CPU a request, as a multiple of what it is with three peers.
sub against_three {
    my ($self, $scenario, $results) = @_;
    $scenario->{many} or return;
    # The rounds of the one are not those of the other.
    my @times = map { ratio(value($results->{$_}{cpu}), value(($self->{three}{$_} // {})->{cpu})) } @Bench::Scenarios::VARIANTS;
    $self->line($scenario, 'times the CPU of three peers', \@times);
}

sub pool {
    my ($self, $scenario, $pool) = @_;
    my @sizes = sort { $a <=> $b } keys %$pool;
    $self->line($scenario, number($_) . ' idle, ns', [undef, undef, $pool->{$_}]) for @sizes;
    $self->line($scenario, 'most / least', [undef, undef, ratio(@$pool{ @sizes[-1, 0] })]);
}

sub versions {
    my ($self) = @_;
    my ($cpu) = Bench::Proc::slurp('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)/m;
    my $cores = () = Bench::Proc::slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
    my ($kernel) = Bench::Proc::slurp('/proc/sys/kernel/osrelease') =~ /^(\d+\.\d+)/;
    my $peer = 'none';
    if ($ENV{BENCH_PEER}) {
        # Where Debian built it; the module itself does not tell.
        ($peer) = Bench::Proc::slurp("$ENV{BENCH_PEER}/ngx_http_lua_module.so") =~ m{/libnginx-mod-http-lua-([\d.]*\d)};
        $peer //= 'of unknown version';
    }
    return "nginx $ENV{BENCH_VERSION}, lua-nginx-module $peer, commit $ENV{BENCH_COMMIT}; "
        . ($cpu // 'unknown processor') . ", $cores cores, Linux $kernel";
}

sub write {
    my ($self) = @_;
    my $base = "$ENV{BENCH_DIR}/results/$ENV{BENCH_VERSION}";
    my $elsewhere = @{ $self->{elsewhere} } ? sprintf('%.0f %% of one core (most: %.0f %%)', median(@{ $self->{elsewhere} }), (sort { $a <=> $b } @{ $self->{elsewhere} })[-1]) : 'unknown';
    open my $out, '>:utf8', "$base.md" or die "$base.md: $!\n";
    print $out "# nginx $ENV{BENCH_VERSION}\n\n",
        "Made by `make bench` on $self->{date}: ", $self->versions, ".\n",
        "Medians of $self->{rounds} rounds of $self->{seconds} s",
        ($ENV{BENCH_RELOAD_ROUNDS} ? " ($ENV{BENCH_RELOAD_ROUNDS} of the one with reloads)" : ''),
        ", the three in turns of a second, with half the range; ratios are medians of the rounds' own; ",
        "instructions are counted by callgrind.\nBefore the run: $self->{others}. ",
        "What was no part of the bench used $elsewhere while it ran.\n\n",
        "| scenario | measured | plain nginx | lua-nginx-module | this module | to plain | to lua-nginx-module |\n",
        "|---|---|--:|--:|--:|--:|--:|\n";
    my $before = '';
    for my $line (@{ $self->{lines} }) {
        my ($title, @cells) = @$line;
        print $out '| ', join(' | ', $title eq $before ? '' : $title, @cells), " |\n";
        $before = $title;
    }
    print $out "\n", Bench::Wanted::table($self->{figures}, { map { $_->{name} => $_->{title} } Bench::Scenarios::all() });
    print $out "\nFailed, and not timed:\n\n", map { "- $_\n" } @{ $self->{failed} } if @{ $self->{failed} };
    close $out or die "$base.md: $!\n";

    Bench::Chart::write("$base.svg", "nginx $ENV{BENCH_VERSION}, $self->{date}", $self->{results}, $self->{above});
    print "==> written: $base.md, $base.svg\n";
}

1;
