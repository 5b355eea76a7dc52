package Bench::Readme;
# The part of the README that has the figures, made of bench/results.
use strict;
use warnings;
use utf8;
use Text::Wrap ();
use Bench::Proc;

my @VERSIONS = qw(1.22.1 1.30.6);

# Lines of the results: scenario, line (the how many of that name), and what the README calls it.
my @ROWS = (
    ['keepalive, three peers', 'above plain nginx', 1, 'instructions a request above plain nginx, `set_current_peer`'],
    ['keepalive, three peers', 'above plain nginx', 2, 'the same, `malloc` and `free` at a flat rate'],
    ['keepalive, three peers', 'requests/s', 1, 'requests/s'],
    ['keepalive, three peers', 'worker CPU a request, µs', 1, 'worker CPU a request, µs'],
    ['enable_keepalive(), three peers', 'above plain nginx', 1, "instructions above nginx's keepalive, `enable_keepalive`"],
    ['enable_keepalive(), three peers', 'above plain nginx', 2, 'the same at the flat rate'],
    ['retry: the first peer refuses, the second answers', 'above plain nginx', 1, 'instructions above plain nginx, a retry'],
    ['retry: the first peer refuses, the second answers', 'requests/s', 1, 'a retry, requests/s'],
    ['set_timeouts(), above the same without it', 'above the same without it', 1, 'instructions for `set_timeouts`'],
    ['new TLS 1.2 connection each request', 'requests/s', 1, 'a new TLS 1.2 connection each, requests/s'],
    ['new TLS 1.2 connection each request', 'worker CPU a request, µs', 1, 'worker CPU a request, µs'],
    ['new TLS 1.3 connection each request', 'requests/s', 1, 'a new TLS 1.3 connection each, requests/s'],
    ['new TLS 1.3 connection each request', 'worker CPU a request, µs', 1, 'worker CPU a request, µs'],
    ['1000 peers', 'times the CPU of three peers', 1, '1,000 peers: times the CPU of three'],
    ['1000 peers', 'memory a peer, bytes', 1, 'memory a peer, bytes'],
    ['10000 peers', 'times the CPU of three peers', 1, '10,000 peers: times the CPU of three'],
    ['10000 peers', 'memory a peer, bytes', 1, 'memory a peer, bytes'],
    ['2,000 upstreams with a Lua block each', 'nginx -t, ms', 1, '2,000 upstreams with a block each: `nginx -t`, ms'],
    ['2,000 upstreams with a Lua block each', 'reload, ms', 1, 'reload, ms'],
    ['2,000 upstreams with a Lua block each', 'memory of the worker, kB', 1, 'memory of the worker, kB'],
    ['idle worker', 'memory of the worker, kB', 1, 'idle worker, memory in kB'],
    ['one SIGHUP a second under load', 'failed requests', 1, 'a reload each second for 30 s: failed requests'],
    ['one SIGHUP a second under load', '99th percentile, ms', 1, '99th percentile, ms'],
);

sub cells { map { s/^\s+|\s+$//gr } split /\|/, $_[0] =~ s/^\||\|\s*$//gr, -1 }

# What one version's file says: its heading, its figures and what is missed.
sub results {
    my ($version) = @_;
    my $text = Bench::Proc::slurp("$ENV{BENCH_DIR}/results/$version.md");
    utf8::decode($text);
    $text =~ /^Made by `make bench` on (\S+): (nginx \S+), lua-nginx-module (\S+), commit \S+; (.*)\.\nMedians of ([^,]*)/m
        or die "bench/results/$version.md has not the form of today: run make bench for it\n";
    my %result = (date => $1, nginx => $2, peer => $3, machine => $4, rounds => $5);
    my $scenario = '';
    for (grep { /^\|/ } split /\n/, $text) {
        my ($title, @cells) = cells($_);
        if (@cells == 3 && $cells[2] eq 'missed') {
            push @{ $result{missed} }, [$title, $cells[0], $cells[1]];
        }
        next if @cells != 6;
        $scenario = $title if $title ne '';
        my $name = shift @cells;
        push @{ $result{figures}{$scenario}{$name} }, [map { s/ ±.*//r } @cells[0 .. 2]];
    }
    return \%result;
}

# What is the same for all versions, or what each has.
sub each_of {
    my ($what, @results) = @_;
    my %seen;
    return join ' and ', grep { !$seen{$_}++ } map { $_->{$what} } @results;
}

sub text {
    my @results = map { results($_) } @VERSIONS;
    my $newest = $results[-1];
    local $Text::Wrap::columns = 112;
    my $text = "![Instructions a request above plain nginx, and requests/s with TLS, of lua-nginx-module and this module](bench/results/$VERSIONS[-1].svg)\n\n"
        . Text::Wrap::fill('', '', 'Measured on ' . each_of(date => @results) . " with `make bench` and `STOCK=sid make bench` ($newest->{machine}; "
            . 'client, nginx and peers on the same cores, over loopback): ' . 'medians of ' . each_of(rounds => @results) . '. “C” is lua-nginx-module, '
            . join(' and ', map { "$_->{peer} on $_->{nginx}" } @results)
            . '. Spreads, ratios and all lines are in [bench/results](bench/results).') . "\n\n"
        . '| | ' . join(' | ', map { "plain $_ | C | this module" } @VERSIONS) . " |\n|---|" . '--:|' x (3 * @VERSIONS) . "\n";
    for (@ROWS) {
        my ($scenario, $line, $n, $name) = @$_;
        $text .= "| $name | " . join(' | ', map {
            my $cells = ($_->{figures}{$scenario}{$line} // [])->[$n - 1] // ['–', '–', '–'];
            @$cells;
        } @results) . " |\n";
    }
    $text .= "\nEach file of results ends with what these figures are wanted to be. ";
    my @missed = map { my $result = $_; map { [$result->{nginx}, @$_] } @{ $result->{missed} // [] } } @results;
    $text .= @missed
        ? "These are missed, for the reasons in\n[docs/performance.md](docs/performance.md#what-is-missed):\n\n"
            . "| | | wanted | measured |\n|---|---|--:|--:|\n" . join('', map { '| ' . join(' | ', @$_) . " |\n" } @missed)
        : "All of it is reached.\n";
    return $text;
}

# Puts the text between its marks.
sub write {
    my $file = "$ENV{BENCH_DIR}/../README.md";
    my $readme = Bench::Proc::slurp($file);
    utf8::decode($readme);
    my $text = eval { text() };
    if (!defined $text) {
        print "==> the README is left as it is: $@";
        return;
    }
    $readme =~ s/(<!-- bench:begin -->\n).*?(<!-- bench:end -->)/$1$text$2/s or die "$file has no marks for the figures\n";
    open my $out, '>:utf8', $file or die "$file: $!\n";
    print $out $readme;
    close $out or die "$file: $!\n";
    print "==> written: the figures of README.md\n";
}

1;
