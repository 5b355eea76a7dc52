# The module's file: what protects its memory once it is loaded, and that one which was built for
# another nginx is refused in nginx's own words.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;
use Verdict;

my ($module) = split ' ', $ENV{TEST_NGINX_LOAD_MODULES};
my $nginx = Nginx->new;

# Segments and the dynamic section, as readelf shows them.
sub readelf { my $text = `LC_ALL=C readelf -W @_ '$module'`; $? == 0 or die "readelf: $?"; return $text }
my $segments = readelf('-l');
my %flags;
push @{$flags{$1}}, $2 =~ tr/ //dr while $segments =~ /^ +([A-Z_]+) +(?:0x[0-9a-f]+ +){5}([R ][W ][E ]) /mg;
cmp_ok(scalar(@{$flags{LOAD} // []}), '>=', 2, 'the module has segments');
is_deeply([grep /W/ && /E/, map @$_, values %flags], [], 'none is both writable and executable');
is(scalar(grep(/E/, @{$flags{LOAD}})), 1, 'one has code');
is("@{$flags{GNU_STACK} // ['none']}", 'RW', 'the stack is not executable');
is("@{$flags{GNU_RELRO} // ['none']}", 'R', 'what the loader writes is read-only afterwards');
my $dynamic = readelf('-d');
like($dynamic, qr/\((?:FLAGS)\) .*\bBIND_NOW\b|\(BIND_NOW\)/, 'all symbols are bound when it is loaded');
like($dynamic, qr/\(FLAGS_1\) .*\bNOW\b/, 'which the loader is told twice');
unlike($dynamic, qr/TEXTREL/, 'no relocation writes into code');
unlike($dynamic, qr/\((?:RPATH|RUNPATH)\)/, 'no folder of the build is searched for libraries');

# The whole of the table of addresses is in the read-only part.
my ($relro) = $segments =~ /^ +GNU_RELRO +0x\S+ +(0x\S+) +0x\S+ +0x\S+ +(?:0x\S+)/m;
my ($size) = $segments =~ /^ +GNU_RELRO +(?:0x\S+ +){4}(0x\S+)/m;
my $sections = readelf('-S');
for my $name (qw(.got .got.plt .data.rel.ro .init_array .dynamic)) {
    my ($at, $length) = $sections =~ /\] \Q$name\E +\S+ +([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) / or next;
    ok(hex $at >= hex $relro && hex($at) + hex $length <= hex($relro) + hex $size, "$name is read-only once it is loaded");
}
like($sections, qr/\] \.got /, 'there is a table of addresses');

# The signature tells how nginx was configured: sizes, then a digit for each feature.
my $binary = slurp($module);
my $signatures = $binary =~ s/(\b8,4,8,[01]{10,}?)([01])(?=\0)/$1 . (1 - $2)/ge;
is($signatures, 1, 'the module has a signature');

my $other = $nginx->write('other.so', $binary);
$nginx->conf('');
(my $conf = slurp($nginx->root . '/conf/nginx.conf')) =~ s/load_module \S+;/load_module $other;/;
$nginx->write('conf/nginx.conf', $conf);
refuses($nginx, 'another signature', qr{module "\Q$other\E" is not binary compatible in \S+/nginx\.conf:1$}m);

$nginx->conf('');
accepts($nginx, 'its own');

done_testing();
