package Bench::Count;
# Instructions of one request, counted by callgrind: the difference of two runs that differ in
# nothing but the number of requests.
use strict;
use warnings;
use Exporter 'import';
use Bench::Client;
use Bench::Load;
use Bench::Proc;
use Bench::Scenarios;
use Bench::Stats;
our @EXPORT = qw(instructions);

# What malloc and free cost depends on what else was allocated before, by as much as some hundreds
# of instructions a request, and has nothing to do with what is measured. So each count is the
# median of several, with header buffers of another size each; and there is a second count, the
# `steady` one, in which each call of the allocator stands for the same number of instructions.
my @HEADER_BUFFERS = (1024, 1174, 1324);
use constant ALLOCATOR_CALL => 150;

# The first 2,000 requests are LuaJIT's: it compiles what is often run, and tries again what it could
# not. After 500 the same code still differs by some hundreds of instructions from run to run.
#
# instructions SCENARIO, VARIANT, FEW, MANY, COUNTS: all, and the steady count.
sub instructions {
    my ($scenario, $variant, $few, $many, $counts) = @_;
    my (@all, @steady);
    for my $buffer (@HEADER_BUFFERS[0 .. $counts - 1]) {
        my ($less, $more) = map { totals($scenario, $variant, $_, $buffer) } $few, $many;
        my ($all, $allocator, $calls) = map { ($more->[$_] - $less->[$_]) / ($many - $few) } 0 .. 2;
        push @all, $all;
        push @steady, $all - $allocator + $calls * ALLOCATOR_CALL;
    }
    # The least: LuaJIT, which has a random part, sometimes takes longer to find the best way.
    return (median(@all), (sort { $a <=> $b } @steady)[0]);
}

# All instructions, those of the allocator, and how often it was called.
sub totals {
    my ($scenario, $variant, $count, $buffer) = @_;
    my $front = Bench::Scenarios::front($scenario, $variant, $buffer);
    my $file = "$ENV{BENCH_RUN}/callgrind.$scenario->{name}-$variant.$count";
    unlink $file;
    $front->start_under(qw(valgrind --tool=callgrind --dump-instr=yes), "--callgrind-out-file=$file");
    my ($bodies) = requests($front->{port}, $count);
    $front->stop;
    Bench::Load::check_mix($scenario, $bodies);
    Bench::Load::check($scenario, $front, { failed => 0 });
    my ($total) = Bench::Proc::slurp($file) =~ /^(?:summary|totals): (\d+)/m
        or $front->failed('callgrind counted nothing');
    return [$total, allocator($file)];
}

# What calls into the allocator from outside of the C library cost, all that they do included.
sub allocator {
    my ($file) = @_;
    my (%name, %object, $object, $called, $cost, $calls);
    open my $in, '<', $file or die "$file: $!\n";
    while (defined(my $line = <$in>)) {
        if ($line =~ /^(c?)fn=\((\d+)\)(?: (.*))?/) {
            $name{$2} = $3 if defined $3;
            $called = $name{$2} if $1;
        }
        elsif ($line =~ /^(c?)ob=\((\d+)\)(?: (.*))?/) {
            $object{$2} = $3 if defined $3;
            $object = $object{$2} if !$1;
        }
        elsif ($line =~ /^calls=(\d+)/) {
            my $times = $1;
            my ($inclusive) = <$in> =~ /(\d+)$/;
            if ($called =~ /^(?:malloc|calloc|realloc|free|posix_memalign)(?:'\d+)?$/ && $object !~ m{/libc[.-]}) {
                $cost += $inclusive;
                $calls += $times;
            }
        }
    }
    return ($cost // 0, $calls // 0);
}

1;
