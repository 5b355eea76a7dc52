package Chaos::Text;

# Bodies that say whose they are, all along.

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(marked slurp spit);

# SIZE bytes of nothing but this id.
sub marked {
    my ($id, $size) = @_;
    return substr "$id;" x (1 + $size / (1 + length $id)), 0, $size;
}

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
