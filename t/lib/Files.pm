package Files;

# A file as a whole.

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(slurp spit);

# The text of a file; none when it cannot be read.
sub slurp {
    my ($file) = @_;
    open my $in, '<', $file or return '';
    local $/;
    return scalar <$in> // '';
}

sub spit {
    my ($file, $text) = @_;
    open my $out, '>', $file or die "$file: $!\n";
    print $out $text;
    close $out or die "$file: $!\n";
}

1;
