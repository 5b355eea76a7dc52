package Verdict;

# What nginx -t says of the configuration that was written last.
#
#   accepts($nginx, 'a name');
#   my $run = refuses($nginx, 'a name', qr/invalid value "x" .* in \S+:6$/m);

use strict;
use warnings;

use Exporter 'import';
use Test::More;

our @EXPORT = qw(accepts refuses);

sub accepts {
    my ($nginx, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $run = $nginx->test;
    is($run->{code}, 0, "$name: accepted") or diag($run->{out});
    return $run;
}

# In one line, and by itself: a process that is killed has no code.
sub refuses {
    my ($nginx, $name, $message) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $run = $nginx->test;
    is("$run->{code} $run->{signal}", '1 0', "$name: refused");
    is(scalar(() = $run->{out} =~ /\[emerg\]/g), 1, "$name: in one line") or diag($run->{out});
    like($run->{out}, qr/\[emerg\] .*$message/, "$name: which says why");
    return $run;
}

1;
