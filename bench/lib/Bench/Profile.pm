package Bench::Profile;
# Where the instructions of one request go: what callgrind wrote of two runs, function by function,
# and line by line for this module.
use strict;
use warnings;
use Bench::Proc;

# callgrind writes addresses in hexadecimal, and most distances in decimal.
sub number_of { $_[0] =~ /^0x/ ? hex $_[0] : $_[0] }

# Of each function and each address: what it cost itself.
sub costs {
    my ($file) = @_;
    my (%name, %object, %function, %address);
    my ($in_function, $in_object, $at) = ('', '', 0);
    my $move = sub {
        my ($to) = @_;
        $at = $to eq q(*) ? $at : $to =~ /^([+-])(.*)/ ? $at + "${1}1" * number_of($2) : number_of($to);
    };
    open my $in, '<', $file or die "$file: $!\n";
    while (defined(my $line = <$in>)) {
        if ($line =~ /^(c?)fn=\((\d+)\)(?: (.*))?/) {
            $name{$2} = $3 if defined $3;
            $in_function = $name{$2} if !$1;
        }
        elsif ($line =~ /^(c?)ob=\((\d+)\)(?: (.*))?/) {
            $object{$2} = $3 if defined $3;
            $in_object = $object{$2} if !$1;
        }
        elsif ($line =~ /^calls=/) {
            $move->((split ' ', scalar <$in>)[0]);
        }
        elsif ($line =~ /^(0x\w+|[+-]\w+|\*) \S+ (\d+)$/) {
            my ($to, $cost) = ($1, $2);
            $move->($to);
            $function{$in_object}{$in_function} += $cost;
            $address{$in_object}{$at} += $cost;
        }
    }
    return (\%function, \%address);
}

# The differences of two runs, a request.
sub difference {
    my ($less, $more, $requests) = @_;
    my %each;
    for my $object (keys %$more) {
        for my $key (keys %{ $more->{$object} }) {
            my $each = ($more->{$object}{$key} - ($less->{$object}{$key} // 0)) / $requests;
            $each{$object}{$key} = $each if abs $each >= 0.05;
        }
    }
    return \%each;
}

sub of_variant {
    my ($scenario, $variant, $few, $many) = @_;
    my $file = "$ENV{BENCH_RUN}/callgrind.$scenario->{name}-$variant";
    my ($less, $less_at) = costs("$file.$few");
    my ($more, $more_at) = costs("$file.$many");
    return (difference($less, $more, $many - $few), difference($less_at, $more_at, $many - $few));
}

# What each line of the module's own sources stands for: the innermost one of what was inlined.
sub lines {
    my ($module, $at) = @_;
    my @addresses = sort { $a <=> $b } keys %$at;
    my $list = "$ENV{BENCH_RUN}/addresses";
    open my $out, '>', $list or die "$list: $!\n";
    printf $out "%#x\n", $_ for @addresses;
    close $out;
    my (%line, $now, $found);
    for (split /\n/, `addr2line -a -i -e '$module' <'$list'`) {
        if (/^0x(\w+)$/) {
            $line{'(without a line)'} += $at->{$now} if defined $now && !$found;
            ($now, $found) = (hex $1, 0);
        }
        elsif (!$found && m{/((?:src)/[\w/]+\.rs):(\d+)} && !m{/(?:rustc|registry|library)/}) {
            $line{"$1:$2"} += $at->{$now};
            $found = 1;
        }
    }
    return \%line;
}

sub show {
    my ($title, $count, %each) = @_;
    my $sum = 0;
    $sum += $_ for values %each;
    printf "\n%s: %.0f\n", $title, $sum;
    my @sorted = sort { abs $each{$b} <=> abs $each{$a} } keys %each;
    splice @sorted, $count if @sorted > $count;
    printf "%8.1f  %s\n", $each{$_}, $_ for grep { abs $each{$_} >= 1 } @sorted;
}

sub run {
    my ($scenario, $few, $many) = @_;
    my ($native) = of_variant($scenario, 'native', $few, $many);
    my ($ours, $at) = of_variant($scenario, 'ours', $few, $many);
    my (%above, %function);
    for my $object (keys %{ { %$native, %$ours } }) {
        my $short = $object eq '???' ? 'compiled by LuaJIT' : $object =~ s{.*/}{}r;
        for my $name (keys %{ { %{ $native->{$object} // {} }, %{ $ours->{$object} // {} } } }) {
            my $more = ($ours->{$object}{$name} // 0) - ($native->{$object}{$name} // 0);
            $above{$short} += $more;
            $function{"$short $name"} += $more;
        }
    }
    show('instructions a request above plain nginx, by library', 20, %above);
    show('by function', 60, %function);
    show('of this module, by line', 80, %{ lines($ENV{BENCH_MODULE}, $at->{ $ENV{BENCH_MODULE} } // {}) });
}

1;
