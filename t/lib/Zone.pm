package Zone;

# A shared memory zone as one of nginx's processes has it mapped, read and written from outside.
#
#   my $zone = Zone->of($worker, 1024 * 1024) or skip 'the memory of a worker cannot be written to', 3;
#   $zone->write($zone->last('text'), 'TEXT');     # places are counted from the zone's start
#   $zone->write($zone->data, pack 'L', 1);

use strict;
use warnings;

# The zone of so many bytes, if the memory can be written to. Nobody else's zone may have that size.
sub of {
    my ($class, $pid, $size) = @_;
    open my $maps, '<', "/proc/$pid/maps" or die "maps: $!";
    for (<$maps>) {
        my ($from, $to) = /^([0-9a-f]+)-([0-9a-f]+) rw-s .* \/dev\/zero/ or next;
        no warnings 'portable';
        ($from, $to) = (hex $from, hex $to);
        next if $to - $from != $size;
        open my $memory, '+<:raw', "/proc/$pid/mem" or return;
        my $zone = bless { memory => $memory, from => $from, size => $size }, $class;
        # As it was: some systems let memory be opened, and not written.
        return eval { $zone->write($size - 1, $zone->read($size - 1, 1)); 1 } ? $zone : undef;
    }
    die "process $pid has no zone of $size bytes\n";
}

sub size { $_[0]{size} }

sub read {
    my ($self, $at, $length) = @_;
    sysseek $self->{memory}, $self->{from} + $at, 0;
    my $bytes;
    my $read = sysread $self->{memory}, $bytes, $length;
    ($read // 0) == $length or die "a zone cannot be read: $!\n";
    return $bytes;
}

sub write {
    my ($self, $at, $bytes) = @_;
    sysseek $self->{memory}, $self->{from} + $at, 0;
    my $written = syswrite $self->{memory}, $bytes;
    ($written // 0) == length $bytes or die "a zone cannot be written: $!\n";
}

# Where the text stands for the last time.
sub last {
    my ($self, $text) = @_;
    my $at = rindex $self->read(0, $self->{size}), $text;
    $at >= 0 or die "the zone does not have $text\n";
    return $at;
}

# Where what the module keeps in it begins: `data` of ngx_slab_pool_t. Behind it stands `addr`, which is
# the zone's own place; before, only the lock's pointer to itself is the same.
sub data {
    my ($self) = @_;
    my @words = unpack 'Q*', $self->read(0, 512);
    my ($addr) = grep $words[$_] == $self->{from}, reverse 1 .. $#words;
    my $at = $words[($addr // die "the zone has no allocator\n") - 1] - $self->{from};
    $at > 0 && $at < $self->{size} or die "the zone's data are at $at\n";
    return $at;
}

1;
