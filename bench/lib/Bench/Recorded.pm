package Bench::Recorded;
# The counts of instructions that were kept, and whether those of today have grown.
use strict;
use warnings;
use Bench::Nginx;
use Bench::Proc;
use Bench::Stats;

# What two runs of one binary differ by: nginx's tree of timers has another shape when the clock has, and the
# timeouts of set_timeouts are its leftmost leaves.
use constant NOISE => 40;

# All that the counts depend on besides this module: the programs, and which of its copies of
# memcpy and the like the C library takes.
sub machine {
    my ($nginx) = (split ' ', $ENV{BENCH_NGINX})[-1];
    my $front = Bench::Nginx->new('libraries', 'front', { http => '', main => "load_module $ENV{BENCH_MODULE};\n" })->start;
    my %file = map { $_ => 1 } Bench::Proc::slurp("/proc/$front->{master}/maps") =~ m{(/\S*/(?:libc|libluajit)\S*\.so\S*)}g;
    $front->stop;
    my @sums = map { (split ' ', `cksum '$_'`)[0] } $nginx, sort keys %file;
    my $cpu = Bench::Proc::slurp('/proc/cpuinfo') =~ /\bavx2\b/ ? 'avx2' : 'no avx2';
    return join ' ', "nginx/$ENV{BENCH_VERSION}", @sums, $cpu;
}

sub new {
    my ($class) = @_;
    my $self = bless { file => "$ENV{BENCH_DIR}/results/instructions.$ENV{BENCH_VERSION}", now => {}, machine => machine() }, $class;
    my $text = Bench::Proc::slurp($self->{file});
    my ($of) = $text =~ /^# (nginx.*)/m;
    if (!$of) {
        print "==> no counts are kept for nginx/$ENV{BENCH_VERSION}: they are only shown\n";
    }
    elsif ($of ne $self->{machine}) {
        print "==> the counts that are kept are of other packages ($of, not $self->{machine}): today's are only shown\n";
    }
    else {
        $self->{kept} = { $text =~ /^(\w+) (-?\d+)$/mg };
    }
    return $self;
}

# compare SCENARIO, RESULTS: whether it fails.
sub compare {
    my ($self, $scenario, $results) = @_;
    my $name = $scenario->{name};
    my ($native, $ours) = @$results{qw(native ours)};
    if (my ($why) = grep { defined } map { $_->{failed} } $native, $ours) {
        print "not ok: $name: ", (split /\R/, $why)[0], "\n";
        # A scenario that was never counted cannot have become worse.
        return $self->{kept} && defined $self->{kept}{$name} ? 1 : 0;
    }
    my $from = $scenario->{above} ? $self->{counted}{ $scenario->{above} } : $native->{steady};
    return 0 if !defined $from;
    $self->{counted}{$name} = $ours->{steady};
    my $above = $ours->{steady} - $from;
    $self->{now}{$name} = sprintf '%.0f', $above;
    my $kept = $self->{kept} && $self->{kept}{$name};
    my $text = "$name: " . number(int $above) . ' instructions a request above ' . ($scenario->{above} ? "the same without it" : "plain nginx");
    $text .= ', ' . number($kept) . ' are kept' if defined $kept;
    my $grown = defined $kept && $above > $kept * 1.05 && $above > $kept + NOISE;
    print $grown ? "not ok: $text: more than 5 % more\n" : "ok: $text\n";
    return $grown ? 1 : 0;
}

sub write {
    my ($self) = @_;
    open my $out, '>', $self->{file} or die "$self->{file}: $!\n";
    print $out "# Instructions a request above plain nginx, each call of malloc or free taken for the same number\n",
        "# (bench/lib/Bench/Count.pm); make bench-instructions compares with them,\n",
        "# BENCH_RECORD=1 make bench-instructions keeps new ones. They are of these programs:\n",
        "# $self->{machine}\n";
    print $out "$_ $self->{now}{$_}\n" for sort keys %{ $self->{now} };
    close $out or die "$self->{file}: $!\n";
    print "==> kept in $self->{file}\n";
}

1;
